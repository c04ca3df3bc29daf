"""The wire protocol, and the port through which services issue commands."""
