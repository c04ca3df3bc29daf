"""Which entries of the command log are known to be safe, where the database shows commits before they are.

PostgreSQL waits with a commit for its synchronous standby, and shows it once that has it. If the wait is ended (by
`pg_cancel_backend`, or by a restart), it shows the commit at once, and a standby that is promoted then may not know it.
So the lease says up to where all commits are safe (`Lease.proved`), and the log's later entries count as not settled
yet. A lane proves its last commit by the next one, or a tenth of a second later if there is none.
"""

import asyncio
from typing import Any, Final

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.client.database import reading
from coordinator.client.recency import connected
from coordinator.service.errors import DatabaseUnavailable
from coordinator.stores.kinds import driver_errors, lack_of
from coordinator.stores.lane_tables import metadata
from coordinator.stores.lease_table import LEASE_TABLE

WAIT_S: Final = 2.0
"""How long a reader waits for the proof of an entry."""
_PAUSE_S: Final = 0.02
_PAUSE_S_MAX: Final = 0.25
_GROWTH: Final = 1.5
_PROVED: Final[Select[Any]] = select(func.max(metadata.tables[LEASE_TABLE].c.proved))


class NotProved(DatabaseUnavailable):
    """Raised for an entry of the log that a failover may lose, as far as its reader can tell."""


class ProvedPlaces:
    """How far the lane of one database is known to be safe. Used within one event loop."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._up_to = 0

    async def has(self, sequence: int) -> bool:
        """Whether the commits up to this sequence, which the log shows, are safe. Raises DatabaseUnavailable."""
        if sequence <= self._up_to:
            return True
        # Asked after the log, which shows no entry of later.
        proved = await self._proved()
        self._up_to = max(self._up_to, sequence if proved is None else proved)
        return sequence <= self._up_to

    async def until(self, sequence: int) -> None:
        """Wait until they are. Raises NotProved after `WAIT_S`, and DatabaseUnavailable."""
        if await self.has(sequence):
            return
        try:
            async with asyncio.timeout(WAIT_S):
                pause_s = _PAUSE_S
                while not await self.has(sequence):
                    await asyncio.sleep(pause_s)
                    pause_s = min(pause_s * _GROWTH, _PAUSE_S_MAX)
        except TimeoutError:
            raise NotProved(
                "the database's synchronous standby has not confirmed its last commits: ask again"
            ) from None

    async def _proved(self) -> int | None:
        async with reading(), connected(self._engine) as connection:
            try:
                proved: int | None = (await connection.execute(_PROVED)).scalar()
            except driver_errors() as error:
                if lack_of(error) != "right":
                    raise
                # A role that may read no more than the gateway's tables serves, too.
                return None
        return proved
