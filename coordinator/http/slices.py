"""Long work of one request in slices, between which others are served.

The commands of a large pack come to their lane in turns, too: of one request few are ahead of what others ask for
meanwhile, however many it has.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from time import monotonic
from typing import Any, Final, TypeVar

SLICE_S: Final = 0.005
"""So long a request's commands are read, get their ids, or their answers, before others are served."""
TURN_COMMANDS: Final = 100
"""So many commands of a request are issued at a time. A gateway needs some 2 ms for them."""
TURN_S: Final = 0.005
"""How long they wait at most until those of the turn before the last one are settled: a lane settles as many in it."""

R = TypeVar("R")
T = TypeVar("T")


class Slices:
    """The time that one request takes from the others."""

    __slots__ = ("_until_s",)

    def __init__(self) -> None:
        self._until_s = monotonic() + SLICE_S

    async def pause(self) -> None:
        """Let others be served, if this request has had its time."""
        if monotonic() >= self._until_s:
            await asyncio.sleep(0)
            self._until_s = monotonic() + SLICE_S


async def in_turns(given: Sequence[T], start: Callable[[T], Coroutine[Any, Any, R]]) -> list[R]:
    """What the coroutines that are started with these return, in their order, in which they start.

    Each turn begins at the latest `TURN_S` after the one before: what is slow is held up for a moment only.
    """
    tasks: list[asyncio.Task[R]] = []
    try:
        for first in range(0, len(given), TURN_COMMANDS):
            if first > TURN_COMMANDS:
                # What is issued in an order is mostly settled in it.
                await asyncio.wait((tasks[first - TURN_COMMANDS - 1],), timeout=TURN_S)
            elif first:
                await asyncio.sleep(0)
            tasks += [asyncio.create_task(start(each)) for each in given[first : first + TURN_COMMANDS]]
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        raise
