"""The cache's protocol under schedules: the real scripts on a real Redis, whose clock and identity the test sets, or in
the memory of a process.

Lanes and readers are the real `CacheProjection` and `ItemService`; the database is a model. Whoever calls Redis or the
database is interrupted there, and others act: for as long as a stall lasts.
"""

import random
from collections.abc import Callable, Generator, Iterator, Sequence
from datetime import UTC, datetime
from types import coroutine
from typing import Any, TypeAlias, cast

from msgspec import Struct

from coordinator.cache.command_log import CacheConsistentLog
from coordinator.cache.projection import CacheProjection
from coordinator.cache.reader import RowCache
from coordinator.cache.scripts import Arguments, CacheUnavailable
from coordinator.service.errors import NotFound
from coordinator.service.paging import Page
from coordinator.service.rows import Ref, Row
from shared.items.model import Item
from shared.items.service import ItemService
from tests.support.cache_server import LEASE_S, FaultyServer

MakeServer: TypeAlias = Callable[[random.Random, Callable[[], float], float], FaultyServer]
"""Of chances, the time in seconds, and how often it fails."""

STEPS = 300
NESTED_STEPS_MAX = 700
REMOVED = 1 << 30
LIFE = 1000
"""What is added under the key of a row that was removed begins with version 1: the world's own versions go on."""
LEASE_KEY = "items:lease"
CREATED_AT = datetime(2026, 1, 1, tzinfo=UTC)


class Violation(AssertionError):
    """A read returned what was older than something acknowledged before it began."""


class Batch(Struct):
    """What one transaction changed: versions by id. `is_anew`: it removed the row, and added another under its key."""

    versions: dict[int, int]
    sequence: int
    is_anew: bool = False
    status: str = "applied"


