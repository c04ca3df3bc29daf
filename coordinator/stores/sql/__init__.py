"""The parts that all kinds of SQL database share."""
