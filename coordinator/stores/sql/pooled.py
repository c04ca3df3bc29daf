"""What is found before a read gets a pooled connection: that others have ended it while it was idle, and, where reads
must not be old, that its server follows another one.
"""

import asyncio
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.engine import AdaptedConnection
from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.stores.kinds import OnlyFollows, ReadsAnotherLanes, lack_of
from coordinator.stores.lease_table import LEASE_TABLE
from coordinator.stores.one_lane import LANES_READ_MAX, other_lane
from coordinator.stores.sql.dialect import Dialect
from coordinator.stores.sql.hosts_in_turns import is_silent

PROBE_TIMEOUT_S: Final = 2.0
"""How long an idle connection may take for a round trip: a firewall that has forgotten it says nothing."""

_IS_USED: Final = "is_used"
_IS_LANES: Final = "is_lanes"


def probe_pooled(engine: AsyncEngine, dialect: Dialect, *, must_lead: bool = False) -> None:
    """Probe each connection of the pool before its next use. If that fails, all idle ones are replaced when used.
    `must_lead`: none is used whose server follows another one; the name of its host may lead to that by now.

    Any error counts: beside drivers' own errors, event loops raise theirs for a socket that is gone (uvloop a
    RuntimeError). SQLAlchemy's pre-ping would pass those on, and wait for as long as a read may take.
    """

    async def probe(connection: Any) -> None:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            await dialect.probe(connection)

    def check(connection: AdaptedConnection, record: Any, _: object) -> None:
        if not record.info.setdefault(_IS_USED, False):
            # A new connection: SQLAlchemy clears what is noted here with each.
            record.info[_IS_USED] = True
            if must_lead:
                _check_leads(connection, dialect)
            return
        try:
            connection.run_async(probe)
            if must_lead:
                _check_leads(connection, dialect)
        except Exception as error:
            if isinstance(error, TimeoutError):
                is_silent(engine, record)
            raise InvalidatePoolError(f"{type(error).__name__}: {error}") from error

    event.listen(engine.sync_engine, "checkout", check)


def _check_leads(connection: Any, dialect: Dialect) -> None:
    if dialect.follows is None:
        return
    cursor = connection.cursor()
    try:
        cursor.execute(dialect.follows)
        (follows,) = cursor.fetchone() or (False,)
    finally:
        cursor.close()
    if follows:
        raise OnlyFollows


def keep_to_lane(engine: AsyncEngine, lane: str) -> None:
    """Look once at each new connection of the pool whose the database is. None is used that leads to another lane's:
    the name of its host, or a proxy, may lead there by now."""

    def check(connection: Any, record: Any, _: object) -> None:
        if record.info.get(_IS_LANES, False):
            return
        cursor = connection.cursor()
        try:
            cursor.execute(f"SELECT lane FROM {LEASE_TABLE} LIMIT {LANES_READ_MAX}")  # noqa: S608  # both are constants
            lanes = [row[0] for row in cursor.fetchall()]
        except Exception as error:
            if lack_of(DBAPIError(None, None, error)) not in {"right", "table", "table or schema"}:
                raise
            # Nothing shows whose it is, as for a role that may only read rows.
            lanes = []
        finally:
            cursor.close()
        if other_lane(lanes, lane) is not None:
            # SQLAlchemy ends the connection: the next one may lead to the lane's own.
            raise ReadsAnotherLanes
        record.info[_IS_LANES] = True

    event.listen(engine.sync_engine, "checkout", check)
