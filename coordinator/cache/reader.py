"""The readers' side of the cache: believes entries with the generation of the live lease, and fills missing ones."""

import secrets
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec
import structlog
from msgspec import Struct
from prometheus_client import Counter

from coordinator.cache.projection import CacheKey
from coordinator.cache.redis_breaker import RedisBreaker
from coordinator.cache.scripts import (
    CLOCK,
    FILL,
    PROBE,
    READ,
    SHOWS,
    Arguments,
    AsyncScripts,
    CacheRefused,
    CacheUnavailable,
    refusal,
)
from coordinator.runtime.repeated_line import RepeatedLine
from coordinator.service.descriptions import described
from coordinator.service.errors import ConfigurationError, DatabaseUnavailable
from coordinator.service.rows import Key, VersionedRow, key_of

if TYPE_CHECKING:
    from coordinator.stores.kinds import Database

V = TypeVar("V", bound=VersionedRow)

TOKEN_MS = 10_000
"""How long a token waits for its fill: longer than a read of the database may take."""

READS = Counter(
    "coordinator_cache_reads_total",
    "Reads of the cache: hit, miss, or unavailable, where the database is read at once.",
    ["table", "result"],
)

log = structlog.get_logger("cache")


class Ticket(Struct, frozen=True):
    """The right to fill an entry with a row that is read from now on, unless the entry is changed meanwhile."""

    generation: bytes
    token: bytes


class Lookup(Struct, Generic[V], frozen=True):
    """The cache's answer: the row; or a ticket to fill it in; or neither, if the lane has no lease."""

    row: V | None
    ticket: Ticket | None = None


class RowCache(Generic[V]):
    """Rows of one model. Never raises: while the cache is away, a read goes to the database."""

    def __init__(
        self,
        scripts: AsyncScripts,
        model: type[V],
        key: CacheKey,
        lease_key: str,
        *,
        ttl_s: int,
        lane: str | None = None,
        database: "Database | None" = None,
        elapsed_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`database` is the one from which rows are read to fill it: where `lane` has left that, none is kept. Without
        it nobody looks, and after a move a reader with the old address could bring old rows."""
        self._lane = lane
        self._database = database
        self._scripts = scripts
        self._model = model
        self._key = key
        self._lease_key = lease_key
        self._ttl_s = ttl_s
        self._elapsed_s = elapsed_s
        self._breaker = RedisBreaker()
        self._hits, self._misses, self._unavailable = (
            READS.labels(model.table, result) for result in ("hit", "miss", "unavailable")
        )
        self._line = RepeatedLine()
        self._trial_key: str | None = None
        """The key of an entry that no reader misses: beside one that was asked for, which has the same rights."""

    async def get(self, key: Key) -> Lookup[V] | None:
        """None: the cache did not answer, or was not asked because it has lately failed to answer."""
        found = await self._get(key)
        counted = self._unavailable if found is None else self._misses if found.row is None else self._hits
        counted.inc()
        return found

    async def _get(self, key: Key) -> Lookup[V] | None:
        entry = self._key(key)
        self._trial_key = f"{entry}:trial"
        if not self._breaker.admits(self._elapsed_s()):
            return None
        answer = await self._run(READ, [entry], [self._lease_key, secrets.token_hex(8), TOKEN_MS])
        match answer:
            case [_, bytes(text)]:
                return self._decoded(key, text)
            case [bytes(generation), None, bytes(token)]:
                return Lookup(None, Ticket(generation, token))
            case []:
                return Lookup(None)
        return None

    async def fill(self, row: V, ticket: Ticket) -> bool:
        """Keep a row that was read after the ticket was got, if the entry has not changed since; whether it is kept.

        The read must have seen every commit that was acknowledged before it began.
        """
        if not await self._is_of_the_lane():
            return False
        kept = msgspec.json.encode(row)
        of_ticket: Arguments = [self._lease_key, ticket.generation, ticket.token]
        return bool(await self._run(FILL, [self._key(key_of(row))], [*of_ticket, row.version, kept, self._ttl_s]))

    async def _is_of_the_lane(self) -> bool:
        if self._database is None or self._lane is None:
            return True
        # A lane whose rows are cached reads no database so.
        from coordinator.client.database import lane_is_here  # noqa: PLC0415

        try:
            return await lane_is_here(self._database, self._lane)
        except (DatabaseUnavailable, ConfigurationError):
            # The second: a newer release has written what is not known here.
            return False

    async def shows(self, sequence: int) -> bool:
        """Whether readers see all commits up to this sequence; False too if the cache does not answer."""
        if not self._breaker.admits(self._elapsed_s()):
            return False
        return bool(await self._run(SHOWS, [], [self._lease_key, sequence]))

    async def problem(self) -> str | None:
        """Why the cache does not serve, in words for anybody who may ask; None: it does."""
        try:
            await self._scripts.run(CLOCK, [], [])
            await self._scripts.run(SHOWS, [], [self._lease_key, 0])
            if self._trial_key is None:
                return None
            refused = refusal(self._trial_key, await self._scripts.run(PROBE, [self._trial_key], [""]))
        except CacheRefused as error:
            return str(error)
        except CacheUnavailable:
            return "Redis does not answer"
        return None if refused is None else str(refused)

    async def close(self) -> None:
        """Close the connections."""
        await self._scripts.close()

    def _decoded(self, key: Key, text: bytes) -> Lookup[V] | None:
        try:
            row = msgspec.json.decode(text, type=self._model)
            # Else a release has written it whose class has other fields: what it did not know would be a default here.
            is_of_this_class = msgspec.json.encode(row) == text
        except BaseException as error:  # noqa: BLE001  # also of the entry's own class
            log.warning("cache_entry_unreadable", key=self._key(key), error=described(error))
            return None
        return Lookup(row if is_of_this_class else None)

    async def _run(self, script: str, keys: Sequence[str], arguments: Arguments) -> object:
        try:
            answer: object = await self._scripts.run(script, keys, arguments)
        except CacheUnavailable as error:
            self._breaker.failed(self._elapsed_s())
            if self._line.is_due(str(error), self._elapsed_s()):
                log.warning("cache_unavailable", error=str(error))
            return None
        self._breaker.worked()
        return answer
