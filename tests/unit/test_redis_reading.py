"""How many entries of a lane's streams are read at once."""

import asyncio
from typing import Any

from coordinator.transports.redis.reading import FIRST_ENTRIES, READ_BYTES_MAX, READ_ENTRIES_MAX, MergedStreams


class _Streams:
    """In the place of a connection: a stream that has entries of one size."""

    def __init__(self, fields: list[bytes]) -> None:
        self.fields = fields
        self.counts: list[int] = []

    async def call(self, *words: Any) -> Any:
        count = words[2]
        self.counts.append(count)
        last = int(bytes(words[-2]).partition(b"-")[0])
        return [[b"public", [[b"%d-0" % number, self.fields] for number in range(last + 1, last + count + 1)]]]


def _counts(*fields: bytes) -> list[int]:
    streams = _Streams(list(fields))

    async def read() -> None:
        merged = MergedStreams(streams, "public", "system")  # type: ignore[arg-type]
        for _ in range(12):
            await merged.next(1000)

    asyncio.run(read())
    return streams.counts


def test_a_consumer_that_starts_reads_few_and_more_once_it_knows_that_they_are_small() -> None:
    counts = _counts(b"head", b"{}", b"body", b"{}")
    assert (counts[0], counts[-1]) == (FIRST_ENTRIES, READ_ENTRIES_MAX)


def test_large_heads_and_large_fields_that_nobody_reads_count_as_large_bodies() -> None:
    large = b"x" * (READ_BYTES_MAX // 2)
    assert _counts(b"head", b"{}", b"body", large)[-1] == 1
    assert _counts(b"head", large, b"body", b"{}")[-1] == 1
    assert _counts(b"head", b"{}", b"body", b"{}", b"other", large)[-1] == 1
