"""The rights of the accounts of a lane and of its readers, as statements: for `coordinator migrate`, and for people."""

import re


def account(name: str) -> str:
    """An account as it stands in a statement, of whatever host."""
    escaped = name.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'@'%'"


def grant(user: str, database: str, *, writes: bool) -> str:
    """What lets an account read every table of a database, and write them or not."""
    rights = "SELECT, INSERT, UPDATE, DELETE" if writes else "SELECT"
    return f"GRANT {rights} ON {pattern(database)}.* TO {account(user)}"


def pattern(database: str) -> str:
    """A database as a GRANT takes it, where _ and % stand for other characters, and \\ takes that from the next one."""
    escaped = re.sub(r"([_%\\])", r"\\\1", database)
    return f"`{escaped.replace('`', '``')}`"
