"""How recent the current task's reads must be: at least as the commands up to some place in their lane left the rows.

Whoever wrote knows the place of his command. `lane_lease.sequence` shows how far a server that lags has come: it is
committed with the rows, so a snapshot that has the place has the rows, too. A read that needs no place costs nothing of
this.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import Select, column, select, table
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from coordinator.service.errors import NotRecent
from coordinator.stores.kinds import Database
from coordinator.stores.lane_tables import LEASE_TABLE

_OF_PRIMARY: Final = 0
"""The mode of that read preference, as MongoDB's protocol has it."""
_PAUSE_S: Final = 0.002
_PAUSE_S_MAX: Final = 0.05
_GROWTH: Final = 1.5


class ReadDatabase(Struct, frozen=True, kw_only=True):
    """A database of one lane, from which requests read. `primary` is asked where that is a replica, and lags."""

    lane: str
    database: Database
    primary: Database | None = None

    @property
    def name(self) -> str:
        """What `Served-By` says of it."""
        if not isinstance(self.database, AsyncEngine):
            return "primary"
        return "reader" if self.primary is None else "replica"


class NeededRecency:
    """What one request's reads must show, and who has served them (`served`, in the order of their first reads).

    `places` are sequences, by lane; `wait_s` is how long each read waits for them, in seconds, before it asks the
    primary.
    """

    def __init__(self, places: Mapping[str, int], databases: Iterable[ReadDatabase], wait_s: float) -> None:
        self._places = places
        self._databases = {id(each.database): each for each in databases}
        self._wait_s = wait_s
        self.served: dict[str, None] = {}

    def concerns(self, lane: str) -> bool:
        """Whether rows of this lane are to be as recent as some place."""
        return lane in self._places

    @asynccontextmanager
    async def connected(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        """A connection for a read that is recent enough: one snapshot of which that is known.

        Raises NotRecent, and the driver's errors.
        """
        source = self._databases.get(id(engine))
        needed = None if source is None else self._places.get(source.lane)
        if source is None or needed is None:
            async with engine.connect() as connection:
                yield connection
            return
        until_s, pause_s, there = _now_s() + self._wait_s, _PAUSE_S, 0
        while True:
            async with engine.connect() as connection:
                there = await _place_in_snapshot(connection, source.lane)
                if there >= needed:
                    self.served[source.name] = None
                    yield connection
                    return
            left_s = until_s - _now_s()
            if left_s <= 0:
                break
            # The connection is others' meanwhile.
            await asyncio.sleep(min(pause_s, left_s))
            pause_s = min(pause_s * _GROWTH, _PAUSE_S_MAX)
        if isinstance(source.primary, AsyncEngine):
            async with source.primary.connect() as connection:
                there = await _place_in_snapshot(connection, source.lane)
                if there >= needed:
                    self.served["primary"] = None
                    yield connection
                    return
        raise _not_recent(source.lane, needed, there)

    def check_documents(self) -> None:
        """Whether reads of documents can be as recent as is needed. Raises NotRecent.

        MongoDB's primary has, by majority, what the lane has answered for. Of other members nothing is known.
        """
        for source in self._databases.values():
            if isinstance(source.database, AsyncEngine) or source.lane not in self._places:
                continue
            if source.database.read_preference.mode != _OF_PRIMARY:
                raise NotRecent(
                    f"reads of lane {source.lane} go to other members than MongoDB's primary, of which nobody can say"
                    " how recent they are: leave Read-After out, or read by the primary"
                )
            self.served[source.name] = None


def _not_recent(lane: str, needed: int, there: int) -> NotRecent:
    return NotRecent(
        f"lane {lane} stands at {there} in the database that is read here, and the read needs {needed}: repeat it, or"
        " leave Read-After out"
    )


async def _place_in_snapshot(connection: AsyncConnection, lane: str) -> int:
    """The place of the lane in the snapshot that the connection's next statements read, too; 0: it has none."""
    if connection.dialect.name != "sqlite":
        # One file has no copies that lag: a later statement sees no less.
        await connection.execution_options(isolation_level="REPEATABLE READ")
    leases: Select[Any] = select(column("sequence")).select_from(table(LEASE_TABLE)).where(column("lane") == lane)
    return (await connection.execute(leases)).scalar() or 0


def _now_s() -> float:
    return asyncio.get_running_loop().time()


_needed: ContextVar[NeededRecency | None] = ContextVar("needed_recency", default=None)


def need_recency(needed: NeededRecency) -> None:
    """The reads of the current task, and of tasks that it starts from here on, are as recent as that."""
    _needed.set(needed)


def needs_recency(lane: str) -> bool:
    """Whether the current task's reads of this lane's rows must be as recent as some place: a cache is passed by."""
    needed = _needed.get()
    return needed is not None and needed.concerns(lane)


def connected(engine: AsyncEngine) -> AbstractAsyncContextManager[AsyncConnection]:
    """A connection for one read of the current task."""
    needed = _needed.get()
    return engine.connect() if needed is None else needed.connected(engine)
