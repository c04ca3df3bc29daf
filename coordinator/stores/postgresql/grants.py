"""The rights of the roles of a lane and of its readers, as statements: for `coordinator migrate`, and for people."""

from collections.abc import Sequence
from typing import Final, NamedTuple

READERS_PART: Final = (3, 4)
"""Of a server's connections, as many may be a reader's."""
READ_TIMEOUT_S: Final = 5
"""The server's own limit of a read, in case the gateway is gone and cannot cancel it."""


def quoted(name: str) -> str:
    """A name as it stands in a statement."""
    return '"' + name.replace('"', '""') + '"'


def limits(role: str, database: str) -> Sequence[str]:
    """What the server does to the reads of a role, whatever the role has said of itself; and how many connections it
    may have, which leaves some to the lane.
    """
    literal = "'" + role.replace("'", "''") + "'"
    count = f"current_setting('max_connections')::int * {READERS_PART[0]} / {READERS_PART[1]}"
    alter = f"format('ALTER ROLE %I CONNECTION LIMIT %s', {_standard(literal)}, {count})"
    return [
        f"ALTER ROLE {quoted(role)} IN DATABASE {quoted(database)} RESET statement_timeout",
        f"ALTER ROLE {quoted(role)} SET statement_timeout = '{READ_TIMEOUT_S}s'",
        f"DO $limit$ BEGIN EXECUTE {alter}; END $limit$",
    ]


def _standard(literal: str) -> str:
    """A literal in which a backslash is one, whatever the session says of it."""
    return "E" + literal.replace("\\", "\\\\")


def no_temporary_tables(database: str) -> str:
    """What takes from everybody what fills the disk without a right on a table."""
    return f"REVOKE TEMPORARY ON DATABASE {quoted(database)} FROM PUBLIC"


FUNCTIONS_PATTERN: Final = (
    "^(pg_(try_)?advisory_(xact_)?lock(_shared)?|lo_creat|lo_create|lo_from_bytea|pg_logical_emit_message)$"
)
"""Functions that fill the disk, and the table of locks that all sessions share."""
_FUNCTIONS: Final = f"pronamespace = 'pg_catalog'::regnamespace AND proname ~ '{FUNCTIONS_PATTERN}'"
NO_FUNCTIONS: Final = (
    f"DO $revoke$ DECLARE one regprocedure; BEGIN FOR one IN SELECT oid FROM pg_proc WHERE {_FUNCTIONS} "  # noqa: S608
    "LOOP EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', one); END LOOP; END $revoke$"
)
"""What takes these functions from everybody. Only a superuser may."""


def migrating(role: str) -> str:
    """What a role needs of these to migrate; releases before took the second one."""
    return f"GRANT EXECUTE ON FUNCTION pg_try_advisory_lock(bigint), pg_advisory_lock(bigint) TO {quoted(role)}"


class Grantable(NamedTuple):
    """What is in a schema and whoever gives rights may give them on."""

    tables: Sequence[str]
    sequences: Sequence[str]


def grants(
    role: str, database: str, schema: str, owner: str | None = None, there: Grantable | None = None
) -> Sequence[str]:
    """What lets a role read and write the tables of a schema: those that are `there`, and those that `owner` makes
    later. None: all of them; whoever runs it.
    """
    rights = "SELECT, INSERT, UPDATE, DELETE"
    to, within = f"TO {quoted(role)}", f"IN SCHEMA {quoted(schema)}"
    later = "ALTER DEFAULT PRIVILEGES" if owner is None else f"ALTER DEFAULT PRIVILEGES FOR ROLE {quoted(owner)}"
    tables = f"ALL TABLES {within}" if there is None else _listed(schema, there.tables)
    sequences = f"ALL SEQUENCES {within}" if there is None else f"SEQUENCE {_listed(schema, there.sequences)}"
    return [
        *entry(role, database, schema),
        *([f"GRANT {rights} ON {tables} {to}"] if there is None or there.tables else []),
        f"{later} {within} GRANT {rights} ON TABLES {to}",
        *([f"GRANT USAGE ON {sequences} {to}"] if there is None or there.sequences else []),
        f"{later} {within} GRANT USAGE ON SEQUENCES {to}",
    ]


def entry(role: str, database: str, schema: str) -> Sequence[str]:
    """What lets a role come to the tables of a schema, without any right on them."""
    return [
        f"GRANT CONNECT ON DATABASE {quoted(database)} TO {quoted(role)}",
        f"GRANT USAGE ON SCHEMA {quoted(schema)} TO {quoted(role)}",
    ]


def reading(role: str, schema: str, tables: Sequence[str]) -> str:
    """What lets a role read these tables, which are there."""
    return f"GRANT SELECT ON {_listed(schema, tables)} TO {quoted(role)}"


def narrowing(role: str, schema: str, withheld: Sequence[str]) -> Sequence[str]:
    """What takes from a role what it may read of these tables, which are there, and of those that whoever runs it makes
    later. Earlier releases gave readers all tables.
    """
    of = f"FROM {quoted(role)}"
    taken = [f"REVOKE SELECT ON {_listed(schema, withheld)} {of}"] if withheld else []
    return [*taken, f"ALTER DEFAULT PRIVILEGES IN SCHEMA {quoted(schema)} REVOKE SELECT ON TABLES {of}"]


def _listed(schema: str, tables: Sequence[str]) -> str:
    return ", ".join(f"{quoted(schema)}.{quoted(table)}" for table in tables)
