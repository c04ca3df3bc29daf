"""SQLite: an SQL database without a server, for tests and for lanes within one process."""
