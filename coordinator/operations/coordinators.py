"""Asking coordinators and effect workers how they are, at their health endpoints."""

import asyncio
from collections.abc import Sequence
from itertools import chain

import aiohttp
import msgspec
import structlog

from coordinator.operate.processes import BYTES_MAX, TIMEOUT_S, SeenProcess, away, seen

log = structlog.get_logger("operations")


class Coordinators:
    """Those at some addresses."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = urls
        self._session: aiohttp.ClientSession | None = None
        self._seen: dict[str, list[SeenProcess]] = {}

    async def look(self) -> list[SeenProcess]:
        """Ask all of them at once. Never raises for one that does not answer."""
        return list(chain.from_iterable(await asyncio.gather(*map(self._ask, self._urls))))

    async def close(self) -> None:
        """Disconnect."""
        if self._session is not None:
            await self._session.close()

    async def _ask(self, url: str) -> list[SeenProcess]:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                found = seen(url, await self._get(f"{url}/readyz"), await self._get(f"{url}/metrics"))
        except aiohttp.ClientConnectorError as error:
            # Its own words name the kind of TLS, also where there is none.
            return away(url, self._seen.get(url, ()), error.os_error)
        except (TimeoutError, OSError, aiohttp.ClientError, msgspec.MsgspecError) as error:
            return away(url, self._seen.get(url, ()), error)
        except Exception as error:
            # A defect, or an answer that nobody has thought of: it hides no other process.
            log.exception("internal_error", service="operations", asked=url)
            return away(url, self._seen.get(url, ()), error)
        self._seen[url] = found
        return found

    async def _get(self, url: str) -> bytes:
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        async with self._session.get(url, allow_redirects=False) as answer:
            body = bytearray()
            async for chunk in answer.content.iter_any():
                body += chunk
                if len(body) > BYTES_MAX:
                    raise aiohttp.ClientError(f"more than {BYTES_MAX} bytes")
            return bytes(body)
