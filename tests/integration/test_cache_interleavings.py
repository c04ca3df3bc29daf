"""No schedule makes the cache go back, and the schedules find the bugs that would.

The scripts are the real ones on a real Redis whose clock the test sets: tests/support/cache_world.py.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import pytest
import redis

from coordinator.cache import scripts
from coordinator.cache.command_log import CacheConsistentLog
from coordinator.cache.lease import CacheLease
from coordinator.cache.projection import CacheProjection
from tests.simulation.patching import Patches
from tests.support.cache_server import Server
from tests.support.cache_world import Gateway, LaneActor, Violation, World
from tests.support.servers import Environment

FIRST_SEEDS, MORE_SEEDS = range(50), range(50, 400)
"""The first are for every run of the tests."""
SEEDS_MAX = 4000
DATABASE = 9


@pytest.fixture
def client(administrators: Environment) -> Iterator[redis.Redis]:
    """On a database of the tests' own, since each schedule empties it."""
    with redis.Redis.from_url(administrators["REDIS_URL"], db=DATABASE) as client:
        yield client
        client.flushdb()


@pytest.mark.parametrize("seeds", [FIRST_SEEDS, pytest.param(MORE_SEEDS, marks=pytest.mark.faults)])
def test_no_schedule_makes_a_read_older_than_what_was_acknowledged(client: redis.Redis, seeds: range) -> None:
    results: Counter[str] = Counter()
    for seed in seeds:
        world = World(partial(Server, client), seed)
        world.run()
        results.update(world.results)
        results["acknowledged"] += len(world.history) - len(world.unannounced)
    # Else they would prove nothing.
    assert results["hit"] > len(seeds)
    assert results["stored"] > len(seeds)
    assert results["acknowledged"] > len(seeds)


RARE = {
    "a restarted Redis is believed",
    "a refresh goes into whatever generation is alive",
    "an extension counts from when it is executed",
    "rows are written into a lease that was claimed after their commit",
}
"""Bugs that only some of hundreds of schedules show."""


def bugs(names: Iterable[str]) -> list[Any]:
    """The names as parameters. `make faults` looks for the rare ones."""
    return [pytest.param(name, marks=pytest.mark.faults) if name in RARE else name for name in names]


# The bugs. Each is a piece of a script, or of a function, and what it is instead.

_FILL_CHECKS = """if alive(ARGV[1]) ~= ARGV[2] then return 0 end
local found = redis.call('HMGET', KEYS[1], 'generation', 'token')
if found[1] ~= ARGV[2] or found[2] ~= ARGV[3] then return 0 end
"""
_FILL_ANY = """local generation = alive(ARGV[1])
if not generation then return 0 end
redis.call('HSET', KEYS[1], 'generation', generation)
"""
_SETS = "redis.call('HSET', key, 'generation', ARGV[1], 'version', version, 'row', text)"
_REPLACES = f"redis.call('DEL', key)\n    {_SETS}"

SCRIPT_BUGS = {
    "a fill needs no token": (" or found[2] ~= ARGV[3] then return 0", " then return 0"),
    "a fill goes into whatever generation is alive": (_FILL_CHECKS, _FILL_ANY),
    "the lease's end is not looked at": (" and tonumber(lease[2]) > clock()", ""),
    "a restarted Redis is believed": (" and string.match(lease[1], '^%x+') == server()", ""),
    "an entry is believed whatever its generation": ("if found[1] == generation then", "if found[1] then"),
    "a refresh goes into whatever generation is alive": (
        "if alive(KEYS[1]) ~= ARGV[1] then return {0, clock()} end",
        "ARGV[1] = alive(KEYS[1])\nif not ARGV[1] then return {0, clock()} end",
    ),
    "a late claim lives as long as a new one": (
        "if tonumber(ARGV[2]) <= now or string.match(ARGV[1], '^%x+') ~= here then return {0, now, 0} end",
        "ARGV[2] = now + 2000",
    ),
    "an extension counts from when it is executed": (
        "if tonumber(ARGV[2]) > tonumber(redis.call('HGET', KEYS[1], 'until')) then",
        "ARGV[2] = clock() + 2000\nif true then",
    ),
    "a refresh leaves the token": (_REPLACES, f"if not redis.call('HGET', key, 'token') then {_SETS} end"),
    "the log does not look how far the cache is": (" >= tonumber(ARGV[2]) and 1 or 0", " and 1"),
    "what was removed keeps its entry": ("for gone = 2 + rows, #KEYS do redis.call('DEL', KEYS[gone]) end", ""),
}


