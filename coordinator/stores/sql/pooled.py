"""Pooled connections that others have ended while they were idle, found before a read gets one."""

import asyncio
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.engine import AdaptedConnection
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.stores.sql.dialect import Dialect
from coordinator.stores.sql.hosts_in_turns import is_silent

PROBE_TIMEOUT_S: Final = 2.0
"""How long an idle connection may take for a round trip: a firewall that has forgotten it says nothing."""

_IS_USED: Final = "is_used"


def probe_pooled(engine: AsyncEngine, dialect: Dialect) -> None:
    """Probe each connection of the pool before its next use. If that fails, all idle ones are replaced when used.

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
            return
        try:
            connection.run_async(probe)
        except Exception as error:
            if isinstance(error, TimeoutError):
                is_silent(engine, record)
            raise InvalidatePoolError(f"{type(error).__name__}: {error}") from error

    event.listen(engine.sync_engine, "checkout", check)