class LaneActor:
    """One process of the lane, from its takeover on: active, or a zombie that does not know yet."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.is_cut = False
        self.wake_at_s = 0.0
        self.proved_at_s = world.now_s
        world.epoch += 1
        self.epoch = world.epoch
        self.sequence = len(world.history)
        self.is_over = False
        self._projection = CacheProjection(
            self, Item, cache_key, LEASE_KEY, lease_s=LEASE_S, ttl_s=300, elapsed_s=lambda: world.now_s
        )
        self._running = self._run()

    def step(self) -> None:
        next(self._running, None)

    def prove(self) -> bool:
        """Implements `LeaseProof`."""
        asked_at_s = self.world.now_s
        self.world.interlude(self)
        is_current = self.world.epoch == self.epoch
        self.world.interlude(self)
        if is_current:
            self.proved_at_s = asked_at_s
        return is_current

    def run(self, script: str, keys: Sequence[str], arguments: Arguments) -> Any:
        """Implements `Scripts`."""
        self.world.interlude(self)
        try:
            answer = self.world.server.call(script, keys, arguments, is_cut=self.is_cut)
        except CacheUnavailable:
            self.world.now_s += self.world.server.timeout_s
            # Misfortunes do not come singly.
            self.is_cut = self.is_cut or self.world.chance() < 0.3
            raise
        self.world.interlude(self)
        return answer

    def close(self) -> None:
        pass

    def _run(self) -> Iterator[None]:
        world = self.world
        # Delivered again, since whoever committed it has told nobody.
        for batch in list(world.unannounced):
            yield from self._replay(batch)
        while not self.is_over:
            yield
            what = world.chance()
            if what < 0.3:
                self._projection.beat(self)
            elif what < 0.4 and world.history:
                yield from self._replay(world.random.choice(world.history))
            else:
                began_at_s = world.now_s
                world.interlude(self)
                if world.epoch != self.epoch:
                    return
                batch = world.commit()
                world.interlude(self)
                self.proved_at_s, self.sequence = began_at_s, batch.sequence
                world.interlude(self)
                yield from self._announce(batch, *world.rows(batch.versions, is_anew=batch.is_anew))

    def _replay(self, batch: Batch) -> Iterator[None]:
        rows = self.world.rows(batch.versions, is_anew=True)
        self.world.interlude(self)
        if self.prove():
            yield from self._announce(batch, *rows)
        else:
            self.is_over = True

    def _announce(self, batch: Batch, saved: list[Row], removed: list[Ref[Row]]) -> Iterator[None]:
        while (wait_s := self._projection.committed(self, saved, removed)) > 0:
            self.wake_at_s = self.world.now_s + wait_s
            yield
        self.world.acknowledge(batch)


class ReaderActor:
    """One request to a gateway."""

    def __init__(self, world: "World", gateway: "Gateway") -> None:
        self.world = world
        self.wake_at_s = 0.0
        self.item_id = world.random.choice(sorted(world.versions)[-3:])
        self.floor = world.acknowledged.get(self.item_id, 0)
        self.is_over = False
        self._reading = gateway.service.read_item(self.item_id)

    def step(self) -> None:
        try:
            self._reading.send(None)
        except StopIteration as done:
            self.is_over = True
            self._check(*done.value)
        except NotFound:
            self.is_over = True

    def close(self) -> None:
        self._reading.close()

    def _check(self, found: Item, result: str) -> None:
        self.world.results[result] = self.world.results.get(result, 0) + 1
        if found.stock < self.floor:
            raise Violation(f"item {self.item_id}: {result} of {found.stock}, though {self.floor} was acknowledged")


class LogReaderActor:
    """Somebody who asks a gateway what became of a command, as soon as it is committed."""

    def __init__(self, world: "World", gateway: "Gateway", batch: Batch) -> None:
        self.world = world
        self.wake_at_s = 0.0
        self.is_over = False
        self._batch = batch
        log = CacheConsistentLog(cast(Any, self), gateway.cache, LEASE_S, lambda: world.now_s, self._sleep)
        self._finding = log.find("")

    def step(self) -> None:
        try:
            self._finding.send(None)
        except StopIteration:
            self.is_over = True
            self.world.acknowledge(self._batch, is_announced=False)

    def close(self) -> None:
        self._finding.close()

    async def find(self, _: str) -> Batch:
        """Implements `CommandLog`."""
        await _pause()
        return self._batch

    async def _sleep(self, delay_s: float) -> None:
        # Not one step for each poll.
        self.wake_at_s = self.world.now_s + delay_s * self.world.random.choice((1, 10))
        await _pause()


class Gateway:
    """A reader's process: the real service over the world's Redis and database."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.is_cut = False
        self.cache = RowCache(cast(Any, self), Item, cache_key, LEASE_KEY, ttl_s=300, elapsed_s=lambda: world.now_s)
        self.service = ItemService(self, cast(Any, None), self.cache)

    async def run(self, script: str, keys: Sequence[str], arguments: Arguments) -> Any:
        """Implements `AsyncScripts`."""
        await _pause()
        try:
            answer = self._world.server.call(script, keys, arguments, is_cut=self.is_cut)
        except CacheUnavailable:
            self._world.now_s += self._world.server.timeout_s
            raise
        await _pause()
        return answer

    async def latest(self, item_id: int) -> Item | None:
        """Implements `ItemRepository`."""
        await _pause()
        version = self._world.versions[item_id]
        await _pause()
        return None if version == REMOVED else item(item_id, version)

    get = latest

    async def page(self, after: int, limit: int) -> Page[Item]:
        raise NotImplementedError


