"""The cache in the memory of a process: by the schedules of the cache's protocol, and beside a Redis' answers."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable

import pytest

from coordinator.cache import CacheProjection, RowCache, lane_scripts, reader_scripts, scripts
from coordinator.cache.memory import CacheMemory
from coordinator.http import main
from coordinator.registry import registry
from coordinator.runtime.cache_settings import CacheSettings
from coordinator.service.errors import ConfigurationError
from coordinator.worker.process import CoordinatorProcess
from shared.items.model import Item
from tests.simulation.patching import Patches
from tests.support.cache_server import MemoryServer
from tests.support.cache_world import Violation, World, cache_key, item

SEEDS = range(50)
BUG_SEEDS = range(200)
LEASE = "items:lease"


def test_no_schedule_makes_a_read_older_than_what_was_acknowledged() -> None:
    results: Counter[str] = Counter()
    for seed in SEEDS:
        world = World(MemoryServer, seed)
        world.run()
        results.update(world.results)
        results["acknowledged"] += len(world.history) - len(world.unannounced)
    # Else they would prove nothing.
    assert min(results["hit"], results["stored"], results["acknowledged"]) > len(SEEDS)


def run_all(seeds: range) -> None:
    for seed in seeds:
        World(MemoryServer, seed).run()


def rewrite(name: str, old: str, new: str) -> Callable[[Patches], None]:
    return lambda patches: patches.rewrite(CacheMemory, name, old, new)


# Those that few schedules show are looked for in the scripts of Redis, which are the same (`make faults`).
BUGS = {
    "a fill needs no token": rewrite("_fill", ' or found.fields.get("token") != _bytes(token)', ""),
    "the lease's end is not looked at": rewrite("_alive", ' and lease.number("until") > self._now_ms()', ""),
    "an entry is believed whatever its generation": rewrite(
        "_read", 'found.fields["generation"] == generation', "True"
    ),
    "a refresh leaves the token": rewrite(
        "_refresh",
        "found = self._found(key)",
        'found = self._found(key)\n        if found is not None and "token" in found.fields:\n            continue',
    ),
    "the entry of a former life stays": rewrite(
        "_refresh",
        "self._entries.pop(key, None)",
        "key in keys[1 : 1 + int(rows)] or self._entries.pop(key, None)",
    ),
    "what was removed keeps its entry": rewrite("_refresh", "self._entries.pop(key, None)", "pass"),
    "the log does not look how far the cache is": rewrite("_shows", ">= int(arguments[1])", ">= 0"),
}


@pytest.mark.parametrize("name", BUGS)
def test_the_schedules_catch_a_bug(name: str) -> None:
    with Patches() as patches:
        BUGS[name](patches)
        with pytest.raises(Violation):
            run_all(BUG_SEEDS)


def test_it_keeps_so_many_rows_and_those_that_were_used_last() -> None:
    memory = CacheMemory(CacheSettings(url="memory://", memory_entries_max=2).memory_entries_max)
    server, now_ms = memory.run(scripts.CLOCK, [], [])
    generation = f"{server.decode()}:a"
    assert memory.run(scripts.CLAIM, [LEASE], [generation, now_ms + 60_000, 1, now_ms, 0])[0] == 1

    def write(*keys: str) -> None:
        rows: list[str | bytes | int] = [part for key in keys for part in (1, key.encode())]
        given = [generation, now_ms + 60_000, 1, 300, len(keys), *rows]
        assert memory.run(scripts.REFRESH, [LEASE, *keys], given)[0] == 1

    def has(key: str) -> bool:
        return memory.run(scripts.READ, [key], [LEASE, "token", 10_000])[1] is not None

    write("a", "b")
    assert has("a")
    write("c")
    assert len(memory) == 2
    assert has("a")
    assert has("c")
    # To ask for it makes room for its token.
    assert not has("b")
    assert len(memory) == 2


@pytest.mark.parametrize("url", ["memory://here", "memory:///0"])
def test_its_address_has_nothing_behind_it(url: str) -> None:
    with pytest.raises(ValueError, match="REDIS_URL: memory:// has nothing behind it"):
        CacheSettings(url=url)


def start_coordinator() -> None:
    CoordinatorProcess(registry().service("items"), is_watched=True)


def start_gateway() -> None:
    asyncio.run(main._serve([main.Offered(registry().gateway("items"))], "127.0.0.1", 1))


@pytest.mark.parametrize("start", [start_coordinator, start_gateway])
def test_a_process_that_has_the_lane_or_its_readers_alone_refuses_it_by_name(
    monkeypatch: pytest.MonkeyPatch, start: Callable[[], None]
) -> None:
    monkeypatch.setenv("ITEMS_DATABASE_URL", "mongodb://127.0.0.1:9/items")
    monkeypatch.setenv("REDIS_URL", "memory://")
    with pytest.raises(ConfigurationError, match=r"^REDIS_URL: memory:// is within one process"):
        start()


def test_lane_and_readers_of_one_process_have_the_same_memory() -> None:
    settings = CacheSettings(url="memory://")
    lane = CacheProjection(lane_scripts(settings), Item, cache_key, "own:lease", lease_s=60.0, ttl_s=60)
    reader = RowCache(reader_scripts(settings), Item, cache_key, "own:lease", ttl_s=60)
    assert lane.committed(Proof(), [item(1, 1)], []) == 0
    found = asyncio.run(reader.get(1))
    assert found is not None
    assert found.row == item(1, 1)


class Proof:
    """Implements `LeaseProof`: the epoch is always current."""

    epoch = 1
    sequence = 1

    @property
    def proved_at_s(self) -> float:
        return time.monotonic()

    def prove(self) -> bool:
        return True
