"""Asking coordinators how they are, at their health endpoints."""

import asyncio
import re
from collections.abc import Sequence
from typing import Final

import aiohttp
import msgspec
from msgspec import Struct

from coordinator.operations.views import SeenProcess

TIMEOUT_S: Final = 1.5
_BYTES_MAX: Final = 1 << 20
_EPOCH = re.compile(rb'^coordinator_lane_epoch\{lane="[^"]*"\} ([0-9.e+]+)$', re.MULTILINE)
_HELD = re.compile(rb'^coordinator_lane_unacknowledged\{lane="[^"]*"\} ([0-9.e+]+)$', re.MULTILINE)


class _Readyz(Struct):
    """What a coordinator answers."""

    status: str
    lane: str | None = None
    reason: str | None = None


class Coordinators:
    """Those at some addresses."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = urls
        self._session: aiohttp.ClientSession | None = None
        self._lanes: dict[str, str | None] = {}

    async def look(self) -> list[SeenProcess]:
        """Ask all of them at once. Never raises for one that does not answer."""
        return list(await asyncio.gather(*map(self._ask, self._urls)))

    async def close(self) -> None:
        """Disconnect."""
        if self._session is not None:
            await self._session.close()

    async def _ask(self, url: str) -> SeenProcess:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                readyz = msgspec.json.decode(await self._get(f"{url}/readyz"), type=_Readyz)
                metrics = await self._get(f"{url}/metrics")
        except (TimeoutError, OSError, aiohttp.ClientError, msgspec.MsgspecError) as error:
            # Of which lane it was is known from before.
            reason = "it does not answer" if isinstance(error, TimeoutError) else f"it does not answer: {error}"
            return SeenProcess(url=url, lane=self._lanes.get(url), state="away", reason=reason[:200])
        self._lanes[url] = readyz.lane
        epoch, held = (_number(metric, metrics) for metric in (_EPOCH, _HELD))
        state = "unready" if readyz.reason is not None else "active" if epoch else "standby"
        return SeenProcess(url=url, lane=readyz.lane, state=state, epoch=epoch, held=held, reason=readyz.reason)

    async def _get(self, url: str) -> bytes:
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        async with self._session.get(url, allow_redirects=False) as answer:
            body = bytearray()
            async for chunk in answer.content.iter_any():
                body += chunk
                if len(body) > _BYTES_MAX:
                    raise aiohttp.ClientError(f"more than {_BYTES_MAX} bytes")
            return bytes(body)


def _number(metric: re.Pattern[bytes], metrics: bytes) -> int:
    found = metric.search(metrics)
    return 0 if found is None else int(float(found.group(1)))
