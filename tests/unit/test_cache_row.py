"""An entry of the cache that cannot be read is none: its row is read from the database."""

import asyncio
from collections.abc import Sequence

import msgspec
import pytest
from prometheus_client import REGISTRY

from coordinator.cache.reader import Lookup, RowCache
from coordinator.cache.scripts import Arguments, CacheUnavailable
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
        return [b"", b'{"version":1,"id":%s}' % keys[0].encode()]

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("number", range(len(ERRORS)))
async def test_of_which_the_class_raises_whatever_that_is(number: int) -> None:
    cache = RowCache(Kept(), Strange, str, "lease", ttl_s=60)
    assert await cache.get(number) is None
    found = await cache.get(len(ERRORS))
    assert found is not None
    assert found.row == Strange(id=len(ERRORS), version=1)


class Home(VersionedRow, table="homes", key="id"):
    id: int


class HomeWithDoor(VersionedRow, table="homes", key="id"):
    """Of the next release."""

    id: int
    door: str | None = None


async def test_which_a_release_has_written_that_has_other_fields() -> None:
    """It says nothing of the field that its class lacks; the database may have a value there."""
    texts = [msgspec.json.encode(row) for row in (Home(id=1), HomeWithDoor(id=1, door="7b"))]
    for model, expected in ((Home, [Home(id=1), None]), (HomeWithDoor, [None, HomeWithDoor(id=1, door="7b")])):
        cache = RowCache(Answers(*([b"", text] for text in texts)), model, str, "lease", ttl_s=60)
        assert [await cache.get(1) for _ in texts] == [Lookup(row) for row in expected]


class Answers:
    """Answers each read with the next of these; an exception is raised."""

    def __init__(self, *answers: object) -> None:
        self._answers = iter(answers)

    async def run(self, script: str, keys: Sequence[str], arguments: Arguments) -> object:
        del script, keys, arguments
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        pass


class Counted(VersionedRow, table="counted", key="id"):
    id: int


async def test_reads_are_counted_by_what_the_cache_answers() -> None:
    answers = Answers([b"", b'{"version":1,"id":1}'], [b"g", None, b"t"], [], CacheUnavailable("it is away"))
    cache = RowCache(answers, Counted, str, "lease", ttl_s=60)
    for _ in range(4):
        await cache.get(1)
    # It is not asked while the breaker is open.
    await cache.get(1)
    counted = {
        result: REGISTRY.get_sample_value("coordinator_cache_reads_total", {"table": "counted", "result": result})
        for result in ("hit", "miss", "unavailable")
    }
    assert counted == {"hit": 1, "miss": 2, "unavailable": 2}