class World:
    """One schedule. Raises Violation."""

    def __init__(self, make_server: MakeServer, seed: int) -> None:
        self.random = random.Random(seed)
        self.chance = self.random.random
        self._strikes = self.random.choice((0.01, 0.04, 0.12))
        self.now_s = 0.0
        self.epoch = 0
        self.versions = {1: 1, 2: 1}
        self.acknowledged = dict(self.versions)
        self.unannounced: list[Batch] = []
        self.history: list[Batch] = []
        self.results: dict[str, int] = {}
        self._on_stack: list[LaneActor] = []
        self._nested = 0
        self.server = make_server(self.random, lambda: self.now_s, self.random.choice((0.0, 0.01, 0.05)))
        self._gateways = [Gateway(self), Gateway(self)]
        self._readers: list[ReaderActor | LogReaderActor] = []
        self._lanes = [LaneActor(self)]

    def run(self) -> None:
        try:
            for _ in range(STEPS):
                self.step()
        finally:
            for reader in self._readers:
                reader.close()

    def interlude(self, lane: LaneActor) -> None:
        """Others act, while this one is away."""
        if len(self._on_stack) >= 3 or self._nested > NESTED_STEPS_MAX or self.chance() > 0.25:
            return
        self._on_stack.append(lane)
        if self.chance() < 0.1:
            # What a zombie does next is what the lease has to withstand.
            self._take_over()
        for _ in range(self.random.choice((1, 2, 5, 25, 60))):
            self._nested += 1
            self.step()
        self._on_stack.pop()

    def step(self) -> None:
        self.server.deliver_late()
        if self.chance() < self._strikes:
            self._strike()
        if self.chance() < 0.3:
            self.now_s += self.random.choice((0.001, 0.01, 0.05, 0.1, 0.1, 0.6))
        if self.chance() < 0.05:
            self._mend()
        if len(self._readers) < 4 and self.chance() < 0.3:
            self._readers.append(ReaderActor(self, self.random.choice(self._gateways)))
        if self.unannounced and len(self._readers) < 5 and self.chance() < 0.1:
            gateway = self.random.choice(self._gateways)
            self._readers.append(LogReaderActor(self, gateway, self.random.choice(self.unannounced)))
        self._readers = [reader for reader in self._readers if not reader.is_over]
        actors = [*self._readers, *(lane for lane in self._lanes if lane not in self._on_stack)]
        ready = [actor for actor in actors if actor.wake_at_s <= self.now_s]
        if ready:
            self.random.choice(ready).step()

    def commit(self) -> Batch:
        item_id = self.random.choice([key for key, version in self.versions.items() if version != REMOVED])
        is_anew = False
        if self.chance() < 0.1:
            self.versions[item_id] = REMOVED
            self.versions[max(self.versions) + 1] = 1
        elif is_anew := self.chance() < 0.1:
            self.versions[item_id] += LIFE - self.versions[item_id] % LIFE + 1
        else:
            self.versions[item_id] += 1
        batch = Batch({item_id: self.versions[item_id]}, len(self.history) + 1, is_anew=is_anew)
        self.unannounced.append(batch)
        self.history.append(batch)
        return batch

    def rows(self, ids: Any, *, is_anew: bool) -> tuple[list[Row], list[Ref[Row]]]:
        """As the lane announces them."""
        saved = [item(key, self.versions[key]) for key in ids if self.versions[key] != REMOVED]
        return cast(list[Row], saved), [Item.at(key) for key in ids if is_anew or self.versions[key] == REMOVED]

    def acknowledge(self, batch: Batch, *, is_announced: bool = True) -> None:
        if is_announced and batch in self.unannounced:
            self.unannounced.remove(batch)
        for key, version in batch.versions.items():
            self.acknowledged[key] = max(version, self.acknowledged.get(key, 0))

    def _strike(self) -> None:
        server, active = self.server, self._lanes[-1]
        strikes: list[Callable[[], None]] = [
            server.flush,
            server.lose_one,
            server.lose_one,
            server.save,
            server.kill,
            server.crash,
            lambda: setattr(server, "is_frozen", server.is_up),
            lambda: setattr(active, "is_cut", not active.is_cut),
            self._take_over,
        ]
        self.random.choice(strikes)()

    def _mend(self) -> None:
        """Outages are short: what goes wrong does so when they begin and when they end."""
        self.server.thaw()
        self.server.restart(with_data=self.chance() < 0.5)
        if self.chance() < 0.5:
            self.random.choice(self._lanes).is_cut = False

    def _take_over(self) -> None:
        lane = LaneActor(self)
        lane.is_cut = self.chance() < 0.5
        # The last few live on, as zombies; those before are dead.
        self._lanes = [*self._lanes[-2:], lane]


@coroutine
def _pause() -> Generator[None, None, None]:
    yield


def cache_key(item_id: int | str) -> str:
    return f"item:{item_id}"


def item(item_id: int, version: int) -> Item:
    """Its stock is the version that the world knows."""
    stock, of_life = version, version % LIFE
    return Item(id=item_id, name="pen", price=1, currency="EUR", stock=stock, created_at=CREATED_AT, version=of_life)
