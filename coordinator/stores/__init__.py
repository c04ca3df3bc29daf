"""One file per database: how a lane reads and commits there. port.py is what they all do."""
