"""Requests that wait: so many at once that the others are served meanwhile.

A request that waits keeps its connection, and of those a gateway has GATEWAY_CONNECTIONS_MAX. The more a client needs
the wait, the larger is the share of them that may wait:

| what a request waits for | they may be | and beyond that |
| --- | --- | --- |
| what it could read later, such as the end of a saga | half of all | it is answered at once |
| the outcome of what it issues | three quarters | 503, before anything is issued |
| that the broker has what it issues (`respond-async`) | seven eighths | 503, before anything is issued |

Each counts all that wait, so that those who wait out of courtesy leave room for those who write, and these for reads.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from aiohttp import web

from coordinator.http.connections import lost_of
from coordinator.service.errors import Overloaded

T = TypeVar("T")


class Waiting:
    """How many requests of a gateway wait."""

    def __init__(self, connections_max: int) -> None:
        self.number = 0
        self._courtesies_max = _share(1, 2, connections_max)
        self._outcomes_max = _share(3, 4, connections_max)
        self._confirms_max = _share(7, 8, connections_max)

    @contextmanager
    def for_outcome(self, wait_s: float) -> Iterator[None]:
        """While a request waits so long for the outcome of what it issues. Raises Overloaded where too many wait."""
        most = self._outcomes_max if wait_s > 0 else self._confirms_max
        if self.number >= most:
            raise Overloaded(f"{self.number} requests wait here already (a share of GATEWAY_CONNECTIONS_MAX)")
        self.number += 1
        try:
            yield
        finally:
            self.number -= 1

    @contextmanager
    def as_courtesy(self) -> Iterator[bool]:
        """While a request waits for what its client could read later; False: too many wait, and it must not."""
        if self.number >= self._courtesies_max:
            yield False
            return
        self.number += 1
        try:
            yield True
        finally:
            self.number -= 1


WAITING: Final = web.AppKey("WAITING", Waiting)


async def wait_as_courtesy(request: web.Request, wait: Callable[[], Awaitable[T]]) -> T | None:
    """What `wait` returns. None: its client is gone, or too many requests wait, and the answer is to be given now."""
    with request.app[WAITING].as_courtesy() as may_wait:
        if not may_wait:
            return None
        waited = asyncio.ensure_future(wait())
        try:
            either: set[asyncio.Future[Any]] = {waited, lost_of(request)}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            return waited.result() if waited.done() else None
        finally:
            waited.cancel()


def _share(part: int, of: int, connections_max: int) -> int:
    """Rounded up, so that there is room for one at least."""
    return -(-connections_max * part // of)
