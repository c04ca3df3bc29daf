"""Waiting for purchases to end: one read at a time, for all requests of this process that wait."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from coordinator import ENDED, DatabaseUnavailable
from shared.users.purchases.model import Purchase

LOOK_AGAIN_S: Final = 0.02
LOOK_AGAIN_S_MAX: Final = 0.25
READ_AT_ONCE_MAX: Final = 500


class _Watched:
    """A purchase that requests wait for."""

    __slots__ = ("ended", "look_again_s", "look_at_s", "seen", "waiters")

    def __init__(self, begun: Purchase, now_s: float) -> None:
        self.seen = begun
        self.ended: asyncio.Future[Purchase] = asyncio.get_running_loop().create_future()
        self.look_at_s = now_s
        self.look_again_s = LOOK_AGAIN_S
        self.waiters = 0


class PurchaseWatch:
    """Wakes the requests that wait for a purchase when it ends. However many wait, there is one read after the other.

    `read` returns those of some purchases that exist; it raises DatabaseUnavailable.
    """

    def __init__(self, read: Callable[[Sequence[int]], Awaitable[Sequence[Purchase]]]) -> None:
        self._read = read
        self._watched: dict[int, _Watched] = {}
        self._task: asyncio.Task[None] | None = None

    async def wait(self, begun: Purchase, timeout_s: float) -> Purchase:
        """The purchase once it has ended, or as it was last seen after this many seconds.

        The purchase has begun, even if a read fails or does not find it yet: it is read again.
        """
        if begun.status in ENDED:
            return begun
        watched = self._watched.get(begun.id)
        if watched is None:
            watched = self._watched[begun.id] = _Watched(begun, asyncio.get_running_loop().time())
        watched.waiters += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look(), name="purchases that are waited for")
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(watched.ended)
        except TimeoutError:
            return watched.seen
        finally:
            watched.waiters -= 1
            if not watched.waiters and self._watched.get(begun.id) is watched:
                del self._watched[begun.id]

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        while self._watched:
            now_s = loop.time()
            due = [(key, each) for key, each in self._watched.items() if each.look_at_s <= now_s]
            for start in range(0, len(due), READ_AT_ONCE_MAX):
                await self._look_at(dict(due[start : start + READ_AT_ONCE_MAX]))
            await asyncio.sleep(LOOK_AGAIN_S)

    async def _look_at(self, due: dict[int, _Watched]) -> None:
        try:
            found = await self._read(list(due))
        except DatabaseUnavailable:
            found = []
        except Exception as error:  # noqa: BLE001  # the requests that wait decide what the error means
            for key, watched in due.items():
                self._end(key, watched)
                if watched.waiters and not watched.ended.done():
                    watched.ended.set_exception(error)
            return
        for purchase in found:
            watched = due[purchase.id]
            watched.seen = purchase
            if purchase.status in ENDED:
                self._end(purchase.id, watched)
                if not watched.ended.done():
                    watched.ended.set_result(purchase)
        now_s = asyncio.get_running_loop().time()
        for watched in due.values():
            watched.look_at_s = now_s + watched.look_again_s
            watched.look_again_s = min(watched.look_again_s * 1.5, LOOK_AGAIN_S_MAX)

    def _end(self, purchase_id: int, watched: _Watched) -> None:
        """End a watch: later requests for this purchase begin another."""
        if self._watched.get(purchase_id) is watched:
            del self._watched[purchase_id]
