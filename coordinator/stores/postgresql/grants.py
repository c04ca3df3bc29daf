"""The rights of the roles of a lane and of its readers, as statements: for `coordinator migrate`, and for people."""

from collections.abc import Sequence
from typing import Final

READ_TIMEOUT_S: Final = 5
"""The server's own limit of a read, in case the gateway is gone and cannot cancel it."""


def quoted(name: str) -> str:
    """A name as it stands in a statement."""
    return '"' + name.replace('"', '""') + '"'


def limits(role: str) -> str:
    """What the server does to the reads of a role."""
    return f"ALTER ROLE {quoted(role)} SET statement_timeout = '{READ_TIMEOUT_S}s'"


def grants(role: str, database: str, schema: str, *, writes: bool, owner: str | None = None) -> Sequence[str]:
    """What lets a role read every table of a schema, and write them or not: those that are there, and those that
    `owner` makes later; None: whoever runs it.
    """
    rights = "SELECT, INSERT, UPDATE, DELETE" if writes else "SELECT"
    to, within = f"TO {quoted(role)}", f"IN SCHEMA {quoted(schema)}"
    later = "ALTER DEFAULT PRIVILEGES" if owner is None else f"ALTER DEFAULT PRIVILEGES FOR ROLE {quoted(owner)}"
    statements = [
        f"GRANT CONNECT ON DATABASE {quoted(database)} {to}",
        f"GRANT USAGE ON SCHEMA {quoted(schema)} {to}",
        f"GRANT {rights} ON ALL TABLES {within} {to}",
        f"{later} {within} GRANT {rights} ON TABLES {to}",
    ]
    if writes:
        statements += [
            f"GRANT USAGE ON ALL SEQUENCES {within} {to}",
            f"{later} {within} GRANT USAGE ON SEQUENCES {to}",
        ]
    return statements