@pytest.mark.parametrize("name", bugs(SCRIPT_BUGS))
def test_the_schedules_catch_a_bug_in_the_scripts(client: redis.Redis, name: str) -> None:
    bug = SCRIPT_BUGS[name]
    texts = (scripts.CLAIM, scripts.REFRESH, scripts.READ, scripts.FILL, scripts.SHOWS)
    assert any(bug[0] in text for text in texts), "the script has changed: bring the bug up to date"
    assert is_caught(client, lambda patches: None, bug)


def rewrite(owner: type, name: str, old: str, new: str) -> Callable[[Patches], None]:
    return lambda patches: patches.rewrite(owner, name, old, new)


def _reads_a_replica(patches: Patches) -> None:
    """As of some time ago, or what a primary that was cut off knows."""
    patches.rewrite(
        Gateway,
        "latest",
        "return None if",
        "version -= version not in (1, 1 << 30) and self._world.chance() < 0.5\n    return None if",
    )


def _writes_without_proof(patches: Patches) -> None:
    patches.rewrite(CacheProjection, "_write", "if proof.proved_at_s < self._lease.claimed_at_s:", "if False:")
    patches.rewrite(CacheProjection, "_refresh", "if rows and proof.prove() and not", "if rows and not")


BUGS: dict[str, Callable[[Patches], None]] = {
    "outcomes do not wait for the lease's end": rewrite(
        CacheLease, "wait_s", "return max(0.0, until_s - now_s)", "return 0.0"
    ),
    "a new lane does not wait for its predecessor's lease": rewrite(
        CacheLease, "begin", "max(self._trusted_until_s, now_s + self._lease_s)", "self._trusted_until_s"
    ),
    "a lease that was lost keeps its generation": rewrite(
        CacheLease, "lost", "self.generation = self.anchor = None", "self.anchor = None"
    ),
    "what was asked for and not confirmed is not reckoned with": rewrite(
        CacheLease, "deadline_ms", "self._trusted_until_s = max(self._trusted_until_s, until_s)", "pass"
    ),
    "a zombie's heartbeat needs no proof": rewrite(
        LaneActor, "prove", "is_current = self.world.epoch == self.epoch", "is_current = True"
    ),
    "rows are written into a lease that was claimed after their commit": _writes_without_proof,
    "the log does not wait": rewrite(CacheConsistentLog, "find", "entry.sequence > self._announced", "False"),
    "the log does not wait where there is no lease": rewrite(
        CacheConsistentLog, "_until_announced", "left_s <= 0", "True"
    ),
    "a fill comes from a database that is behind": _reads_a_replica,
}


@pytest.mark.parametrize("name", bugs(BUGS))
def test_the_schedules_catch_a_bug_in_the_lane(client: redis.Redis, name: str) -> None:
    assert is_caught(client, BUGS[name], ("", ""))


def is_caught(client: redis.Redis, plant: Callable[[Patches], None], script_bug: tuple[str, str]) -> bool:
    with Patches() as patches:
        plant(patches)
        for seed in range(SEEDS_MAX):
            try:
                World(partial(Server, client, script_bug=script_bug), seed).run()
            except Violation:
                print(f"caught by seed {seed}")
                return True
    return False


def test_a_lease_keeps_how_long_readers_may_believe_a_server_that_failed_over(client: redis.Redis) -> None:
    """A lane that takes over meanwhile, on the same server, has to know."""
    client.flushall()
    (server, now_ms), key = client.eval(scripts.CLOCK, 0), "items:lease"
    here = server.decode()

    def claim(generation: str, until_ms: int, trusted_until_ms: int, known_ms: int = 0) -> int:
        given = (f"{here}:{generation}", until_ms, 7, trusted_until_ms, known_ms)
        is_claimed, _, elsewhere_ms = client.eval(scripts.CLAIM, 1, key, *given)
        assert is_claimed
        return int(elsewhere_ms)

    assert claim("first", now_ms + 60_000, now_ms + 50_000) == 0
    client.hset(key, mapping={"generation": "feed:copied"})
    assert 30_000 < claim("found", now_ms + 20_000, now_ms + 40_000) <= 40_000
    assert client.pexpiretime(key) == now_ms + 40_000
    assert 30_000 < claim("successor", now_ms + 25_000, now_ms + 90_000) <= 40_000
    rows = (f"{here}:successor", now_ms + 30_000, 8, 300, 0)
    assert client.eval(scripts.REFRESH, 1, key, *rows)[0] == 1
    assert client.pexpiretime(key) == now_ms + 40_000
    client.delete(key)
    assert 30_000 < claim("moved", now_ms + 20_000, now_ms + 90_000, now_ms + 40_000) <= 40_000
