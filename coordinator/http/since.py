"""The members of some state, and since when each is in it."""

from time import monotonic
from typing import Generic, TypeVar

T = TypeVar("T")


class Since(Generic[T]):
    """The member that entered the state first is the first."""

    def __init__(self) -> None:
        self._began_at_s: dict[T, float] = {}

    def __len__(self) -> int:
        return len(self._began_at_s)

    def begin(self, one: T) -> None:
        """A member enters the state now."""
        self._began_at_s[one] = monotonic()

    def end(self, one: T) -> None:
        """A member leaves the state, if it was in it."""
        self._began_at_s.pop(one, None)

    def for_s(self, one: T, now: float) -> float:
        """For how long a member has been in the state; 0 if it is not in it."""
        return now - self._began_at_s.get(one, now)

    def longest(self, now: float, for_s: float) -> T | None:
        """The first member, if it has been in the state for this long."""
        first = next(iter(self._began_at_s), None)
        return first if first is not None and self.for_s(first, now) >= for_s else None
