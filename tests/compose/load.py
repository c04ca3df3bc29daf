"""Writes to one row from several clients at once, each of them sent once: what the proxy does about a fault is seen."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import aiohttp

from tests.support.system import Client
from tests.support.torn import TORN

CLIENTS = 8


class Load:
    """Credits of 1 to one user, while it is `running`."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._client = Client(session, url)
        self._url = url
        self._keys = itertools.count(1)
        self.user_id = 0
        self.applied = 0
        self.seen: Counter[str] = Counter()
        """How many writes met what at their first attempt: a status, or the name of an error."""
        self.slowest_s = 0.0

    async def prepare(self, email: str) -> None:
        """Make the user."""
        status, user = await self._client.write("/users", {"name": "Load", "email": email}, email)
        assert status == 201, user
        self.user_id = user["id"]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write meanwhile. In the end every write has been answered with what it did, if need be by repeating it."""
        stopped = asyncio.Event()
        clients = [asyncio.create_task(self._write_until(stopped)) for _ in range(CLIENTS)]
        try:
            yield
        finally:
            stopped.set()
            await asyncio.gather(*clients)

    async def reached(self, more: int) -> None:
        """Return when so many more writes are applied."""
        goal = self.applied + more
        async with asyncio.timeout(90):
            while self.applied < goal:
                await asyncio.sleep(0.02)

    async def credit(self) -> int:
        """What the database says."""
        async with self._session.get(f"{self._url}/users/{self.user_id}") as response:
            user: dict[str, Any] = await response.json()
            return int(user["credit"])

    async def _write_until(self, stopped: asyncio.Event) -> None:
        while not stopped.is_set():
            key = f"load-{self.user_id}-{next(self._keys)}"
            path, began = f"/users/{self.user_id}/credit", monotonic()
            self.seen[await self._attempt(path, key)] += 1
            status, answer = await self._client.write(path, {"amount": 1}, key)
            assert status == 200, answer
            self.slowest_s = max(self.slowest_s, monotonic() - began)
            self.applied += 1

    async def _attempt(self, path: str, key: str) -> str:
        try:
            async with self._session.post(
                self._url + path, json={"amount": 1}, headers={"Idempotency-Key": key}
            ) as response:
                await response.read()
                return str(response.status)
        except TORN as error:
            return type(error).__name__
