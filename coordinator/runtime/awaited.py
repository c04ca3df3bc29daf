"""What a thread waits for, so that another thread can say it: a call that does not return says nothing itself."""

import time
from collections.abc import Callable

from msgspec import Struct

LATE_S = 3.0
"""An answer that takes longer is late: readiness, a metric and a log line say so within 5 s."""


class Late(Struct, frozen=True):
    """An answer that is late: whose it is, since when it has been waited for, and for how long."""

    what: str
    since_s: float
    waited_s: float

    def is_of_same_wait(self, other: "Late | None") -> bool:
        """Whether both are about one wait, seen at two moments."""
        return other is not None and (self.what, self.since_s) == (other.what, other.since_s)

    def __str__(self) -> str:
        return f"it has waited {self.waited_s:.0f} s for {self.what}"


class Awaited:
    """The answer that one thread waits for. That thread notes it; any other may read it.

    A note costs a clock's reading and an assignment. Waits may be nested: when the inner one ends, the outer one begins
    anew.
    """

    __slots__ = ("_elapsed_s", "_now")

    def __init__(self, elapsed_s: Callable[[], float] = time.monotonic) -> None:
        self._elapsed_s = elapsed_s
        self._now: tuple[str, float] | None = None

    def begin(self, what: str) -> str | None:
        """From now on the thread waits for this. Returns what it waited for before, for `end`."""
        before = self._now
        self._now = (what, self._elapsed_s())
        return None if before is None else before[0]

    def end(self, before: str | None) -> None:
        """The answer has come, or an error."""
        self._now = None if before is None else (before, self._elapsed_s())

    @property
    def late(self) -> Late | None:
        """The answer that the thread waits for, if it is late."""
        now = self._now
        if now is None:
            return None
        what, since_s = now
        waited_s = self._elapsed_s() - since_s
        return Late(what, since_s, waited_s) if waited_s >= LATE_S else None
