"""The lane's knowledge of its lease in the cache, and when its outcomes may be sent. No I/O: it is told the time.

Moments are seconds of the lane's monotonic clock, deadlines are milliseconds of Redis's.
"""

import secrets
from math import ceil
from typing import Final

from msgspec import Struct

CLOCK_RATE: Final = 0.99
"""Deadlines allow for a Redis whose clock runs slower than ours by up to 1 %."""

_NEVER: Final = float("-inf")


class Anchor(Struct, frozen=True):
    """The time that one Redis process gave, and the moment when its answer had arrived."""

    server: str
    now_ms: int
    at_s: float


def new_generation(server: str) -> str:
    """A new generation for a server, which never existed before."""
    return f"{server}:{secrets.token_hex(8)}"


class CacheLease:
    """One lane's lease of one cache. It states only certain facts about itself."""

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._epoch = 0
        self._asked_s = _NEVER
        self._trusted_until_s = _NEVER
        self._elsewhere_until_s = _NEVER
        self._server: str | None = None
        self._elsewhere_ms = 0
        self.anchor: Anchor | None = None
        self.generation: str | None = None
        """The lane's own generation, still in place when Redis last answered; None: it has to claim one."""
        self.claimed_at_s = _NEVER
        """Rows may be written under the generation if the epoch was proved later than this."""

    def begin(self, epoch: int, now_s: float) -> None:
        """Under a new epoch there may be commits that this lane has not announced, and another lane's lease."""
        if epoch != self._epoch:
            self._epoch = epoch
            self.generation = None
            self._trusted_until_s = max(self._trusted_until_s, now_s + self._lease_s)

    def is_due(self, now_s: float) -> bool:
        """Whether it is time to extend the lease, or to claim one."""
        return self.generation is None or now_s - self._asked_s >= self._lease_s / 3

    def can_go_on(self, proved_at_s: float, now_s: float) -> bool:
        """Whether the generation may be alive, or this proof lets a new one live long enough to be worth it."""
        may_be_alive = self.generation is not None and now_s < self._trusted_until_s
        return may_be_alive or proved_at_s + self._lease_s / 2 > now_s

    def deadline_ms(self, anchor: Anchor, proved_at_s: float) -> int:
        """Until when a lease may live by this proof. The caller asks Redis for it, which may set it even late."""
        until_s = proved_at_s + self._lease_s
        self._asked_s = proved_at_s
        self._trusted_until_s = max(self._trusted_until_s, until_s)
        # Redis gave its time before the answer arrived, so the deadline errs on the early side.
        return anchor.now_ms + int((until_s - anchor.at_s) * 1000 * CLOCK_RATE)

    def elsewhere_ms(self, anchor: Anchor) -> int:
        """The last moment at which a lease that this process knows of may be alive on another server; 0: it knows none.

        By the clock of this one, which may be a copy without that lease, or have lost what it knew of it. The caller
        asks for a lease here, which may be alive from then on, whatever becomes of the answer.
        """
        if self._server not in (None, anchor.server):
            self._elsewhere_ms = self.trusted_until_ms(anchor)
        self._server = anchor.server
        return self._elsewhere_ms

    def trusted_until_ms(self, anchor: Anchor) -> int:
        """The last moment at which any lease may be alive on any server, by the clock of this one."""
        return anchor.now_ms + ceil(max(0.0, self._trusted_until_s - anchor.at_s) * 1000)

    def claimed(self, generation: str, anchor: Anchor, elsewhere_ms: int) -> None:
        """The generation is alive, and every other generation on that server is over.

        That is not so on another server: one that failed over may still answer readers, for `elsewhere_ms` more.
        """
        if elsewhere_ms > 0:
            self._elsewhere_until_s = max(self._elsewhere_until_s, anchor.at_s + elsewhere_ms / 1000 / CLOCK_RATE)
            self._elsewhere_ms = max(self._elsewhere_ms, anchor.now_ms + elsewhere_ms)
        self.generation = generation
        self.claimed_at_s = anchor.at_s
        self.anchor = anchor

    def lost(self) -> None:
        """The state of the lease is unknown: another may be alive, or this one with stale entries."""
        self.generation = self.anchor = None

    def wait_s(self, now_s: float) -> float:
        """How long until outcomes may be sent: until no reader can believe a stale entry."""
        until_s = self._trusted_until_s if self.generation is None else self._elsewhere_until_s
        return max(0.0, until_s - now_s)
