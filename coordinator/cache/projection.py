"""The lane's side of the cache: refreshes the entries of changed rows, and keeps the lease that makes them count."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import structlog

from coordinator.cache.lease import Anchor, CacheLease, new_generation
from coordinator.cache.redis_breaker import RedisBreaker
from coordinator.cache.scripts import CLAIM, CLOCK, PROBE, REFRESH, CacheUnavailable, Scripts, refusal
from coordinator.runtime.repeated_line import RepeatedLine
from coordinator.service.rows import Key, Ref, Row, VersionedRow, key_of
from coordinator.service.service import LeaseProof

_RETRY_S = 0.01

CacheKey = Callable[[Any], str]
"""The cache key of the row with a key, of the type that the model's keys have."""

log = structlog.get_logger("cache")


class CacheProjection:
    """Implements `Projection` for the rows of one model, by the protocol of coordinator/cache/scripts.py."""

    def __init__(
        self,
        scripts: Scripts,
        model: type[VersionedRow],
        key: CacheKey,
        lease_key: str,
        *,
        lease_s: float,
        ttl_s: int,
        elapsed_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scripts = scripts
        self._model = model
        self._key = key
        self._lease_key = lease_key
        self._ttl_s = ttl_s
        self._elapsed_s = elapsed_s
        self._lease = CacheLease(lease_s)
        self._breaker = RedisBreaker()
        self._line = RepeatedLine()
        self._doubtful: str | None = None
        """The key of an entry whose refresh has failed, until it has been written for trial."""
        self.beat_s = lease_s / 3

    def committed(self, proof: LeaseProof, saved: Sequence[Row], removed: Sequence[Ref[Row]]) -> float:
        """One round trip; three more to claim a lease first, or four after a failure, and a read of the database."""
        rows = [row for row in saved if isinstance(row, self._model)]
        gone = [ref.value for ref in removed if ref.model is self._model]
        now_s = self._elapsed_s()
        self._lease.begin(proof.epoch, now_s)
        if rows or gone or self._lease.is_due(now_s):
            if not self._lease.can_go_on(proof.proved_at_s, now_s) and not self._breaker.is_open:
                # This happens after a long batch. Try once only: each new proof extends the life of a lease that may be
                # claimed.
                proof.prove()
            self._ask(proof, rows, gone)
        return self._wait_s(proof)

    def beat(self, proof: LeaseProof) -> None:
        """Extend the lease, or claim one, if the epoch is still the lane's."""
        now_s = self._elapsed_s()
        self._lease.begin(proof.epoch, now_s)
        if self._lease.is_due(now_s) and now_s >= self._breaker.try_at_s and proof.prove():
            self._ask(proof, [], [])

    def close(self) -> None:
        """Close the connection. The lease ends by itself."""
        self._scripts.close()

    def _wait_s(self, proof: LeaseProof) -> float:
        now_s = self._elapsed_s()
        wait_s, try_at_s = self._lease.wait_s(now_s), max(self._breaker.try_at_s, now_s + _RETRY_S)
        if self._lease.generation is None and self._lease.can_go_on(proof.proved_at_s, try_at_s):
            return min(wait_s, try_at_s - now_s)
        return wait_s

    def _ask(self, proof: LeaseProof, rows: Sequence[VersionedRow], gone: Sequence[Key]) -> None:
        now_s = self._elapsed_s()
        if not self._lease.can_go_on(proof.proved_at_s, now_s) or not self._breaker.admits(now_s):
            # Readers must not believe stale entries: without a generation, outcomes wait until no reader can.
            self._lease.lost()
            return
        try:
            self._refresh(proof, rows, gone)
        except Exception as error:  # noqa: BLE001  # after any error, readers must not believe stale entries
            # The next answer may come from another server.
            self._lease.lost()
            self._breaker.failed(self._elapsed_s())
            if self._line.is_due(str(error), self._elapsed_s()):
                log.warning("cache_unavailable", lease=self._lease_key, error=str(error))
        else:
            self._breaker.worked()

    def _refresh(self, proof: LeaseProof, rows: Sequence[VersionedRow], gone: Sequence[Key]) -> None:
        if self._lease.generation is not None:
            if self._write(proof, rows, gone):
                return
            log.warning("cache_lease_lost", lease=self._lease_key)
        if not self._lease.can_go_on(proof.proved_at_s, self._elapsed_s()) and not proof.prove():
            raise CacheUnavailable("the epoch was not proved, so that no lease may be claimed")
        self._probe()
        self._claim(proof)
        # Every entry is void now: this makes new ones, as readers would do too.
        if rows and proof.prove() and not self._write(proof, rows, gone):
            raise CacheUnavailable("the lease was gone as soon as it was claimed")

    def _probe(self) -> None:
        """Raises while entries cannot be written: a lease that can be claimed, and not used, makes outcomes wait."""
        if self._doubtful is None:
            return
        problem = refusal(self._doubtful, self._scripts.run(PROBE, [self._doubtful], [""]))
        if problem is not None:
            raise problem
        self._doubtful = None

    def _write(self, proof: LeaseProof, rows: Sequence[VersionedRow], gone: Sequence[Key]) -> bool:
        """Refresh and extend; False: this lease is gone."""
        keys = [self._key(key_of(row)) for row in rows]
        if proof.proved_at_s < self._lease.claimed_at_s:
            # Another lane may have changed these rows since the commit: readers are to look for themselves.
            rows = ()
        anchor = self._anchor()
        deadline_ms = self._lease.deadline_ms(anchor, proof.proved_at_s)
        arguments: list[str | bytes | int] = [self._lease.generation or "", deadline_ms, proof.sequence, self._ttl_s]
        arguments.append(len(rows))
        for row in rows:
            arguments += [row.version, msgspec.json.encode(row)]
        keys += [self._key(value) for value in gone]
        if keys:
            self._doubtful = keys[0]
        is_ours, now_ms = self._scripts.run(REFRESH, [self._lease_key, *keys], arguments)
        if keys:
            self._doubtful = None
        if is_ours:
            self._lease.anchor = Anchor(anchor.server, now_ms, self._elapsed_s())
        else:
            self._lease.lost()
        return bool(is_ours)

    def _claim(self, proof: LeaseProof) -> None:
        anchor = self._anchor()
        trusted_until_ms, known_ms = self._lease.trusted_until_ms(anchor), self._lease.elsewhere_ms(anchor)
        generation, deadline_ms = new_generation(anchor.server), self._lease.deadline_ms(anchor, proof.proved_at_s)
        arguments: list[str | bytes | int] = [generation, deadline_ms, proof.sequence, trusted_until_ms, known_ms]
        is_claimed, now_ms, elsewhere_ms = self._scripts.run(CLAIM, [self._lease_key], arguments)
        if not is_claimed:
            raise CacheUnavailable("the lease was over before it was claimed, or Redis is another one")
        self._lease.claimed(generation, Anchor(anchor.server, now_ms, self._elapsed_s()), elsewhere_ms)
        log.info("cache_lease_claimed", lease=self._lease_key, generation=generation)

    def _anchor(self) -> Anchor:
        if self._lease.anchor is None:
            server, now_ms = self._scripts.run(CLOCK, [], [])
            self._lease.anchor = Anchor(server.decode(), now_ms, self._elapsed_s())
        return self._lease.anchor
