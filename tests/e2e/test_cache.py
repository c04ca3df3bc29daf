"""The cache never goes back, and no request fails for it, whatever becomes of Redis: under writes and reads at once."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import monotonic
from urllib.parse import urlsplit

import aiohttp
import pytest
import redis

from coordinator.dev.servers import ServerSet
from coordinator.dev.servers.process import Process
from tests.faults.proxy import TcpProxy
from tests.support.system import System, wait_until

ITEMS = 3
READERS = 4
LEASE_S = 1.0
WITHIN_S = 30.0
SLACK_S = 2.0
"""What a write may take beside the lease, on a machine that has other things to do."""


class Traffic:
    """Writers, one for each item, and readers of all; every answer is checked."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url
        self._acknowledged = dict.fromkeys(range(1, ITEMS + 1), 0)
        self.writes = self.reads = 0
        self.results: Counter[str] = Counter()
        self.longest_write_s = 0.0
        self.longest_read_s = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self._is_over = False

    async def start(self) -> None:
        for _ in self._acknowledged:
            body = {"name": "pen", "price": 0, "currency": "EUR", "stock": 1}
            async with self._session.post(f"{self._url}/items", json=body) as response:
                assert response.status == 201, await response.text()
        self._tasks = [asyncio.create_task(self._write(item_id)) for item_id in self._acknowledged]
        self._tasks += [asyncio.create_task(self._read(number)) for number in range(READERS)]

    async def stop(self) -> None:
        self._is_over = True
        await asyncio.gather(*self._tasks)

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline_s = monotonic() + WITHIN_S
        while not condition():
            assert monotonic() < deadline_s, f"not within {WITHIN_S} s: {what}"
            for task in self._tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.01)

    async def go_on(self, writes: int = 20) -> None:
        """So many more writes and reads; what is said of them is said of these only."""
        self.results.clear()
        self.longest_write_s = self.longest_read_s = 0.0
        writes, reads = self.writes + writes, self.reads + writes
        await self.until(lambda: self.writes >= writes and self.reads >= reads, "writes and reads")

    async def until_hit(self) -> None:
        self.results.clear()
        await self.until(lambda: self.results["hit"] >= READERS, "hits")

    async def _write(self, item_id: int) -> None:
        price = 0
        while not self._is_over:
            price += 1
            began_s = monotonic()
            async with self._session.patch(f"{self._url}/items/{item_id}", json={"price": price}) as response:
                answer = await response.json(content_type=None)
                assert response.status == 200, answer
            self.longest_write_s = max(self.longest_write_s, monotonic() - began_s)
            self._acknowledged[item_id] = answer["version"]
            self.writes += 1

    async def _read(self, number: int) -> None:
        while not self._is_over:
            number = number % ITEMS + 1
            floor, began_s = self._acknowledged[number], monotonic()
            async with self._session.get(f"{self._url}/items/{number}") as response:
                answer = await response.json(content_type=None)
                assert response.status == 200, answer
                result = response.headers["Cache-Status"].partition("; ")[2]
            assert answer["version"] >= floor, f"{result} of version {answer['version']}; {floor} was acknowledged"
            self.longest_read_s = max(self.longest_read_s, monotonic() - began_s)
            self.results[result] += 1
            self.reads += 1


@asynccontextmanager
async def traffic(system: System) -> AsyncIterator[Traffic]:
    async with aiohttp.ClientSession() as session:
        flowing = Traffic(session, system.urls["items"])
        try:
            await flowing.start()
            await flowing.until_hit()
            yield flowing
        finally:
            await flowing.stop()


Strike = Callable[[ServerSet, Traffic], Awaitable[None]]


async def lose_everything(servers: ServerSet, flowing: Traffic) -> None:
    with redis.Redis.from_url(servers.redis.url) as client:
        for _ in range(20):
            client.flushall()
            await flowing.go_on(3)


async def restart_empty(servers: ServerSet, flowing: Traffic) -> None:
    await asyncio.to_thread(servers.redis.kill)
    await flowing.go_on()
    assert set(flowing.results) <= {"fwd=bypass", "fwd=miss", "hit"}
    await asyncio.to_thread(servers.redis.start)


