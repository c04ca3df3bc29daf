"""Whom a lane's session waits for, as another session of the same role is shown it.

The server tells every role who is in whose way, and hides only what they run.
"""

from contextlib import closing
from typing import Any, Final

import psycopg

from coordinator.stores.postgresql.migration_lock import PREPARED_OWNERS, named_prepared, named_session

_CONNECT_TIMEOUT_S: Final = 2
_STATEMENT_TIMEOUT_MS: Final = 2_000
_NAMED_MAX: Final = 3

# A prepared transaction is shown as process 0.
_IN_THE_WAY: Final = b"""
    SELECT DISTINCT blocking.pid, pg_get_userbyid(session.usesysid), session.application_name
    FROM unnest(pg_blocking_pids(%s)) AS blocking (pid)
    LEFT JOIN pg_stat_activity AS session ON session.pid = blocking.pid
    ORDER BY blocking.pid
"""
_WAITED_FOR: Final = b"SELECT wait_event FROM pg_stat_activity WHERE pid = %s"

_Connection = psycopg.Connection[tuple[Any, ...]]


def waited_for(arguments: dict[str, Any], pid: int) -> str | None:
    """Whom the session `pid` waits for, in words; None: for nobody. `arguments` are psycopg's. Raises its errors."""
    with closing(
        psycopg.connect(**arguments, autocommit=True, connect_timeout=_CONNECT_TIMEOUT_S, prepare_threshold=None)
    ) as connection:
        connection.execute(f"SET statement_timeout = {_STATEMENT_TIMEOUT_MS}".encode())
        holders = _holders(connection, pid, is_first=True)
        if holders:
            return f"a lock is held by {', '.join(holders)}"
        row = connection.execute(_WAITED_FOR, [pid]).fetchone()
        return "a synchronous standby has not confirmed" if row == ("SyncRep",) else None


def _holders(connection: _Connection, pid: int, *, is_first: bool) -> list[str]:
    """Who is in a session's way; and, since one may only stand before it in a queue, who is in theirs."""
    found = connection.execute(_IN_THE_WAY, [pid]).fetchall()
    named = []
    for number, role, application in found[:_NAMED_MAX]:
        if number == 0:
            named.append(_prepared(connection))
            continue
        name = "a session that has just ended" if role is None else named_session(number, role, application)
        others = _holders(connection, number, is_first=False) if is_first else []
        named.append(f"{name}, which waits for {' and '.join(others)}" if others else name)
    if len(found) > _NAMED_MAX:
        named.append(f"{len(found) - _NAMED_MAX} more")
    return named


def _prepared(connection: _Connection) -> str:
    (owners,) = connection.execute(PREPARED_OWNERS.encode()).fetchone() or (None,)
    return named_prepared(owners)
