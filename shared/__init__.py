"""The reference system's shared library: its services' commands, rows, handlers and methods."""
