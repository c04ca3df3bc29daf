"""A reader of items while everything breaks: no read goes back behind what an outcome had told before it began."""

import asyncio
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress

import aiohttp
import msgspec
from msgspec import Struct

from coordinator.stores.lane_tables import LogEntry
from shared.items.commands import ReleaseItem, ReserveItem
from tests.faults.workload import HOT_ROWS, ItemsWorkload
from tests.support.checker import ClientRecord

PAUSE_S = 0.005
TIMEOUT = aiohttp.ClientTimeout(total=8)
_HITS = re.compile(r'^coordinator_cache_reads_total\{[^}]*result="hit"[^}]*\} (\S+)$', re.MULTILINE)


class SeenItem(Struct, frozen=True):
    """One read. `told`: the sequence of the item's last change of which an outcome had told when the read began."""

    item_id: int
    told: int
    version: int


class CachedReads:
    """Asks either gateway for one item after the other; one read at a time."""

    def __init__(
        self, session: aiohttp.ClientSession, urls: Sequence[str], workload: ItemsWorkload, chance: random.Random
    ) -> None:
        self._session = session
        self._urls = urls
        self._workload = workload
        self._chance = chance
        self.seen: list[SeenItem] = []

    async def keep_reading(self, stop: asyncio.Event) -> None:
        """Until told to stop."""
        while not stop.is_set():
            await self._read(self._chance.randint(1, HOT_ROWS))
            await asyncio.sleep(PAUSE_S)

    async def hits(self) -> int:
        """How many reads the cache has answered, by the gateways that run now."""
        count = 0
        for url in self._urls:
            with suppress(aiohttp.ClientError, TimeoutError):
                async with self._session.get(f"{url}/metrics", timeout=TIMEOUT) as response:
                    count += sum(int(float(value)) for value in _HITS.findall(await response.text()))
        return count

    async def _read(self, item_id: int) -> None:
        told = self._workload.told.get(item_id, 0)
        url = f"{self._chance.choice(self._urls)}/items/{item_id}"
        with suppress(aiohttp.ClientError, TimeoutError):
            async with self._session.get(url, timeout=TIMEOUT) as response:
                await response.read()
            if response.status != 503:
                self.seen.append(SeenItem(item_id, told, int(response.headers.get("ETag", '"0"').strip('"'))))


def check_reads(seen: Sequence[SeenItem], records: Sequence[ClientRecord], log: Sequence[LogEntry]) -> Iterator[str]:
    """The violations, in words. The log must be in order. A version of 0: the item was not found."""
    arguments = {record.command_id: record.arguments for record in records}
    changes: dict[int, list[int]] = defaultdict(list)
    for entry in log:
        if entry.status == "applied" and entry.type in (ReserveItem.type, ReleaseItem.type):
            changes[msgspec.json.decode(arguments[entry.command_id])["id"]].append(entry.sequence)
    for read in seen:
        # An item begins with version 1.
        least = 1 + sum(sequence <= read.told for sequence in changes[read.item_id]) if read.told else 0
        if read.version < least:
            yield f"a read of item {read.item_id} gave version {read.version}, after an outcome had told of {least}"
