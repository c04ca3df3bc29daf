"""How far a database has come in its lane. One of those who wait for it looks, for all of them."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import inf
from typing import Final

PAUSE_S: Final = 0.002
JOINED_PAUSE_S: Final = 0.01
"""How long somebody who has just come waits at most for the next look of another: so many ms are between two of them,
however many come."""
_PAUSE_S_MAX: Final = 0.05
_GROWTH: Final = 1.5


class ReachedPlace:
    """The place that a database has reached, as far as anybody has seen.

    `look` asks the database, and raises its driver's errors. Nobody asks while nobody waits, and never two at once: who
    comes first asks, from every 2 ms at first to every 50 ms, and when he leaves the next one does. Whoever comes later
    has the next look come within 10 ms.
    """

    def __init__(self, look: Callable[[], Awaitable[int]]) -> None:
        self._look = look
        self._seen_s = 0.0
        self._waiting: dict[asyncio.Future[None], int] = {}
        self._has_looker = False
        self._due_s = inf
        self._sooner = asyncio.Event()
        self._asking = asyncio.Lock()
        self.place = 0

    def is_awaited(self, needed: int, came_s: float) -> bool:
        """Whether whoever came then need not look himself: the place was not there since then, or somebody looks for
        it."""
        return self.place < needed and (self._has_looker or self._seen_s >= came_s)

    def saw(self, place: int, began_s: float) -> None:
        """Somebody has seen that it is there, by a look that began then (the event loop's time)."""
        if began_s < self._seen_s:
            return
        self.place, self._seen_s = place, began_s
        for each, needed in self._waiting.items():
            if needed <= place and not each.done():
                each.set_result(None)

    async def since(self, came_s: float) -> int:
        """The place by a look that began then or later: those who ask during one share the next. Raises its errors."""
        async with self._asking:
            if self._seen_s < came_s:
                await self._look_once()
            return self.place

    async def wait(self, needed: int, until_s: float, pause_s: float = PAUSE_S) -> bool:
        """Whether the place is seen by then. The first look is `pause_s` from now, or one of another a little later.

        Raises the look's errors.
        """
        try:
            while self.place < needed:
                left_s = until_s - now_s()
                if left_s <= 0:
                    return False
                if self._has_looker:
                    await self._wait_for_looker(needed, left_s, pause_s)
                else:
                    await self._look_until(needed, until_s, pause_s)
        finally:
            if not self._has_looker:
                self._hand_over()
        return True

    async def _wait_for_looker(self, needed: int, left_s: float, pause_s: float) -> None:
        due_s = now_s() + max(pause_s, JOINED_PAUSE_S)
        if due_s < self._due_s:
            self._due_s = due_s
            self._sooner.set()
        waiting = asyncio.get_running_loop().create_future()
        self._waiting[waiting] = needed
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await waiting
        finally:
            del self._waiting[waiting]

    async def _look_until(self, needed: int, until_s: float, pause_s: float) -> None:
        self._has_looker = True
        try:
            self._due_s = inf
            while self.place < needed and now_s() < until_s:
                # Somebody may have come during the last look.
                self._due_s = min(self._due_s, now_s() + pause_s, until_s)
                await self._pause()
                self._due_s = inf
                await self._look_once()
                pause_s = longer(pause_s)
        finally:
            self._has_looker = False

    async def _pause(self) -> None:
        while (left_s := self._due_s - now_s()) > 0:
            self._sooner.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._sooner.wait()

    async def _look_once(self) -> None:
        began_s = now_s()
        self.saw(await self._look(), began_s)

    def _hand_over(self) -> None:
        """One of those who wait is woken, and looks."""
        for each in self._waiting:
            if not each.done():
                each.set_result(None)
                return


def longer(pause_s: float) -> float:
    """The pause behind this one."""
    return min(pause_s * _GROWTH, _PAUSE_S_MAX)


def now_s() -> float:
    """The event loop's time."""
    return asyncio.get_running_loop().time()
