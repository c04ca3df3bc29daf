"""The database as a part of a gateway, which readiness asks."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from coordinator.client.database import NO_TLS, Needed, NoTls, reading_problem
from coordinator.service.errors import DatabaseUnavailable
from coordinator.stores.kinds import Database, OnlyFollows
from coordinator.stores.moves import Moved
from coordinator.stores.sql.hosts_in_turns import HostsInTurns

NO_ANSWER: Final = "the database does not answer"
HAS_MOVED: Final = "the lane has moved to another database, and what is read here is old: set the address of that"
"""Where to is in the log, since it names a host."""
NOT_OF_USE: Final = "the database is no use until somebody acts: see the log"
NOT_YET: Final = "it has not answered since this process started"
CONNECTIONS: Final = 1
"""How many connections it needs of its own: however many ask, it asks once at a time."""


class DatabasePart:
    """Asks the database whether it is of use.

    With a database whose connections no request takes, what it finds is the database's state and not the gateway's
    load.
    """

    def __init__(
        self,
        database: Database,
        lane: str,
        tables: Sequence[Needed],
        is_well: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`is_well` is called where it was found to be of use, each time. May raise DatabaseUnavailable."""
        self._is_well = is_well
        self._database = database
        self._lane = lane
        self._tables = tables
        self._asking = asyncio.Lock()
        self._asked_s = 0.0
        self._problem: str | None = None
        self.was_well = False
        """Whether it has ever been of use."""
        self._is_refused = False
        self.reason = NO_ANSWER
        """Why it is down, for the log: it may name hosts."""

    @property
    def refusal(self) -> str | None:
        """Why nothing must be read there, in words for anybody: it may be another lane's."""
        if self._is_refused:
            return NOT_OF_USE
        return None if self.was_well else NOT_YET

    async def problem(self) -> str | None:
        """As `reading_problem`, also where the lane has moved, TLS fails, or the server only follows. Raises
        DatabaseUnavailable.

        Those who come while it is asked wait, and then share the next answer.
        """
        came_s = time.monotonic()
        async with self._asking:
            began_s = time.monotonic()
            if self._asked_s < came_s:
                self.reason = NO_ANSWER
                try:
                    self._problem = await reading_problem(self._database, self._lane, self._tables)
                except OnlyFollows as error:
                    self._problem = str(error)
                    self.reason = f"{error}: set the address of the server to which the lane writes"
                except DatabaseUnavailable as error:
                    self.reason = f"{error} (is the server running, and is the address right?)"
                    raise
                except Moved as error:
                    self._problem, self.reason = HAS_MOVED, str(error)
                except NoTls as error:
                    self._problem, self.reason = NO_TLS, str(error)
                else:
                    self.reason = self._problem or NO_ANSWER
                    self._is_refused = self._problem is not None
                    self.was_well = self.was_well or not self._is_refused
                    if self._is_well is not None and not self._is_refused:
                        await self._is_well()
                self._asked_s = began_s
            return self._problem


class ReplicasPart:
    """The servers from which a gateway reads in turns, as the connections find them that it makes for itself."""

    def __init__(self, turns: HostsInTurns) -> None:
        self._turns = turns

    async def problem(self) -> str | None:
        """How many of them do not answer; None: all do."""
        away = len(self._turns.away)
        return f"{away} of {len(self._turns.hosts)} databases to read from do not answer" if away else None

    @property
    def reason(self) -> str:
        """Which, for the log."""
        return f"nothing answers at {', '.join(map(str, self._turns.away))}"
