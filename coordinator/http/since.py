"""Who is in some state, and since when."""

from time import monotonic
from typing import Generic, TypeVar

T = TypeVar("T")


class Since(Generic[T]):
    """Whoever came into the state first is the first."""

    def __init__(self) -> None:
        self._began_at_s: dict[T, float] = {}

    def __len__(self) -> int:
        return len(self._began_at_s)

    def begin(self, one: T) -> None:
        """It is in the state from now on."""
        self._began_at_s[one] = monotonic()

    def end(self, one: T) -> None:
        """It is in it no more, if it ever was."""
        self._began_at_s.pop(one, None)

    def for_s(self, one: T, now: float) -> float:
        """For how long; 0 where it is not."""
        return now - self._began_at_s.get(one, now)

    def longest(self, now: float, for_s: float) -> T | None:
        """The first, if it has been in the state for so long."""
        first = next(iter(self._began_at_s), None)
        return first if first is not None and self.for_s(first, now) >= for_s else None
