"""Timers: emitted commands that are kept as rows until they are due, and then move into the outbox.

The next due time is remembered under the lease, so a lane reads nothing for timers that are not due. A due timer's row
becomes an outbox entry in one transaction: it is neither lost nor sent as two commands, whatever crashes.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from coordinator.lane.tenancy import Clock
from coordinator.lane.unit_of_work import BatchWork
from coordinator.stores.lane_tables import Timer
from coordinator.stores.port import Changes, Transaction

MOVED_MAX: Final = 500
"""How many timers one transaction moves."""
MOVES_EVERY_S: Final = 0.05
"""The pause between two moves where all that was due has moved: a busy lane is not to commit once for each timer."""


class Timers:
    """What a lane knows of its timers under its lease."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._size = MOVED_MAX
        self._rests_until_s = float("-inf")
        self.next_at: datetime | None = None
        """No timer is due before; None: there is none."""

    def read(self, transaction: Transaction) -> None:
        """Read when the first is due."""
        self._first(transaction.scan(Timer, 1))

    @property
    def are_due(self) -> bool:
        """Whether one may be due now."""
        return self.next_at is not None and self.next_at <= self._clock()

    def due_in_s(self, now_s: float) -> float | None:
        """When to look for due ones; None: there is none to wait for. `now_s` is by a clock that never jumps."""
        if self.next_at is None:
            return None
        return max(0.0, (self.next_at - self._clock()) / timedelta(seconds=1), self._rests_until_s - now_s)

    def move(self, transaction: Transaction, work: BatchWork) -> list[Timer]:
        """Put the first of the due ones into the outbox; return those that are left of what was read, in order."""
        found = transaction.scan(Timer, self._size + 1)
        due = [timer for timer in found[: self._size] if timer.due_at <= work.now]
        for timer in due:
            work.fire(timer)
        return found[len(due) :]

    def moved(self, left: Sequence[Timer], now_s: float) -> None:
        """The move is committed."""
        self._first(left)
        self._size = min(MOVED_MAX, self._size * 2)
        if not self.are_due:
            self._rests_until_s = now_s + MOVES_EVERY_S

    def refused(self) -> None:
        """The move was not committed: it may be too large for the database."""
        self._size = max(1, self._size // 2)

    def committed(self, changes: Changes) -> None:
        """A transaction has set timers."""
        for rows in changes.inserts:
            if isinstance(rows[0], Timer):
                times = [row.due_at for row in rows if isinstance(row, Timer)]
                self.next_at = min(times) if self.next_at is None else min(self.next_at, *times)

    def _first(self, timers: Sequence[Timer]) -> None:
        self.next_at = timers[0].due_at if timers else None
