"""Reading a lane's two streams as one, in the order of their numbers."""

from collections.abc import Sequence
from typing import Any, Final

from coordinator.transports.redis.connection import RedisConnection
from coordinator.transports.redis.entries import StreamEntry, entry_of, place_of
from coordinator.transports.redis.scripts import NUMBER_MAX

BLOCK_MS: Final = 1000
READ_ENTRIES_MAX: Final = 200
READ_BYTES_MAX: Final = 8 << 20
"""About how many bytes are read at once: one answer is in memory whole."""
FIRST_ENTRIES: Final = 8
"""How many are read at first: a consumer that is killed for the memory that this took would read them again."""
_BEGINNING: Final = b"0-0"


class MergedStreams:
    """The entries of both streams after those that were read, on one connection.

    One call reads both as they are at one moment. A number is given out in the moment in which its entry is added, so
    no entry with a lower number can come afterwards. Where a stream has more than was asked for, what the other one has
    beyond is read again with the next call.
    """

    def __init__(self, connection: RedisConnection, public: str, system: str) -> None:
        self._connection = connection
        self._keys = {public.encode(): False, system.encode(): True}
        self._streams = (public, system)
        self._after = {False: _BEGINNING, True: _BEGINNING}
        # Nobody knows yet how large they are.
        self._largest_bytes = READ_BYTES_MAX // FIRST_ENTRIES
        self.limit = NUMBER_MAX
        """Entries from this number on are strangers', unless the counter has come so far."""
        self.has_unusable = False
        """Whether the last call found an entry that is to be moved first (`ADOPT`)."""

    async def next(self, room: int) -> list[StreamEntry]:
        """The next entries, as many as there is room for; empty: there were none for a moment.

        Raises BrokerUnavailable, and the driver's errors.
        """
        count = max(1, min(room, READ_ENTRIES_MAX, READ_BYTES_MAX // self._largest_bytes))
        answer = await self._connection.call(
            "XREAD", "COUNT", count, "BLOCK", BLOCK_MS, "STREAMS", *self._streams, self._after[False], self._after[True]
        )
        if answer is None:
            return []
        found = merged([(raw, self._keys[bytes(key)]) for key, raw in answer], count)
        entries = [entry for entry in found if entry.number < self.limit][:room]
        # Behind such an id nothing would be read any more.
        self.has_unusable = len(found) > len(entries) and found[-1].number >= self.limit
        for entry in entries:
            self._after[entry.is_system] = entry.id
        # It is forgotten slowly: large entries come together.
        sizes = (entry.size_bytes for entry in entries)
        self._largest_bytes = max(1, self._largest_bytes // 2, *sizes)
        return entries


def merged(read: Sequence[tuple[Sequence[Any], bool]], count: int) -> list[StreamEntry]:
    """The entries of several streams in their order, as far as that is known: `count` of each were asked for."""
    full = [place_of(bytes(raw[-1][0])) for raw, _ in read if len(raw) >= count]
    found = [(place_of(bytes(each[0])), is_system, each) for raw, is_system in read for each in raw]
    within = [one for one in found if not full or one[0] <= min(full)]
    return [entry_of(each, is_system=is_system) for _, is_system, each in sorted(within, key=lambda one: one[:2])]
