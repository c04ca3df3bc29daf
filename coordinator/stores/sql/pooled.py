"""What is found before a read gets a pooled connection: that others have ended it while it was idle, and, where reads
must not be old, that its server follows another one.
"""

import asyncio
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.engine import AdaptedConnection
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.stores.kinds import OnlyFollows
from coordinator.stores.sql.dialect import Dialect
from coordinator.stores.sql.hosts_in_turns import is_silent

PROBE_TIMEOUT_S: Final = 2.0
"""How long an idle connection may take for a round trip: a firewall that has forgotten it says nothing."""

_IS_USED: Final = "is_used"


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
