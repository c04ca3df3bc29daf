"""What a thread waits for, so that another thread can say it: a call that does not return says nothing itself."""

import time
from collections.abc import Callable

from msgspec import Struct

LATE_S = 3.0
"""An answer that takes longer is late: readiness, a metric and a log line say so within 5 s."""


class Late(Struct, frozen=True):
    """An answer that is late: whose it is, since when it is waited for, for how long, and why, if that is known."""

    what: str
    since_s: float
    waited_s: float
    why: str | None = None

    def is_of_same_wait(self, other: "Late | None") -> bool:
        """Whether both are about one wait, seen at two moments."""
        return other is not None and (self.what, self.since_s) == (other.what, other.since_s)

    def __str__(self) -> str:
        beside = "" if self.why is None else f": {self.why}"
        return f"it has waited {self.waited_s:.0f} s for {self.what}{beside}"


class Awaited:
    """The answer that one thread waits for. That thread notes it; any other may read it, and note why it takes long.

    A note costs a clock's reading and an assignment. Waits may be nested: when the inner one ends, the outer one begins
    anew.
    """

    __slots__ = ("_elapsed_s", "_now", "_why")

    def __init__(self, elapsed_s: Callable[[], float] = time.monotonic) -> None:
        self._elapsed_s = elapsed_s
        self._now: tuple[str, float] | None = None
        self._why: tuple[float, str | None] | None = None
        """Of the wait that began at this moment."""

    def begin(self, what: str) -> str | None:
        """From now on the thread waits for this. Returns what it waited for before, for `end`."""
        before = self._now
        self._now = (what, self._elapsed_s())
        return None if before is None else before[0]

    def end(self, before: str | None) -> None:
        """The answer has come, or an error."""
        self._now = None if before is None else (before, self._elapsed_s())

    @property
    def now(self) -> Late | None:
        """The answer that the thread waits for, late or not."""
        now = self._now
        if now is None:
            return None
        what, since_s = now
        noted = self._why
        why = noted[1] if noted is not None and noted[0] == since_s else None
        return Late(what, since_s, self._elapsed_s() - since_s, why)

    @property
    def late(self) -> Late | None:
        """The answer that the thread waits for, if it is late."""
        now = self.now
        return now if now is not None and now.waited_s >= LATE_S else None

    def explain(self, wait: Late, why: str | None) -> None:
        """Note why this wait takes long. It is forgotten with the wait."""
        self._why = (wait.since_s, why)