async def restart_with_old_data(servers: ServerSet, flowing: Traffic) -> None:
    """At once, while a lease that it had saved would still be alive."""
    dump = servers.redis.data / "dump.rdb"
    with redis.Redis.from_url(servers.redis.url) as client:
        for _ in range(3):
            client.save()
            await flowing.go_on(10)
            await asyncio.to_thread(servers.redis.kill)
            await asyncio.to_thread(servers.redis.start)
            assert client.exists("item:1", "item:2", "item:3"), "it has what it saved"
            await flowing.go_on(10)
    dump.unlink()


async def freeze(servers: ServerSet, flowing: Traffic) -> None:
    """What was sent to it is executed when it goes on."""
    servers.redis.pause()
    try:
        await flowing.go_on(40)
        assert "hit" not in flowing.results or flowing.results["fwd=bypass"]
        assert flowing.longest_write_s < LEASE_S + SLACK_S
        assert flowing.longest_read_s < LEASE_S
    finally:
        servers.redis.resume()
    await flowing.go_on(20)


@pytest.mark.parametrize("strike", [lose_everything, restart_empty, restart_with_old_data, freeze])
async def test_redis_may_fail_and_neither_reads_nor_writes_do(
    system: System, native_servers: ServerSet, strike: Strike
) -> None:
    system.prepare("items")
    system.start_coordinator("items", REDIS_LEASE_S=str(LEASE_S))
    system.start_gateway("items")
    async with traffic(system) as flowing:
        await strike(native_servers, flowing)
        await flowing.until_hit()
        await flowing.go_on()


async def test_a_lane_cut_off_from_redis_waits_once_until_nobody_believes_the_cache(system: System) -> None:
    """The gateway still reaches it, and would serve what the lane cannot refresh."""
    system.prepare("items")
    address = urlsplit(system.environment["REDIS_URL"])
    async with TcpProxy(address.port or 6379) as proxy:
        start = asyncio.to_thread(
            system.start_coordinator,
            "items",
            REDIS_LEASE_S=str(LEASE_S),
            REDIS_URL=f"redis://127.0.0.1:{proxy.port}/0",
        )
        await start
        await asyncio.to_thread(system.start_gateway, "items")
        async with traffic(system) as flowing:
            for _ in range(2):
                proxy.stall()
                await flowing.go_on(20)
                assert flowing.longest_write_s < LEASE_S + SLACK_S
                await flowing.go_on(20)
                assert flowing.results["hit"] == 0, "the lease is over"
                assert flowing.longest_write_s < LEASE_S, "they wait once"
                # Also what the lane has sent meanwhile.
                proxy.resume()
                await flowing.until_hit()
            for _ in range(10):
                proxy.cut()
                await flowing.go_on(5)


async def test_a_coordinator_stops_while_its_outcomes_wait_for_the_cache(
    system: System, native_servers: ServerSet
) -> None:
    """And what it has committed is told by the next one."""
    system.prepare("items")
    coordinator = system.start_coordinator("items", REDIS_LEASE_S="60")
    system.start_gateway("items")
    url = f"{system.urls['items']}/items"
    body = {"name": "pen", "price": 0, "currency": "EUR", "stock": 1}
    async with aiohttp.ClientSession() as session:
        async with session.post(url, json=body) as response:
            assert response.status == 201
        native_servers.redis.pause()
        try:
            writing = asyncio.create_task(_status(session.patch(f"{url}/1", json={"price": 1})))
            await asyncio.to_thread(wait_until, lambda: _is_waiting(coordinator), "its outcomes wait")
            await asyncio.to_thread(coordinator.stop, 15, 5.0)
            assert coordinator.exit_status == 0, coordinator.status
            system.processes.remove(coordinator)
        finally:
            native_servers.redis.resume()
        assert not writing.done()
        await asyncio.to_thread(system.start_coordinator, "items")
        assert await writing == 200


def _is_waiting(coordinator: Process) -> bool:
    return "cache_unavailable" in coordinator.log_path.read_text()


async def _status(request: "aiohttp.client._RequestContextManager") -> int:
    async with request as response:
        return response.status
