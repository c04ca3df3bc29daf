"""The shared library: the services' commands, rows, handlers and methods, and the wire protocol between processes."""
