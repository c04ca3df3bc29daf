"""What the command log has is shown when the cache shows it, or after a lease."""

from collections.abc import Collection, Sequence

import msgspec

from coordinator.cache.command_log import CacheConsistentLog
from coordinator.client.command_log import Asked, Passed
from coordinator.protocol.fingerprints import UNKEYED, Fingerprints
from coordinator.stores.lane_tables import LogEntry
from tests.support.passed_entries import passed
from tests.support.store_contract import entry

LEASE_S = 2.0


class Log:
    def __init__(self, found: LogEntry | None) -> None:
        self.found = found

    async def find(self, command_id: str) -> LogEntry | None:
        del command_id
        return self.found

    async def find_all(self, command_ids: Collection[str]) -> dict[str, LogEntry]:
        return {} if self.found is None else dict.fromkeys(command_ids, self.found)

    async def who_asked(self, command_ids: Collection[str]) -> dict[str, Asked]:
        assert self.found is not None
        return {
            each: Asked(command_id=each, settled_at=self.found.settled_at, actor=self.found.actor)
            for each in command_ids
        }

    async def fingerprints(self) -> Fingerprints:
        return UNKEYED

    async def passages(self, first: int, last: int) -> list[Passed]:
        return [] if self.found is None else passed([self.found], first, last)


class Cache:
    """Shows what it is said to; its clock goes on while somebody sleeps."""

    def __init__(self, answers: Sequence[bool]) -> None:
        self._answers = iter(answers)
        self.asked = 0
        self.now_s = 10.0

    async def shows(self, sequence: int) -> bool:
        assert sequence == 7
        self.asked += 1
        return next(self._answers, False)

    async def sleep(self, delay_s: float) -> None:
        self.now_s += delay_s

    async def close(self) -> None:
        pass


def consistent_log(found: LogEntry | None, cache: Cache) -> CacheConsistentLog:
    return CacheConsistentLog(Log(found), cache, LEASE_S, lambda: cache.now_s, cache.sleep)


async def test_an_outcome_is_shown_once_the_cache_shows_it() -> None:
    cache = Cache([False, False, True])
    log = consistent_log(entry(7), cache)
    assert await log.find("id") == entry(7)
    assert cache.asked == 3
    assert await log.find("id") == entry(7)
    assert cache.asked == 3, "what was told once, and what came before it, is told at once"


async def test_an_outcome_waits_no_longer_than_a_lease() -> None:
    cache = Cache([])
    assert await consistent_log(entry(7), cache).find("id") == entry(7)
    assert 10.0 + LEASE_S <= cache.now_s < 10.0 + LEASE_S + 0.1


async def test_who_asked_is_told_at_once() -> None:
    cache = Cache([])
    asked = await consistent_log(entry(7), cache).who_asked(["a", "b"])
    assert list(asked) == ["a", "b"]
    assert cache.asked == 0


async def test_what_changed_nothing_is_shown_at_once() -> None:
    cache = Cache([])
    rejected = msgspec.structs.replace(entry(7), status="rejected")
    assert await consistent_log(rejected, cache).find("id") == rejected
    assert await consistent_log(None, cache).find("id") is None
    assert cache.asked == 0
