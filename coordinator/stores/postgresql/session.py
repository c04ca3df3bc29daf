"""What a session must be like, whatever the server, the database, the role or the environment has set for it.

A SET of the session's own stands above all of these, also above what libpq takes from PGDATESTYLE and PGTZ. It is made
when a connection is opened, and a reload of the server's configuration does not change it either.
"""

from typing import Any, Final

import psycopg

from coordinator.stores.postgresql.durability import KEEP_COMMITS

ENCODING: Final = "UTF8"
IDLE_IN_TRANSACTION_TIMEOUT_MS: Final = 10_000
LOCK_TIMEOUT_MS: Final = 5_000

READING: Final[dict[str, str]] = {
    # Values come as texts, and must be such as the driver reads, with every digit of a float.
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "3",
}
WRITING: Final[dict[str, str]] = {
    **READING,
    "client_encoding": ENCODING,
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "transform_null_equals": "off",
    # An error would end the session, and be taken for an outage, though one command is at fault.
    "exit_on_error": "off",
    # A commit that no synchronous standby has is known by a warning only.
    "client_min_messages": "warning",
}

OF_LANE: Final[dict[str, str | int]] = {
    # A consumer that was stopped in the middle of a batch must not hold the lease row's lock for ever.
    "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_TIMEOUT_MS,
    "lock_timeout": LOCK_TIMEOUT_MS,
    "default_transaction_isolation": "read committed",
    # Every statement goes by a key. The plan of a prepared one is kept, and one that was made while a table was empty
    # would read all of it until the next ANALYZE: 200 ms, not 5, for 1,000 ids in a log of 10,000.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}
"""What a lane adds, by options of its connection."""

# Rows that a policy hides look as if they were not there. `off` makes each statement an error that would meet a policy,
# also one of later. Where policies are for this role already, `check_shown` asks whether they hide rows of the lane.
# For a role that passes them all by none does, and a trigger's function, with a role of its own, may meet some.
_ROW_SECURITY: Final = """set_config('row_security', CASE WHEN (
    SELECT rolsuper OR rolbypassrls FROM pg_catalog.pg_roles WHERE rolname = current_user
) OR EXISTS (
    SELECT FROM pg_catalog.pg_class WHERE relrowsecurity AND row_security_active(oid)
) THEN 'on' ELSE 'off' END, false)"""


def _set(parameters: dict[str, str], is_local: str = "false") -> str:
    return ", ".join(f"set_config('{name}', '{value}', {is_local})" for name, value in parameters.items())


def _set_up(is_local: str) -> str:
    return f"{KEEP_COMMITS.format(is_local=is_local)}, {_set(WRITING, is_local)}"


# It would end a session between two commands, which look like an outage then. PostgreSQL has it since 14.
_HOWEVER_IDLE: Final = """CASE WHEN current_setting('idle_session_timeout', true) IS NOT NULL
    THEN set_config('idle_session_timeout', '0', false) END"""

SET_UP: Final = f"SELECT {_set_up('false')}, {_HOWEVER_IDLE}".encode()
"""Sets a session up which migrates, or does what an operator's command does."""
# An operator's command has the lease row locked, as a lane has. One that stands still (Ctrl-Z, a laptop that is shut)
# must not keep it for ever: nobody takes a lane over from it.
_HOWEVER_STILL: Final = _set({"idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_TIMEOUT_MS)}, "true")
SET_UP_TRANSACTION: Final = f"SELECT {_set_up('true')}, {_HOWEVER_STILL}"
"""Does the same for one transaction, whose session may be another client's next, and which is rolled back where its
client says nothing for too long."""
SET_UP_LANE: Final = f"SELECT {_ROW_SECURITY}, {_set_up('false')}, {_HOWEVER_IDLE}".encode()
"""Sets a lane's session up. Its first column is `row_security`."""
MEET_POLICIES: Final = b"SET row_security = on"
"""Lets a lane's session meet policies, such as one for the role of a trigger's function."""

_SET_UP_READER: Final = f"""
    SELECT pg_backend_pid(), reset_val::integer, {_set(READING)}
    FROM pg_catalog.pg_settings WHERE name = 'extra_float_digits'
""".encode()  # noqa: S608  # constants of ours


async def set_up_reader(connection: "psycopg.AsyncConnection[Any]") -> None:
    """Set a session up from which a gateway reads. Raises OperationalError, in words, where that cannot be done.

    PgBouncer, which gives each transaction another session, takes the dates' style, the time zone and the encoding
    along. It does not know how many digits a float has: there the role must say it.
    """
    is_autocommit = connection.autocommit
    await connection.set_autocommit(True)
    found = await (await connection.execute(_SET_UP_READER)).fetchone()
    await connection.set_autocommit(is_autocommit)
    if found is not None and found[0] != connection.info.backend_pid and found[1] < 1:
        raise psycopg.OperationalError(
            f"extra_float_digits of the gateway's role is {found[1]}, so floats would be read without their last "
            "digits, and behind a pooler a session cannot change it: ALTER ROLE … SET extra_float_digits = 1"
        )


def defect_of_encoding(connection: "psycopg.Connection[Any]") -> str | None:
    """Why the database cannot hold every text; None: it can."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding == ENCODING:
        return None
    return (
        f"has the encoding {encoding}, in which not every text can be written: make one with "
        f"CREATE DATABASE … ENCODING '{ENCODING}' TEMPLATE template0, and move the rows there"
    )
