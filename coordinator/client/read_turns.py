"""Whose read has the next connection to a database: while all are used, those who ask take turns.

A pool gives its connections to whoever came first. So one who asked for a thousand lists at once had them all, and what
others asked for meanwhile came after his last list, or not in time. Whoever is alone has all connections, as before.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Final
from weakref import finalize

from coordinator.client.acting import acting_for
from coordinator.runtime.turns import Turns
from coordinator.stores.kinds import Database


class ReadTurns:
    """Those of one database's readers. Used within one event loop."""

    def __init__(self, connections: int) -> None:
        self._free = connections
        self._waiting = Turns[asyncio.Future[None]]()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Held for as long as a read of whoever the current task acts for has a connection."""
        if self._free:
            self._free -= 1
        else:
            await self._wait()
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.add(acting_for(), turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                # It came at the same moment.
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        while (turn := self._waiting.take()) is not None:
            # Who has waited for too long is gone.
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


_turns: Final[dict[int, ReadTurns]] = {}
"""By the `id` of the database: for PyMongo all clients of the same servers are equal, and each has its connections."""


def take_turns(database: Database, connections: int) -> None:
    """Have the readers of a database, to which there are so many connections, take turns."""
    number = id(database)
    _turns[number] = ReadTurns(connections)
    finalize(database, _turns.pop, number, None).atexit = False


def turn_of(database: Database) -> AbstractAsyncContextManager[None]:
    """Held while the current task reads. Where nobody has said how many connections there are, nobody waits."""
    turns = _turns.get(id(database))
    return nullcontext() if turns is None else turns.one()
