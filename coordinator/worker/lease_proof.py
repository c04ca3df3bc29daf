"""A projection's proof of its lane's epoch: that it was current, and when that was proved."""

import time
from collections.abc import Callable

from coordinator.lane.lane import Lane
from coordinator.stores.port import StoreError


class LaneLeaseProof:
    """Implements `LeaseProof`. Used by the lane's thread."""

    def __init__(self, lane: Lane, elapsed_s: Callable[[], float] = time.monotonic) -> None:
        self._lane = lane
        self._elapsed_s = elapsed_s
        self._noted = (0, 0)
        self.proved_at_s = float("-inf")
        self.is_over = False
        """Whether the database said, when it was last asked, that another consumer has the lane."""

    @property
    def epoch(self) -> int:
        return self._noted[0]

    @property
    def sequence(self) -> int:
        return self._noted[1]

    def now_s(self) -> float:
        """The present moment, for `note`."""
        return self._elapsed_s()

    def note(self, began_at_s: float) -> None:
        """The lane was called at that moment, and has returned. A commit or a takeover is a proof."""
        lease = self._lane.lease
        if lease is not None and (lease.epoch, lease.sequence) != self._noted:
            self._noted = (lease.epoch, lease.sequence)
            self.proved_at_s = began_at_s

    def prove(self) -> bool:
        asked_at_s = self._elapsed_s()
        # An answer about an earlier epoch does not count for an epoch that was taken over since.
        self.is_over = False
        try:
            is_current = self._lane.is_current()
        except StoreError:
            return False
        self.is_over = not is_current
        if is_current:
            self.proved_at_s = asked_at_s
        return is_current
