"""The looks at the parts of a gateway, by which readiness is told: a few for all who ask."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

from aiohttp import web

from coordinator.http.keys import SETTINGS
from coordinator.runtime.ending import end_tasks

SHARED_S: Final = 0.1
"""Whoever asks while a look goes on gets what it finds, if it began less than this ago. So a thousand who ask cost the
parts no more than a few, and do not make a part that has much to do look like one that does not answer."""
APART_S: Final = 0.1
"""For strangers a look begins this long after the one before at the soonest. One takes some milliseconds of the event
loop, and some questions to each server: whoever asked again and again would take the time of all others. Where several
gateways are in one process each has its share of that: it is so many times as long."""


class Looks:
    """The looks at the parts of one gateway, which those who ask at a time share."""

    def __init__(self, take: Callable[[web.Application], Coroutine[Any, Any, dict[str, str]]]) -> None:
        """`take` looks once: why parts are down, by their names."""
        self._take = take
        self._going_on: set[asyncio.Task[dict[str, str]]] = set()
        self._latest: asyncio.Task[dict[str, str]] | None = None
        self._began_s = 0.0
        self._begins = asyncio.Event()
        self._shares = 1
        self._found: dict[str, str] | None = None
        self._waiting = 0

    def share_process(self, gateways: int) -> None:
        """So many gateways are in this process: strangers who ask at all of them cost it no more than at one."""
        self._shares = gateways

    async def look(self, app: web.Application) -> dict[str, str]:
        """Why parts are down, by their names. Raises what a check raises."""
        now = time.monotonic()
        if self._latest is None or self._latest.done() or now - self._began_s >= SHARED_S:
            self._latest, self._began_s = asyncio.create_task(self._take(app)), now
            self._begins.set()
            self._begins = asyncio.Event()
            self._going_on.add(self._latest)
            self._latest.add_done_callback(self._end)
        # One of those who wait may be gone; the others still do.
        return await asyncio.shield(self._latest)

    async def look_for_anybody(self, app: web.Application) -> dict[str, str]:
        """As `look`; while an eighth of all connections wait for one, what the last one found, a few seconds ago at
        most: strangers who ask while a part hangs leave places to others. Who asks soon after a look waits for the next
        one, whoever begins that: the gateway itself looks now and then, too."""
        if self._found is not None and self._waiting >= -(-app[SETTINGS].connections_max // 8):
            return self._found
        self._waiting += 1
        came_s = time.monotonic()
        try:
            while (wait_s := self._rest_s()) > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._begins.wait()
                if self._latest is not None and self._began_s >= came_s:
                    # It may be over by now.
                    return await asyncio.shield(self._latest)
            return await self.look(app)
        finally:
            self._waiting -= 1

    def _rest_s(self) -> float:
        """How long whoever asks now waits for the next one to begin, if nobody begins it before."""
        now = time.monotonic()
        if self._latest is None or not (self._latest.done() or now - self._began_s >= SHARED_S):
            # One goes on that he shares.
            return 0.0
        return self._began_s + APART_S * self._shares - now

    async def close(self) -> None:
        """Take no more."""
        await end_tasks(*self._going_on)

    def _end(self, look: asyncio.Task[dict[str, str]]) -> None:
        self._going_on.discard(look)
        # Whoever asked may be gone, so what it has raised is heard here.
        if not look.cancelled() and look.exception() is None:
            self._found = look.result()
