"""How recent the current task's reads must be: at least as the commands up to some place in their lane left the rows.

Whoever wrote knows the place of his command. `lane_lease.sequence` shows how far a server that lags has come: it is
committed with the rows, so a snapshot that has the place has the rows, too. A read that needs no place costs nothing of
this.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Select, column, select, table
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from coordinator.client.reached_place import PAUSE_S, ReachedPlace, longer, now_s
from coordinator.client.read_turns import turn_of
from coordinator.service.errors import NotRecent
from coordinator.stores.kinds import Database
from coordinator.stores.lease_table import LEASE_TABLE
from coordinator.stores.mongodb.documents import Document
from coordinator.stores.sql.hosts_in_turns import number_of_host

if TYPE_CHECKING:
    from pymongo.asynchronous.collection import AsyncCollection

_OF_PRIMARY: Final = 0
"""The mode of that read preference, as MongoDB's protocol has it."""


def _room_for_all() -> AbstractContextManager[bool]:
    return nullcontext(enter_result=True)


class ReadDatabase:
    """A database of one lane, from which requests read, and how far it has come.

    `primary` is asked where `database` is a replica, and lags.
    """

    def __init__(self, *, lane: str, database: Database, primary: Database | None = None) -> None:
        self.lane = lane
        self.database = database
        self.reached = ReachedPlace(lambda: _place(database, lane))
        self.primary: AsyncEngine | None = None
        if isinstance(primary, AsyncEngine):
            server = self.primary = primary
            self.reached_by_primary = ReachedPlace(lambda: _place(server, lane))

    @property
    def name(self) -> str:
        """What `Served-By` says of it."""
        if not isinstance(self.database, AsyncEngine):
            return "primary"
        return "reader" if self.primary is None else "replica"

    def name_by(self, connection: AsyncConnection) -> str:
        """The same, where it is several servers with the number of the one that the connection is to."""
        number = number_of_host(connection)
        return self.name if number is None else f"{self.name}-{number}"

    async def look(self) -> tuple[str, int]:
        """The name of the server that a read has now, and how far the lane has come there. Raises the driver's
        errors."""
        if not isinstance(self.database, AsyncEngine):
            return self.name, await _place(self.database, self.lane)
        async with self.database.connect() as connection:
            return self.name_by(connection), await _place_by(connection, self.lane)


