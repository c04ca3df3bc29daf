"""An entry of the cache that cannot be read is none: its row is read from the database."""

import asyncio
from collections.abc import Sequence

import pytest

from coordinator.cache.reader import RowCache
from coordinator.cache.scripts import Arguments
from coordinator.service.rows import VersionedRow

ERRORS = (ValueError, KeyError, SystemExit, KeyboardInterrupt, asyncio.CancelledError)


class Strange(VersionedRow, table="strange", key="id"):
    id: int

    def __post_init__(self) -> None:
        if self.id < len(ERRORS):
            raise ERRORS[self.id]


class Kept:
    """Has an entry for each key."""

    async def run(self, script: str, keys: Sequence[str], arguments: Arguments) -> object:
        del script, arguments
        return [b"", b'{"id": %s, "version": 1}' % keys[0].encode()]

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("number", range(len(ERRORS)))
async def test_of_which_the_class_raises_whatever_that_is(number: int) -> None:
    cache = RowCache(Kept(), Strange, str, "lease", ttl_s=60)
    assert await cache.get(number) is None
    found = await cache.get(len(ERRORS))
    assert found is not None
    assert found.row == Strange(id=len(ERRORS), version=1)
