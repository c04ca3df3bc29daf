"""Turns: of one client's large bodies one at a time is read, so that the others are served between.

While a process finds out what a body asks for, it does nothing else. Bodies that end at the same moment would be read
one after the other before anybody else is served, or all in slices, of which each holds up everybody. Here a client has
one of these slices, however many of its bodies are there.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class BodyTurns:
    """Those of one client, in the order in which they came. At most `most` have a turn or wait for one."""

    __slots__ = ("_lock", "_most", "number")

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = asyncio.Lock()
        self.number = 0

    @property
    def is_full(self) -> bool:
        """Whether no other request may wait for a turn."""
        return self.number >= self._most

    @asynccontextmanager
    async def one(self) -> AsyncIterator[bool]:
        """Held for as long as a request has its turn; whether it has waited for it. Check `is_full` before.

        The next one has its turn once everybody else was served.
        """
        # Not only where the lock is held: between two turns it is free, and the next one's already.
        has_waited = self.number > 0
        self.number += 1
        try:
            await self._lock.acquire()
        except BaseException:
            self.number -= 1
            raise
        try:
            yield has_waited
        finally:
            # Whoever comes within this step of the loop has to wait, too.
            asyncio.get_running_loop().call_soon(self._end)

    def _end(self) -> None:
        self.number -= 1
        self._lock.release()