class NeededRecency:
    """What one request's reads must show, and who has served them (`served`, in the order of their first reads).

    `places` are sequences, by lane; `wait_s` is how long each read waits for them, in seconds, before it asks the
    primary. `room` is held while it waits; where that says False it does not wait.
    """

    def __init__(
        self,
        places: Mapping[str, int],
        databases: Iterable[ReadDatabase],
        wait_s: float,
        room: Callable[[], AbstractContextManager[bool]] = _room_for_all,
    ) -> None:
        self._places = places
        self._databases = {each.database: each for each in databases if each.lane in places}
        self._wait_s = wait_s
        self._room = room
        self.served: dict[str, None] = {}

    def raise_to(self, lane: str, place: int, databases: Iterable[ReadDatabase]) -> None:
        """Have reads of one more lane, or of a later place of it, from here on."""
        self._places = {**self._places, lane: max(place, self._places.get(lane, 0))}
        self._databases |= {each.database: each for each in databases if each.lane == lane}

    def concerns(self, lane: str) -> bool:
        """Whether rows of this lane are to be as recent as some place."""
        return lane in self._places

    @asynccontextmanager
    async def connected(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        """A connection for a read that is recent enough: one snapshot of which that is known.

        Raises NotRecent, and the driver's errors.
        """
        source = self._databases.get(engine)
        if source is None:
            async with _in_turn(engine) as connection:
                yield connection
            return
        lane, needed = source.lane, self._places[source.lane]
        came_s, pause_s = now_s(), PAUSE_S
        until_s = came_s + self._wait_s
        while True:
            # Where others wait for a place that is not there yet, one of them looks for this read, too.
            if not source.reached.is_awaited(needed, came_s):
                async with _in_turn(engine) as connection:
                    is_awaited = source.reached.is_awaited(needed, came_s)
                    if not is_awaited and await _is_in_snapshot(connection, lane, needed, source.reached):
                        self.served[source.name_by(connection)] = None
                        yield connection
                        return
            # The connection is others' meanwhile.
            if now_s() >= until_s or not await self._waited(source, needed, until_s, pause_s):
                break
            pause_s = longer(pause_s)
        there = source.reached.place
        if source.primary is not None:
            # A place that nobody has given out is asked for once, for all who wait for one.
            reached = source.reached_by_primary
            there = reached.place if reached.place >= needed else await reached.since(came_s)
            if there >= needed:
                async with _in_turn(source.primary) as connection:
                    if await _is_in_snapshot(connection, lane, needed, reached):
                        self.served["primary"] = None
                        yield connection
                        return
                there = reached.place
        raise _not_recent(lane, needed, there)

    async def documents_recent(self, collection: "AsyncCollection[Document]") -> None:
        """Return when a read of this collection is recent enough. Raises NotRecent, and the driver's errors.

        What MongoDB's primary shows by majority stays, so each read that begins behind the look shows it, too.
        """
        source = self._databases.get(collection.database)
        if source is None:
            return
        lane, needed = source.lane, self._places[source.lane]
        if collection.read_preference.mode != _OF_PRIMARY:
            raise NotRecent(
                f"reads of lane {lane} go to other members than MongoDB's primary, of which nobody can say how recent"
                " they are: leave Read-After out, or read by the primary"
            )
        came_s = now_s()
        is_awaited = source.reached.is_awaited(needed, came_s)
        there = source.reached.place if is_awaited else await source.reached.since(came_s)
        if there < needed and not await self._waited(source, needed, came_s + self._wait_s):
            raise _not_recent(lane, needed, source.reached.place)
        self.served[source.name] = None

    async def _waited(self, source: ReadDatabase, needed: int, until_s: float, pause_s: float = PAUSE_S) -> bool:
        """Whether the place was reached meanwhile, or may have been. False at once where there is no place to wait."""
        with self._room() as may_wait:
            return may_wait and await source.reached.wait(needed, until_s, pause_s)


def _not_recent(lane: str, needed: int, there: int) -> NotRecent:
    return NotRecent(
        f"lane {lane} stands at {there} in the database that is read here, and the read needs {needed}: repeat it, or"
        " leave Read-After out"
    )


async def _is_in_snapshot(connection: AsyncConnection, lane: str, needed: int, reached: ReachedPlace) -> bool:
    """Whether the connection's next statements read a snapshot that has the place. Others who wait hear of it."""
    began_s = now_s()
    if connection.dialect.name != "sqlite":
        # One file has no copies that lag: a later statement sees no less.
        await connection.execution_options(isolation_level="REPEATABLE READ")
    there = await _place_by(connection, lane)
    reached.saw(there, began_s)
    return there >= needed


async def _place(database: Database, lane: str) -> int:
    """The place of the lane in this database now; 0: it has none."""
    if isinstance(database, AsyncEngine):
        async with database.connect() as connection:
            return await _place_by(connection, lane)
    lease = await database[LEASE_TABLE].find_one({"_id": lane}, {"sequence": 1})
    return 0 if lease is None else int(lease["sequence"])


async def _place_by(connection: AsyncConnection, lane: str) -> int:
    leases: Select[Any] = select(column("sequence")).select_from(table(LEASE_TABLE)).where(column("lane") == lane)
    return (await connection.execute(leases)).scalar() or 0


_needed: ContextVar[NeededRecency | None] = ContextVar("needed_recency", default=None)


def need_recency(needed: NeededRecency) -> None:
    """The reads of the current task, and of tasks that it starts from here on, are as recent as that."""
    _needed.set(needed)


def need_place(
    lane: str,
    place: int,
    databases: Iterable[ReadDatabase],
    wait_s: float,
    room: Callable[[], AbstractContextManager[bool]],
) -> None:
    """The current task's reads of a lane are from here on as recent as this place, beside what was needed before."""
    needed = _needed.get()
    if needed is None:
        need_recency(NeededRecency({lane: place}, databases, wait_s, room))
    else:
        needed.raise_to(lane, place, databases)


def needs_recency(lane: str) -> bool:
    """Whether the current task's reads of this lane's rows must be as recent as some place: a cache is passed by."""
    needed = _needed.get()
    return needed is not None and needed.concerns(lane)


def connected(engine: AsyncEngine) -> AbstractAsyncContextManager[AsyncConnection]:
    """A connection for one read of the current task."""
    needed = _needed.get()
    return _in_turn(engine) if needed is None else needed.connected(engine)


@asynccontextmanager
async def _in_turn(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    async with turn_of(engine), engine.connect() as connection:
        yield connection


async def documents_recent(collection: "AsyncCollection[Document]") -> None:
    """Return when a read of this collection is recent enough for the current task. Raises NotRecent, and the driver's
    errors."""
    needed = _needed.get()
    if needed is not None:
        await needed.documents_recent(collection)
