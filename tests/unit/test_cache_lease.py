"""The lane's side of the cache's protocol, on scripts that answer as told: deadlines, waits and pauses."""

from collections.abc import Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from coordinator.cache.projection import CacheProjection
from coordinator.cache.redis_breaker import PAUSE_S, PAUSE_S_MAX, RedisBreaker
from coordinator.cache.scripts import CLAIM, CLOCK, PROBE, REFRESH, Arguments, CacheUnavailable
from coordinator.runtime.repeated_line import REPEATED_LINE_S
from coordinator.service.rows import Row
from shared.items.model import Item
from tests.support.cache_world import cache_key, item

LEASE_S = 2.0
ONE: Sequence[Row] = [item(1, 1)]


class Redis:
    """Implements `Scripts` and `LeaseProof`: answers everything at once, unless it is away."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.server = b"aa"
        self.is_away = False
        self.why = "away"
        self.elsewhere_ms = 0
        self.loses_answer = False
        self.is_ours = 1
        self.can_write = True
        self.calls: list[tuple[str, list[Any]]] = []
        self.epoch = 1
        self.sequence = 1
        self.proved_at_s = 100.0
        self.can_prove = True

    def run(self, script: str, keys: Sequence[str], arguments: Arguments) -> Any:
        if self.is_away:
            raise CacheUnavailable(self.why)
        self.calls.append((script, [*keys, *arguments]))
        if script == CLOCK:
            return [self.server, self.now_ms]
        if script == CLAIM:
            known_ms = self.calls[-1][1][5]
            self.is_ours = 1
            if self.loses_answer:
                raise CacheUnavailable("the answer was lost")
            return [1, self.now_ms, max(0, self.elsewhere_ms, known_ms - self.now_ms)]
        if script == PROBE:
            return [] if self.can_write else [b"hset", b"NOPERM no permission"]
        if keys[1:] and not self.can_write:
            raise CacheUnavailable("no permission")
        return [self.is_ours, self.now_ms]

    @property
    def now_ms(self) -> int:
        return 5_000_000 + int(self.now_s * 1000)

    def prove(self) -> bool:
        if self.can_prove:
            self.proved_at_s = self.now_s
        return self.can_prove

    def close(self) -> None:
        pass

    def scripts(self) -> list[str]:
        calls, self.calls = self.calls, []
        return [script for script, _ in calls]


@pytest.fixture
def cache() -> Redis:
    return Redis()


@pytest.fixture
def projection(cache: Redis) -> CacheProjection:
    return CacheProjection(cache, Item, cache_key, "lease", lease_s=LEASE_S, ttl_s=60, elapsed_s=lambda: cache.now_s)


def commit(cache: Redis, projection: CacheProjection, rows: Sequence[Row] = ONE) -> float:
    return projection.committed(cache, rows, [])


def test_a_lease_is_claimed_once_and_then_extended_with_each_refresh(cache: Redis, projection: CacheProjection) -> None:
    assert commit(cache, projection) == 0
    assert cache.scripts() == [CLOCK, CLAIM, REFRESH]
    cache.proved_at_s = cache.now_s
    assert commit(cache, projection) == 0
    assert cache.scripts() == [REFRESH]


def test_a_lease_lives_no_longer_than_its_length_after_the_proof(cache: Redis, projection: CacheProjection) -> None:
    commit(cache, projection)
    cache.scripts()
    cache.now_s += 1.0
    cache.proved_at_s = cache.now_s - 0.6
    commit(cache, projection)
    ((_, (_, _, _, deadline_ms, *_)),) = cache.calls
    assert deadline_ms <= cache.now_ms + (LEASE_S - 0.6) * 1000
    assert deadline_ms > cache.now_ms + (LEASE_S - 0.7) * 1000


def test_nothing_is_asked_where_nothing_changed_and_the_lease_is_young(
    cache: Redis, projection: CacheProjection
) -> None:
    commit(cache, projection)
    cache.scripts()
    assert commit(cache, projection, []) == 0
    projection.beat(cache)
    assert cache.scripts() == []
    cache.now_s += projection.beat_s
    projection.beat(cache)
    assert cache.scripts() == [REFRESH]


def test_an_idle_lane_that_cannot_prove_its_epoch_lets_the_lease_end(cache: Redis, projection: CacheProjection) -> None:
    commit(cache, projection)
    cache.scripts()
    cache.now_s += projection.beat_s
    cache.can_prove = False
    projection.beat(cache)
    assert cache.scripts() == []


def test_outcomes_wait_once_for_the_end_of_the_lease_and_then_no_more(
    cache: Redis, projection: CacheProjection
) -> None:
    commit(cache, projection)
    cache.is_away = True
    cache.now_s += 0.5
    cache.proved_at_s = cache.now_s
    ends_at_s = cache.now_s + LEASE_S
    while (wait_s := commit(cache, projection)) > 0:
        cache.now_s += wait_s
    assert cache.now_s == pytest.approx(ends_at_s)
    for _ in range(3):
        cache.now_s += 0.01
        cache.proved_at_s = cache.now_s
        assert commit(cache, projection) == 0
    cache.is_away = False
    cache.now_s += PAUSE_S_MAX
    cache.proved_at_s = cache.now_s
    assert commit(cache, projection) == 0
    assert cache.scripts()[-3:] == [CLOCK, CLAIM, REFRESH], "a new generation, of a clock read again"


def test_a_lease_is_not_claimed_while_entries_cannot_be_written(cache: Redis, projection: CacheProjection) -> None:
    commit(cache, projection)
    cache.can_write = False
    cache.proved_at_s = began_at_s = cache.now_s
    with capture_logs() as lines:
        while (wait_s := commit(cache, projection)) > 0:
            cache.now_s += wait_s
        assert cache.now_s - began_at_s == pytest.approx(LEASE_S)
        for _ in range(20):
            cache.now_s += projection.beat_s
            projection.beat(cache)
            cache.proved_at_s = cache.now_s
            assert commit(cache, projection) == 0
    assert CLAIM not in cache.scripts()[3:]
    assert "Redis refuses the command hset with the key item:1 (NOPERM)" in lines[-1]["error"]
    cache.can_write = True
    cache.now_s += PAUSE_S_MAX
    projection.beat(cache)
    assert cache.scripts() == [PROBE, CLOCK, CLAIM]


def test_a_short_outage_costs_no_more_than_it_lasts(cache: Redis, projection: CacheProjection) -> None:
    commit(cache, projection)
    cache.is_away = True
    cache.proved_at_s = began_at_s = cache.now_s
    cache.now_s += commit(cache, projection)
    cache.is_away = False
    assert commit(cache, projection) == 0
    assert cache.now_s - began_at_s <= PAUSE_S + 0.001


def test_a_new_lane_without_redis_waits_for_its_predecessor_s_lease(cache: Redis, projection: CacheProjection) -> None:
    cache.is_away = True
    began_at_s = cache.now_s
    while (wait_s := commit(cache, projection)) > 0:
        cache.now_s += wait_s
    assert cache.now_s - began_at_s == pytest.approx(LEASE_S)


def test_on_another_server_outcomes_wait_for_the_lease_on_the_one_before(
    cache: Redis, projection: CacheProjection
) -> None:
    commit(cache, projection)
    cache.server, cache.is_away = b"bb", True
    cache.now_s += commit(cache, projection)
    cache.is_away = False
    ends_at_s = cache.proved_at_s + LEASE_S
    cache.proved_at_s = cache.now_s
    while (wait_s := commit(cache, projection)) > 0:
        cache.now_s += wait_s
    assert cache.now_s == pytest.approx(ends_at_s, abs=LEASE_S / 50)
    assert cache.now_s >= ends_at_s


def test_a_lane_that_takes_over_waits_on_for_a_lease_on_the_server_before(
    cache: Redis, projection: CacheProjection
) -> None:
    cache.elsewhere_ms = 1500
    ends_at_s = cache.now_s + 1.5
    while (wait_s := commit(cache, projection)) > 0:
        cache.now_s += wait_s
        cache.elsewhere_ms = 0
    assert cache.now_s == pytest.approx(ends_at_s, abs=LEASE_S / 50)
    assert cache.now_s >= ends_at_s


def moved_on(cache: Redis, projection: CacheProjection) -> float:
    """It is on another server, and still waits: until when it has to."""
    commit(cache, projection)
    cache.server, cache.is_away = b"bb", True
    ends_at_s = cache.proved_at_s + LEASE_S
    cache.now_s += commit(cache, projection)
    cache.is_away = False
    cache.proved_at_s = cache.now_s
    assert commit(cache, projection) > 0
    return ends_at_s


def test_a_server_that_was_emptied_is_told_again_of_the_lease_on_the_one_before(
    cache: Redis, projection: CacheProjection
) -> None:
    """A lane that takes over would not know else."""
    ends_at_s = moved_on(cache, projection)
    for _ in range(3):
        cache.scripts()
        cache.is_ours, cache.now_s = 0, cache.now_s + 0.1
        cache.proved_at_s = cache.now_s
        commit(cache, projection)
        (known_ms,) = [given[5] for script, given in cache.calls if script == CLAIM]
        assert ends_at_s <= cache.now_s + (known_ms - cache.now_ms) / 1000 <= ends_at_s + LEASE_S / 50


def test_a_lease_may_be_alive_on_the_server_before_though_its_answer_was_lost(
    cache: Redis, projection: CacheProjection
) -> None:
    cache.loses_answer = True
    began_at_s = cache.now_s
    cache.now_s += commit(cache, projection)
    cache.loses_answer = False
    cache.server = b"bb"
    cache.proved_at_s = cache.now_s
    while (wait_s := commit(cache, projection)) > 0:
        cache.now_s += wait_s
    assert cache.now_s >= began_at_s + LEASE_S


def test_what_was_committed_before_the_claim_is_written_only_on_a_new_proof(
    cache: Redis, projection: CacheProjection
) -> None:
    cache.now_s += 0.1
    cache.can_prove = False
    assert commit(cache, projection) == 0
    assert cache.scripts() == [CLOCK, CLAIM]
    commit(cache, projection)
    ((_, (_, key, _, _, _, _, rows)),) = cache.calls
    assert (key, rows) == ("item:1", 0), "removed, and not written"


def test_a_redis_that_stays_away_is_logged_once_a_minute_and_another_reason_at_once(
    cache: Redis, projection: CacheProjection
) -> None:
    cache.is_away = True
    with capture_logs() as lines:
        for _ in range(int(REPEATED_LINE_S / PAUSE_S_MAX) + 1):
            commit(cache, projection)
            cache.now_s += PAUSE_S_MAX
            cache.proved_at_s = cache.now_s
        cache.why = "refused"
        commit(cache, projection)
    assert [(line["event"], line["error"]) for line in lines] == [
        ("cache_unavailable", error) for error in ("away", "away", "refused")
    ]


def test_a_breaker_lets_one_try_after_each_pause_and_the_pauses_grow() -> None:
    breaker = RedisBreaker()
    assert breaker.admits(0)
    breaker.failed(0)
    breaker.failed(PAUSE_S / 2)  # it was under way with the first
    assert not breaker.admits(PAUSE_S / 2)
    assert breaker.admits(PAUSE_S)
    assert not breaker.admits(PAUSE_S), "the others wait for the one that tries"
    now_s = PAUSE_S
    for _ in range(20):
        now_s = breaker.try_at_s
        assert breaker.admits(now_s)
    assert breaker.try_at_s - now_s == PAUSE_S_MAX
    breaker.worked()
    assert breaker.admits(now_s)


def test_a_row_that_cannot_be_written_is_not_announced_while_an_older_one_is_believed(cache: Redis) -> None:
    """A function of the service's author names the keys, and may raise anything."""
    is_broken = False

    def key(value: int | str) -> str:
        if is_broken:
            raise ZeroDivisionError
        return cache_key(value)

    projection = CacheProjection(cache, Item, key, "lease", lease_s=LEASE_S, ttl_s=300, elapsed_s=lambda: cache.now_s)
    assert projection.committed(cache, ONE, []) == 0
    is_broken = True
    assert 0 < projection.committed(cache, ONE, []) <= LEASE_S * 2
