"""Reading the command log beside a cache: an outcome is shown only once the cache shows its changes.

The lane sends outcomes after it has refreshed the cache; the log has them before. A reader that finds one there waits
until the lane's lease shows that the cache has come so far (`sequence`), and for no longer than a lease. A lane does
not extend its lease between a commit and the refresh for it, so by then the refresh is done, or the lease is over.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from coordinator.protocol.fingerprints import Fingerprints
from coordinator.stores.lane_tables import LogEntry

if TYPE_CHECKING:
    # The lane's side of the cache does not load what gateways read with.
    from coordinator.client.command_log import Asked, CommandLog, Passed

POLL_S: Final = 0.02


class Shows(Protocol):
    """The part of a cache that this module needs."""

    async def shows(self, sequence: int) -> bool:
        """Whether readers of the cache see all commits up to this sequence; False too if that is unknown."""

    async def close(self) -> None:
        """Close the connections."""


class CacheConsistentLog:
    """Implements `CommandLog`."""

    def __init__(
        self,
        log: "CommandLog",
        cache: Shows,
        lease_s: float,
        elapsed_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._log = log
        self._cache = cache
        self._lease_s = lease_s
        self._elapsed_s = elapsed_s
        self._sleep = sleep
        self._announced = 0

    async def find(self, command_id: str) -> LogEntry | None:
        entry = await self._log.find(command_id)
        # Commands with other statuses have changed no rows.
        if entry is not None and entry.status == "applied" and entry.sequence > self._announced:
            await self._until_announced(entry.sequence)
        return entry

    async def find_all(self, command_ids: Collection[str]) -> dict[str, LogEntry]:
        found = await self._log.find_all(command_ids)
        last = max((entry.sequence for entry in found.values() if entry.status == "applied"), default=0)
        if last > self._announced:
            await self._until_announced(last)
        return found

    async def who_asked(self, command_ids: Collection[str]) -> "dict[str, Asked]":
        # It tells of no changes that the cache might not show.
        return await self._log.who_asked(command_ids)

    async def fingerprints(self) -> Fingerprints:
        return await self._log.fingerprints()

    async def passages(self, first: int, last: int) -> "Sequence[Passed]":
        return await self._log.passages(first, last)

    async def close(self) -> None:
        """Close the cache's connections."""
        await self._cache.close()

    async def _until_announced(self, sequence: int) -> None:
        until_s = self._elapsed_s() + self._lease_s
        while not await self._cache.shows(sequence):
            left_s = until_s - self._elapsed_s()
            if left_s <= 0:
                break
            await self._sleep(min(POLL_S, left_s))
        # Commands with a lower sequence were committed before.
        self._announced = max(self._announced, sequence)
