"""Servers for schedules of the cache's protocol: the test sets their clock and their identity, and what fails."""

import itertools
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, cast

import redis

from coordinator.cache.memory import CacheMemory
from coordinator.cache.scripts import Arguments, CacheUnavailable

LEASE_S = 2.0
TIMEOUT_S = 0.25


class FaultyServer(ABC):
    """It can be stopped, killed, restarted with what it had saved or with nothing, flushed, and short of memory."""

    def __init__(self, chances: random.Random, now_s: Callable[[], float], faults: float) -> None:
        self._random = chances
        self._now_s = now_s
        self._faults = faults
        self._queue: list[Callable[[], object]] = []
        self._late: list[tuple[float, Callable[[], object]]] = []
        self.is_up = True
        self.is_frozen = False
        self.timeout_s = 0.0
        """What the last failed call has cost."""

    def call(self, script: str, keys: Sequence[str], arguments: Arguments, *, is_cut: bool) -> Any:
        self.timeout_s = 0.0
        if is_cut or not self.is_up:
            raise CacheUnavailable("refused")
        fate = self._random.random()
        if self.is_frozen:
            self._queue.append(lambda: self._run(script, keys, arguments))
        elif fate < self._faults:
            late_s = self._random.random() * 2 * LEASE_S
            self._late.append((self._now_s() + late_s, lambda: self._run(script, keys, arguments)))
        elif fate < 2 * self._faults:
            self._run(script, keys, arguments)
        elif fate < 1 - self._faults:
            return self._run(script, keys, arguments)
        self.timeout_s = TIMEOUT_S
        raise CacheUnavailable("no answer")

    def deliver_late(self) -> None:
        due = [run for at_s, run in self._late if at_s <= self._now_s()]
        self._late = [(at_s, run) for at_s, run in self._late if at_s > self._now_s()]
        for run in due:
            if self.is_frozen:
                self._queue.append(run)
            else:
                run()

    def thaw(self) -> None:
        self.is_frozen = False
        queue, self._queue = self._queue, []
        for run in queue:
            run()

    def lose_one(self) -> None:
        """Evicted, or expired."""
        keys = sorted(self._keys())
        if keys:
            self.flush([self._random.choice(keys)])

    def kill(self) -> None:
        self.is_up = self.is_frozen = False
        self._queue = []

    def crash(self) -> None:
        """Killed, and back at once with what it had saved."""
        self.kill()
        self.restart(with_data=True)

    @abstractmethod
    def save(self) -> None:
        """What a restart may come back with."""

    @abstractmethod
    def flush(self, keys: Sequence[Any] | None = None) -> None:
        """Lose these entries, or all."""

    @abstractmethod
    def restart(self, *, with_data: bool) -> None:
        """Come back, if it was killed: as another process."""

    @abstractmethod
    def _keys(self) -> list[Any]:
        """Of what it has."""

    @abstractmethod
    def _run(self, script: str, keys: Sequence[str], arguments: Arguments) -> Any:
        """The script's answer."""


class Server(FaultyServer):
    """A real Redis, with a bug in its scripts if one is given: a text of theirs, and what it is instead."""

    def __init__(
        self,
        client: redis.Redis,
        chances: random.Random,
        now_s: Callable[[], float],
        faults: float,
        script_bug: tuple[str, str] = ("", ""),
    ) -> None:
        super().__init__(chances, now_s, faults)
        self._client = client
        self._script_bug = script_bug
        self._runs = itertools.count(1)
        self._loaded: dict[str, str] = {}
        self._saved: dict[bytes, dict[Any, Any]] = {}
        # Far ahead of the real clock: nothing expires but by the test's.
        seconds, _ = client.time()
        self._epoch_ms = (seconds + 100_000) * 1000
        client.flushdb()
        self._begin_run()

    def save(self) -> None:
        self._saved = {key: self._client.hgetall(key) for key in self._keys()}

    def flush(self, keys: Sequence[Any] | None = None) -> None:
        for key in self._keys() if keys is None else keys:
            self._client.delete(key)

    def restart(self, *, with_data: bool) -> None:
        if not self.is_up:
            self.flush()
            for key, fields in self._saved.items() if with_data else ():
                self._client.hset(key, mapping=fields)
            self.is_up = True
            self._begin_run()

    def _begin_run(self) -> None:
        self._client.set("test:info", f"redis_version:7\r\nrun_id:{next(self._runs):040x}\r\n")

    def _keys(self) -> list[Any]:
        # The client gives bytes, as it decodes no answers.
        keys = cast(list[bytes], self._client.keys("*"))
        return [key for key in keys if not key.startswith(b"test:")]

    def _run(self, script: str, keys: Sequence[str], arguments: Arguments) -> Any:
        sha = self._loaded.get(script)
        if sha is None:
            # The clock comes with each call, behind the script's own arguments: one round trip, as in production.
            text = script.replace("redis.call('TIME')", "{ARGV[#ARGV - 1], ARGV[#ARGV]}")
            text = text.replace("redis.call('INFO', 'server')", "redis.call('GET', 'test:info')")
            text = text.replace(*self._script_bug)
            sha = self._loaded[script] = self._client.script_load(text)
        now_ms = self._epoch_ms + int(self._now_s() * 1000)
        return self._client.evalsha(sha, len(keys), *keys, *arguments, now_ms // 1000, now_ms % 1000 * 1000)


class MemoryServer(FaultyServer):
    """The memory of a process. One that is killed comes back with nothing; clients that hang are more than it has."""

    def __init__(self, chances: random.Random, now_s: Callable[[], float], faults: float) -> None:
        super().__init__(chances, now_s, faults)
        self.memory = self._begun()

    def save(self) -> None:
        """It keeps nothing."""

    def flush(self, keys: Sequence[Any] | None = None) -> None:
        for key in self._keys() if keys is None else keys:
            self.memory._entries.pop(key, None)

    def restart(self, *, with_data: bool) -> None:
        del with_data
        if not self.is_up:
            self.memory = self._begun()
            self.is_up = True

    def _begun(self) -> CacheMemory:
        return CacheMemory(self._random.choice((1, 2, 1000)), self._now_s)

    def _keys(self) -> list[Any]:
        return list(self.memory._entries)

    def _run(self, script: str, keys: Sequence[str], arguments: Arguments) -> Any:
        return self.memory.run(script, keys, arguments)
