"""What the kinds of SQL database have in common."""
