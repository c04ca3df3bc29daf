"""Pauses that nobody waits for."""

import asyncio


class Pauses:
    """A clock's pauses, noted and not waited for. After so many of one length the task is cancelled."""

    def __init__(self, last: float, times: int = 1) -> None:
        self.taken: list[float] = []
        self._last, self._times = last, times

    async def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)
        if self.taken.count(self._last) == self._times:
            raise asyncio.CancelledError
