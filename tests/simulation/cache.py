"""The cache of the ledger's accounts: the product's projection and its reader, on a Redis that is simulated.

Simulated: what each script does, the clock, answers that get lost, scripts that run late, outages, restarts with the
data of before, with older data or with none, and failovers to such a replica. Readers may go on asking the server that
was failed over from if its replica has the lease: otherwise a lane's process that was started since cannot know. They
leave it when such a process claims a lease on a replica that was emptied since.
Not simulated: Lua.
tests/integration/test_cache_interleavings.py has the scripts on a real Redis.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from types import coroutine
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from coordinator.cache import projection as projection_module
from coordinator.cache import reader as reader_module
from coordinator.cache.projection import CacheProjection
from coordinator.cache.reader import RowCache
from coordinator.cache.scripts import CLAIM, CLOCK, FILL, PROBE, READ, REFRESH, Arguments, CacheUnavailable
from coordinator.service.outcome import Outcome
from tests.simulation.schedule import DONE, IDLE, NEVER, PASSED, Act
from tests.support.ledger import Account

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from tests.simulation.limits import Limits
    from tests.simulation.process import Process
    from tests.simulation.world import World

LEASE_S = 1.5
TTL_S = 300
READS_MAX = 80
READERS_MAX = 4
LATE_S_MAX = 1.0
_LEASE_KEY = "ledger:lease"
REMOVED = 1 << 30
"""The version of an account that is closed: no read returns it any more."""


class _Silent:
    """Nobody reads what the product would log."""

    def info(self, _: str, **fields: object) -> None:
        pass

    warning = info


SILENT: Limits = [(projection_module, "log", _Silent()), (reader_module, "log", _Silent())]


class _Lease(Struct):
    generation: str
    until_ms: int
    elsewhere_ms: int = 0


class Redis:
    """One server. What each script does is written in coordinator/cache/scripts.py."""

    def __init__(self, world: World, run_id: str) -> None:
        self.world = world
        self.run_id = run_id
        self.lease: _Lease | None = None
        self.entries: dict[str, dict[str, Any]] = {}
        self.away_until = 0.0
        self._late: list[tuple[float, str, Sequence[str], Arguments]] = []
        self._saved: tuple[_Lease | None, dict[str, dict[str, Any]]] = (None, {})
        self._scripts: dict[str, Callable[[Sequence[str], list[Any]], Any]] = {
            CLOCK: lambda keys, given: [self.run_id.encode(), self._now_ms],  # as the others
            CLAIM: self._claim,
            PROBE: self._probe,
            REFRESH: self._refresh,
            READ: self._read,
            FILL: self._fill,
        }

    def run(self, script: str, keys: Sequence[str], arguments: Arguments) -> Any:
        """The answer; or CacheUnavailable, whether the script has run, will run, or never does."""
        world = self.world
        late, self._late = self._late, []
        for each in late:
            if each[0] <= world.now:
                self._answer(*each[1:])
            else:
                self._late.append(each)
        if world.now < self.away_until:
            raise CacheUnavailable("away")
        if world.happens("cache_lost"):
            how = world.chance()
            if how < 0.4:
                self._answer(script, keys, arguments)
            elif how < 0.8:
                self._late.append((world.now + world.chance() * LATE_S_MAX, script, keys, arguments))
            raise CacheUnavailable("the answer was lost")
        return self._answer(script, keys, arguments)

    def save(self) -> None:
        """What a restart may come back with, or a replica has."""
        self._saved = (None if self.lease is None else _copy(self.lease)), {k: dict(v) for k, v in self.entries.items()}

    def successor(self, run_id: str, *, is_empty: bool, is_lagging: bool) -> Redis:
        """The process that comes after this one: with its data, with older data, or with none."""
        if not is_lagging:
            self.save()
        server = Redis(self.world, run_id)
        if not is_empty:
            server.lease, server.entries = self._saved
        return server

    @property
    def is_behind(self) -> bool:
        """Whether scripts are still to run, of which no replica knows."""
        return bool(self._late)

    @property
    def _now_ms(self) -> int:
        return 1_000_000 + int(self.world.now * 1000)

    def _answer(self, script: str, keys: Sequence[str], arguments: Arguments) -> Any:
        return self._scripts[script](keys, [each.decode() if isinstance(each, bytes) else each for each in arguments])

    def _alive(self) -> str | None:
        lease = self._kept_lease()
        return lease.generation if lease is not None and lease.generation.startswith(f"{self.run_id}:") else None

    def _kept_lease(self) -> _Lease | None:
        return self.lease if self.lease is not None and self.lease.until_ms > self._now_ms else None

    def _claim(self, _: Sequence[str], given: list[Any]) -> Any:
        generation, until_ms, _, trusted_until_ms, known_ms = given
        if until_ms <= self._now_ms or not generation.startswith(f"{self.run_id}:"):
            return [0, self._now_ms, 0]
        found = self.lease
        if found is not None and max(found.until_ms, found.elsewhere_ms) <= self._now_ms:
            found = None
        elsewhere_ms = max(known_ms, 0 if found is None else found.elsewhere_ms)
        if found is not None and not found.generation.startswith(f"{self.run_id}:"):
            elsewhere_ms = max(elsewhere_ms, trusted_until_ms)
        self.lease = _Lease(generation, until_ms, elsewhere_ms)
        return [1, self._now_ms, max(0, elsewhere_ms - self._now_ms)]

    def _probe(self, keys: Sequence[str], _: list[Any]) -> Any:
        self.entries.pop(keys[0], None)
        return []

    def _refresh(self, keys: Sequence[str], given: list[Any]) -> Any:
        generation, until_ms, _, _, rows = given[:5]
        if self.lease is None or self._alive() != generation:
            return [0, self._now_ms]
        self.lease.until_ms = max(self.lease.until_ms, until_ms)
        for place in range(rows):
            key, version, text = keys[1 + place], given[5 + 2 * place], given[6 + 2 * place]
            found = self.entries.get(key, {})
            if found.get("generation") != generation or found.get("version", -1) < version:
                self.entries[key] = {"generation": generation, "version": version, "row": text}
        for key in keys[1 + rows :]:
            self.entries.pop(key, None)
        return [1, self._now_ms]

    def _read(self, keys: Sequence[str], given: list[Any]) -> Any:
        generation = self._alive()
        if generation is None:
            return []
        found = self.entries.get(keys[0], {})
        if found.get("generation") == generation:
            if "row" in found:
                return [generation.encode(), found["row"].encode()]
            if "token" in found:
                return [generation.encode(), None, found["token"].encode()]
        self.entries[keys[0]] = {"generation": generation, "token": given[1]}
        return [generation.encode(), None, given[1].encode()]

    def _fill(self, keys: Sequence[str], given: list[Any]) -> Any:
        _, generation, token, version, text = given[:5]
        found = self.entries.get(keys[0], {})
        if self._alive() != generation or (found.get("generation"), found.get("token")) != (generation, token):
            return 0
        self.entries[keys[0]] = {"generation": generation, "version": version, "row": text}
        return 1


class Cache:
    """The servers, and an actor who reads accounts by way of them: a gateway's process."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.actor = world.schedule.add()
        self.actor.step, self.actor.wake = self.step, self.wake
        self.server = Redis(world, "0")
        self.read_from = self.server
        self.cut_until: dict[str, float] = {}
        """Until when whose way to Redis is cut off, by the process's name."""
        self._servers = 1
        self._claimants: set[str] = set()
        """The processes that have asked for a lease, by name and incarnation."""
        self._told: dict[int, int] = {}
        self._left = READS_MAX
        self._next_at = 0.0
        self._readings: list[Coroutine[Any, Any, None]] = []
        rows: Any = self
        self._rows = RowCache(rows, Account, _key, _LEASE_KEY, ttl_s=TTL_S, elapsed_s=lambda: world.now)

    def projection(self, process: Process) -> CacheProjection:
        world = self.world
        scripts = LaneScripts(self, process)
        return CacheProjection(
            scripts, Account, _key, _LEASE_KEY, lease_s=LEASE_S, ttl_s=TTL_S, elapsed_s=lambda: world.now
        )

    def claims(self, process: Process) -> None:
        """Readers leave the server that was failed over from if its successor was emptied, and nobody can know of it.

        The lease was all that said how long they may believe it, beside the memory of processes that had leases.
        """
        if self.server.lease is None and process.name not in self._claimants:
            self.read_from = self.server
        self._claimants.add(process.name)

    def told(self, outcome: Outcome) -> None:
        """An outcome is on its way: no read that begins from now on may return what is older."""
        if outcome.status != "applied":
            return
        match msgspec.json.decode(outcome.result):
            case {"id": int(account), "version": int(version)}:
                pass
            case None if outcome.type == "ledger.close" and outcome.command_id not in self.world.shared:
                command = self.world.commands[outcome.command_id or ""]
                account, version = msgspec.json.decode(command.arguments)["id"], REMOVED
            case _:
                return
        self.world.wake(self.actor)
        self._told[account] = max(version, self._told.get(account, 0))

    # Misfortunes.

    def strike(self) -> None:
        """Something happens to Redis, or to somebody's way to it."""
        world, chance = self.world, self.world.chance
        kind = chance()
        self.server.save()
        if kind < 0.25:
            self.server.away_until = world.now + chance() * 1.5
            world.trace("the cache is away until %.3f", self.server.away_until)
        elif kind < 0.45:
            names = list(world.processes)
            self.cut_until[names[int(chance() * len(names))]] = world.now + chance() * 1.5
            world.trace("the cache cannot be reached by some: %s", self.cut_until)
        elif kind < 0.55:
            self.server.lease, self.server.entries = None, {}
            world.trace("the cache is flushed")
        else:
            old, self._servers = self.server, self._servers + 1
            is_empty, is_lagging = chance() < 0.2, chance() < 0.5
            self.server = old.successor(str(self._servers), is_empty=is_empty, is_lagging=is_lagging)
            self.server.away_until = world.now + chance() * 0.3
            is_known = not is_empty and not is_lagging and not old.is_behind
            self.read_from = old if is_known and chance() < 0.5 else self.server
            world.trace("the cache is server %s now; readers ask %s", self.server.run_id, self.read_from.run_id)

    def heal(self) -> None:
        self.server.away_until = 0.0
        self.cut_until.clear()
        self.read_from = self.server

    # The reader.

    def step(self) -> Act:
        world = self.world
        readings = self._readings
        if self._left and self._told and world.now >= self._next_at and len(readings) < READERS_MAX:
            self._left -= 1
            self._next_at = world.now + world.chance() * 0.05
            readings.append(self._read(self._account()))
        if not readings:
            return IDLE
        if world.chance() < 0.4:
            return PASSED
        reading = readings[int(world.chance() * len(readings))]
        try:
            reading.send(None)
        except StopIteration:
            readings.remove(reading)
        return DONE

    def wake(self) -> float:
        if self._readings:
            return self.world.now + 0.01
        return self._next_at if self._left and self._told else NEVER

    def close(self) -> None:
        for reading in self._readings:
            reading.close()

    def _account(self) -> int:
        """One that was told of, so that there is something that a reader must know."""
        known = list(self._told)
        return known[int(self.world.chance() * len(known))]

    async def _read(self, account: int) -> None:
        """As a service does it."""
        told = self._told.get(account, 0)
        found = await self._rows.get(account)
        if found is not None and found.row is not None:
            if found.row.version < told:
                self.world.violation(f"version {found.row.version} of account {account} was read: {told} was told")
            return
        await _pause()
        row = self.world.databases["ledger"].table(Account).get(account)
        await _pause()
        if row is not None and found is not None and found.ticket is not None:
            await self._rows.fill(row, found.ticket)

    async def run(self, script: str, keys: Sequence[str], arguments: Arguments) -> Any:
        """Implements `AsyncScripts`."""
        await _pause()
        answer = self.read_from.run(script, keys, arguments)
        await _pause()
        return answer


class LaneScripts:
    """Implements `Scripts` for one process."""

    def __init__(self, cache: Cache, process: Process) -> None:
        self._cache = cache
        self._process = process

    def run(self, script: str, keys: Sequence[str], arguments: Arguments) -> Any:
        cache, process = self._cache, self._process
        process.lapse("the cache")
        if script == CLAIM:
            cache.claims(process)
        if cache.world.now < cache.cut_until.get(process.place, 0.0):
            raise CacheUnavailable("cut off")
        answer = cache.server.run(script, keys, arguments)
        process.lapse("the cache's answer")
        return answer

    def close(self) -> None:
        """Nothing is open."""


@coroutine
def _pause() -> Generator[None]:
    """Let others act."""
    yield


def _key(account: int | str) -> str:
    return f"account:{account}"


def _copy(lease: _Lease) -> _Lease:
    return msgspec.structs.replace(lease)
