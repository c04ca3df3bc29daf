"""The cache in the memory of one process, for lanes and gateways that share it: no server, and the same protocol.

It runs the steps of coordinator/cache/scripts.py, of which each here is the same in Python: atomic, and by the rules of
a Redis that evicts. So the lane's side and the readers' are the same over both, with their leases: also a lane of this
process may be taken over by another process, of which this memory hears nothing.
"""

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from coordinator.cache import scripts
from coordinator.cache.scripts import Arguments

Argument: TypeAlias = str | bytes | int


class _Entry:
    """A hash of Redis. `until_ms` is when it expires; None: never."""

    __slots__ = ("fields", "until_ms")

    def __init__(self) -> None:
        self.fields: dict[str, bytes] = {}
        self.until_ms: int | None = None

    def number(self, field: str) -> int:
        return int(self.fields.get(field, b"0"))


class CacheMemory:
    """What one process keeps: at most so many rows, of which those that were used longest ago go first.

    The leases of lanes are kept beside them. Used from all threads.
    """

    def __init__(self, entries_max: int, elapsed_s: Callable[[], float] = time.monotonic) -> None:
        self._entries_max = entries_max
        self._elapsed_s = elapsed_s
        self._lock = threading.Lock()
        self._server = secrets.token_hex(20).encode()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._leases: dict[str, _Entry] = {}
        self._steps: Mapping[str, Callable[[Sequence[str], Arguments], Any]] = {
            scripts.CLOCK: self._clock,
            scripts.CLAIM: self._claim,
            scripts.REFRESH: self._refresh,
            scripts.READ: self._read,
            scripts.FILL: self._fill,
            scripts.PROBE: self._probe,
            scripts.SHOWS: self._shows,
        }

    def __len__(self) -> int:
        """How many entries there are, those that have expired too, until somebody asks for them."""
        return len(self._entries)

    def run(self, script: str, keys: Sequence[str], arguments: Arguments) -> Any:
        """The result of a script of the protocol, as Redis gives it: texts are bytes, and no value is None."""
        with self._lock:
            return self._steps[script](keys, arguments)

    def _clock(self, _keys: Sequence[str], _arguments: Arguments) -> list[object]:
        return [self._server, self._now_ms()]

    def _claim(self, keys: Sequence[str], arguments: Arguments) -> list[int]:
        generation, until_ms, sequence, _, known_ms = arguments
        now_ms = self._now_ms()
        if int(until_ms) <= now_ms or not self._is_here(_bytes(generation)):
            return [0, now_ms, 0]
        lease = self._leases.get(keys[0]) or _Entry()
        elsewhere_ms = max(lease.number("elsewhere"), int(known_ms))
        lease.fields = _fields(generation=generation, until=until_ms, sequence=sequence, elsewhere=elsewhere_ms)
        self._leases[keys[0]] = lease
        return [1, now_ms, max(0, elsewhere_ms - now_ms)]

    def _refresh(self, keys: Sequence[str], arguments: Arguments) -> list[int]:
        generation, until_ms, sequence, ttl_s, rows = arguments[:5]
        own = _bytes(generation)
        if self._alive(keys[0]) != own:
            return [0, self._now_ms()]
        lease = self._leases[keys[0]]
        lease.fields |= _fields(until=max(lease.number("until"), int(until_ms)), sequence=sequence)
        for key in keys[1 + int(rows) :]:
            self._entries.pop(key, None)
        pairs = arguments[5:]
        for place in range(int(rows)):
            key, version, text = keys[1 + place], pairs[2 * place], pairs[2 * place + 1]
            found = self._found(key)
            is_old = found is None or found.fields.get("generation") != own or "version" not in found.fields
            if is_old or (found is not None and found.number("version") < int(version)):
                self._put(key, _fields(generation=own, version=version, row=text), int(ttl_s) * 1000)
        return [1, self._now_ms()]

    def _read(self, keys: Sequence[str], arguments: Arguments) -> list[object]:
        lease_key, token, token_ms = arguments
        generation = self._alive(_text(lease_key))
        if generation is None:
            return []
        found = self._found(keys[0])
        if found is not None and found.fields["generation"] == generation:
            if "row" in found.fields:
                return [generation, found.fields["row"]]
            if "token" in found.fields:
                return [generation, None, found.fields["token"]]
        self._put(keys[0], _fields(generation=generation, token=token), int(token_ms))
        return [generation, None, _bytes(token)]

    def _fill(self, keys: Sequence[str], arguments: Arguments) -> int:
        lease_key, generation, token, version, text, ttl_s = arguments
        own = _bytes(generation)
        if self._alive(_text(lease_key)) != own:
            return 0
        found = self._found(keys[0])
        if found is None or found.fields["generation"] != own or found.fields.get("token") != _bytes(token):
            return 0
        self._put(keys[0], _fields(generation=own, version=version, row=text), int(ttl_s) * 1000)
        return 1

    def _probe(self, keys: Sequence[str], _arguments: Arguments) -> list[object]:
        self._entries.pop(keys[0], None)
        return []

    def _shows(self, _keys: Sequence[str], arguments: Arguments) -> int:
        lease_key = _text(arguments[0])
        is_alive = self._alive(lease_key) is not None
        return int(is_alive and self._leases[lease_key].number("sequence") >= int(arguments[1]))

    def _alive(self, lease_key: str) -> bytes | None:
        """The generation of a lease that is alive."""
        lease = self._leases.get(lease_key)
        return lease.fields["generation"] if lease is not None and lease.number("until") > self._now_ms() else None

    def _is_here(self, generation: bytes) -> bool:
        return generation.partition(b":")[0] == self._server

    def _found(self, key: str) -> _Entry | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.until_ms is not None and entry.until_ms <= self._now_ms():
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return entry

    def _put(self, key: str, fields: dict[str, bytes], ttl_ms: int) -> None:
        entry = self._entries[key] = _Entry()
        entry.fields, entry.until_ms = fields, self._now_ms() + ttl_ms
        self._entries.move_to_end(key)
        if len(self._entries) > self._entries_max:
            self._entries.popitem(last=False)

    def _now_ms(self) -> int:
        return int(self._elapsed_s() * 1000)


class MemoryScripts:
    """Implements `Scripts` over the memory of this process."""

    def __init__(self, memory: CacheMemory) -> None:
        self._memory = memory

    def run(self, script: str, keys: Sequence[str], arguments: Arguments) -> Any:
        return self._memory.run(script, keys, arguments)

    def close(self) -> None:
        """Nothing is to be closed."""


class AsyncMemoryScripts:
    """Implements `AsyncScripts` over the memory of this process."""

    def __init__(self, memory: CacheMemory) -> None:
        self._memory = memory

    async def run(self, script: str, keys: Sequence[str], arguments: Arguments) -> Any:
        return self._memory.run(script, keys, arguments)

    async def close(self) -> None:
        """Nothing is to be closed."""


def _fields(**values: Argument) -> dict[str, bytes]:
    return {name: _bytes(value) for name, value in values.items()}


def _bytes(value: Argument) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _text(value: Argument) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


_own: CacheMemory | None = None
_OPENING: Final = threading.Lock()


def own_memory(entries_max: int) -> CacheMemory:
    """That of this process, made when it is first asked for."""
    global _own  # noqa: PLW0603  # whoever reads and whoever writes must have the same
    with _OPENING:
        if _own is None:
            _own = CacheMemory(entries_max)
        return _own
