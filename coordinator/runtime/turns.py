"""Whose turn it is where there is more to do than room: those who asked take turns, each with his oldest first.

So one who has asked for a thousand things does not hold up the one thing of another: calls of an effect worker, whose
order is not promised, and reads of a gateway.
"""

import itertools
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Generic, TypeVar

from coordinator.service.principal import Principal

T = TypeVar("T")


class Turns(Generic[T]):
    """Used within one event loop. Nobody known is one of those who asked, too."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[tuple[str | None, str] | None, deque[T]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __iter__(self) -> Iterator[T]:
        """All that wait, in no order. Those that come or go meanwhile may be left out."""
        return itertools.chain.from_iterable([list(each) for each in list(self._waiting.values())])

    def add(self, actor: Principal | None, item: T) -> None:
        """Behind what waits for this one."""
        whose = None if actor is None else (actor.tenant, actor.subject)
        waiting = self._waiting.get(whose)
        if waiting is None:
            waiting = self._waiting[whose] = deque()
        waiting.append(item)

    def take(self) -> T | None:
        """The next one; None: nothing waits."""
        if not self._waiting:
            return None
        whose, waiting = next(iter(self._waiting.items()))
        item = waiting.popleft()
        if waiting:
            self._waiting.move_to_end(whose)
        else:
            del self._waiting[whose]
        return item
