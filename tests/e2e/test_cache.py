"""Redis fails under load: no read is older than an acknowledged write, no request fails, and writes go on."""

import asyncio
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp
import pytest
import redis

from coordinator.dev.servers.addresses import ACCOUNT, CACHE_READER
from coordinator.dev.servers.process import Process
from coordinator.dev.servers.server_set import ServerSet
from tests.faults.proxy import TcpProxy
from tests.support.callers import HEADERS
from tests.support.monolith import Monolith
from tests.support.system import System, wait_until

ITEMS = (1, 2, 3)
READERS = 4
MORE = 40
PROGRESS_TIMEOUT_S = 40.0


class Traffic:
    """Each item has one writer; readers check every answer against what was acknowledged before they asked."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url
        self._versions = dict.fromkeys(ITEMS, 1)
        self._happened = asyncio.Condition()
        self.counts: Counter[str] = Counter()

    @classmethod
    @asynccontextmanager
    async def flowing(cls, system: System | Monolith) -> AsyncIterator["Traffic"]:
        """While the block runs. Leaving it raises what a writer or a reader found wrong."""
        async with aiohttp.ClientSession(headers=HEADERS) as session:
            traffic = cls(session, system.urls["items"])
            for _ in ITEMS:
                await traffic._create()
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(traffic._write(item_id)) for item_id in ITEMS]
                tasks += [group.create_task(traffic._read(number)) for number in range(READERS)]
                await traffic.more("write", "hit")
                yield traffic
                for task in tasks:
                    task.cancel()

    async def more(self, *what: str) -> None:
        """Return once each of these has happened MORE times again: `write`; `hit`; `database`, a read of it."""
        goals = {each: self.counts[each] + MORE for each in what}
        async with asyncio.timeout(PROGRESS_TIMEOUT_S), self._happened:
            await self._happened.wait_for(lambda: all(self.counts[each] >= goal for each, goal in goals.items()))

    async def _happen(self, *what: str) -> None:
        async with self._happened:
            self.counts.update(what)
            self._happened.notify_all()

    async def _create(self) -> None:
        body = {"name": "pen", "price": 1, "currency": "EUR", "stock": 1}
        async with self._session.post(f"{self._url}/items", json=body) as response:
            assert response.status == 201, await response.text()

    async def _write(self, item_id: int) -> None:
        while True:
            body = {"price": self._versions[item_id]}
            async with self._session.patch(f"{self._url}/items/{item_id}", json=body) as response:
                assert response.status == 200, await response.text()
                version = (await response.json())["version"]
            assert version == self._versions[item_id] + 1
            self._versions[item_id] = version
            await self._happen("write")

    async def _read(self, number: int) -> None:
        while True:
            item_id = ITEMS[number % len(ITEMS)]
            number += 1
            floor = self._versions[item_id]
            async with self._session.get(f"{self._url}/items/{item_id}") as response:
                assert response.status == 200, await response.text()
                cache = response.headers["Cache-Status"]
                version = (await response.json())["version"]
            assert version >= floor, f"item {item_id}: {cache} of version {version}, though {floor} was acknowledged"
            await self._happen("hit" if "hit" in cache else "database")


@pytest.fixture
async def lane_proxy(system: System, native_servers: ServerSet) -> AsyncIterator[TcpProxy]:
    """Only the lane reaches Redis through it."""
    async with TcpProxy(native_servers.redis.port) as proxy:
        system.prepare("items")
        address = urlsplit(system.environment["REDIS_URL"])
        through = address._replace(netloc=address.netloc.replace(f":{address.port}", f":{proxy.port}")).geturl()
        # The proxy runs here, so that this loop must not be blocked meanwhile.
        await asyncio.to_thread(lambda: system.start_coordinator("items", REDIS_URL=through))
        await asyncio.to_thread(lambda: system.start_gateway("items"))
        yield proxy
        # What is stopped may have to reach Redis.
        await asyncio.to_thread(system.stop)
        system.processes.clear()


def _with_redis(native_servers: ServerSet, do: Callable[[redis.Redis], object]) -> None:
    with redis.Redis.from_url(native_servers.redis.administrator_url) as client:
        do(client)


@pytest.mark.faults
async def test_a_redis_that_is_killed_costs_no_request_and_counts_again_when_it_is_back(
    system: System, native_servers: ServerSet
) -> None:
    system.start("items")
    async with Traffic.flowing(system) as traffic:
        await asyncio.to_thread(native_servers.redis.kill)
        try:
            await traffic.more("write", "database")
        finally:
            await asyncio.to_thread(native_servers.redis.start)
        await traffic.more("write", "hit")


@pytest.mark.faults
async def test_a_redis_that_comes_back_with_old_data_is_not_believed(system: System, native_servers: ServerSet) -> None:
    """It saves its entries with their live lease, dies, and is back with them at once."""
    system.start("items")
    try:
        async with Traffic.flowing(system) as traffic:
            await asyncio.to_thread(_with_redis, native_servers, lambda client: client.save())
            await traffic.more("write")
            await asyncio.to_thread(native_servers.redis.kill)
            await asyncio.to_thread(native_servers.redis.start)
            await traffic.more("write", "hit")
    finally:
        for dump in native_servers.redis.data.glob("*.rdb"):
            dump.unlink()


@pytest.mark.parametrize(
    ("taken", "given", "said"),
    [
        ("-evalsha", "+evalsha", "Redis refuses the command evalsha to the user of REDIS_URL"),
        (
            "resetkeys",
            "~item:* ~items:lease",
            r"Redis refuses a command or (a|the) key.* to the user of REDIS_URL",
        ),
        # Up to 7 Redis does not say which command of a script it refuses.
        ("-time", "+time", r"Redis refuses (a command or (a|the) key.*|the command time) to the user of REDIS_URL"),
    ],
)
async def test_a_redis_that_refuses_is_told_in_words_and_costs_no_request(
    system: System, native_servers: ServerSet, taken: str, given: str, said: str
) -> None:
    system.start("items")
    coordinator, gateway = system.processes

    def set_user(rules: str) -> None:
        of_readers = rules.replace("~items:lease", "%R~items:lease")
        for user, its in ((ACCOUNT, rules), (CACHE_READER, of_readers)):
            command = ("ACL", "SETUSER", user, *its.split())
            _with_redis(native_servers, lambda client: cast(Any, client).execute_command(*command))  # noqa: B023

    async with Traffic.flowing(system) as traffic:
        await asyncio.to_thread(set_user, taken)
        try:
            await traffic.more("write", "database")
            async with (
                aiohttp.ClientSession(headers=HEADERS) as session,
                session.get(f"{system.urls['items']}/readyz") as response,
            ):
                body = await response.json()
            assert (response.status, body["checks"]["cache"]) == (200, "down")
            assert re.search(said, body["reasons"]["cache"])
            lines, of_gateway = (
                [line for line in process.log_path.read_text().splitlines() if "cache_unavailable" in line]
                for process in (coordinator, gateway)
            )
            # The second one names the key of the entry that was tried.
            assert 1 <= len(lines) <= 2, lines
            # Where the lane has lost its lease, a reader does not come so far as to be refused. Whoever looks for late
            # outcomes asks by a connection of its own.
            assert len(of_gateway) <= 2, of_gateway
            unlike = [line for line in (*lines, *of_gateway) if not re.search(said, line)]
            assert unlike == []
        finally:
            await asyncio.to_thread(set_user, given)
        await traffic.more("hit")


@pytest.mark.faults
async def test_a_redis_that_is_flushed_again_and_again_makes_no_read_stale(
    system: System, native_servers: ServerSet
) -> None:
    system.start("items")
    async with Traffic.flowing(system) as traffic:
        for _ in range(8):
            await asyncio.to_thread(_with_redis, native_servers, lambda client: client.flushall())
            await traffic.more("write", "hit")


@pytest.mark.faults
async def test_a_redis_that_is_stopped_is_not_waited_for_and_what_it_does_late_does_no_harm(
    system: System, native_servers: ServerSet
) -> None:
    system.start("items")
    async with Traffic.flowing(system) as traffic:
        for _ in range(2):
            native_servers.redis.pause()
            try:
                await traffic.more("write", "database")
            finally:
                native_servers.redis.resume()
            await traffic.more("write", "hit")


@pytest.mark.faults
async def test_a_lane_that_alone_is_cut_off_again_and_again_leaves_nothing_stale(
    system: System, lane_proxy: TcpProxy
) -> None:
    async with Traffic.flowing(system) as traffic:
        for _ in range(8):
            lane_proxy.cut()
            await traffic.more("write", "hit")


@pytest.mark.faults
async def test_while_the_lane_alone_does_not_reach_redis_readers_do_not_believe_it(
    system: System, lane_proxy: TcpProxy
) -> None:
    async with Traffic.flowing(system) as traffic:
        for _ in range(2):
            lane_proxy.stall()
            await traffic.more("write", "database")
            hits = traffic.counts["hit"]
            await traffic.more("write", "database")
            assert traffic.counts["hit"] == hits, "nothing is believed without word of the lane"
            lane_proxy.resume()
            await traffic.more("write", "hit")


async def test_a_coordinator_stops_while_its_outcomes_wait_for_the_cache(
    system: System, native_servers: ServerSet
) -> None:
    """And what it has committed is told by the next one."""
    system.prepare("items")
    coordinator = system.start_coordinator("items", REDIS_LEASE_S="60")
    system.start_gateway("items")
    url = f"{system.urls['items']}/items"
    body = {"name": "pen", "price": 0, "currency": "EUR", "stock": 1}
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        async with session.post(url, json=body) as response:
            assert response.status == 201
        native_servers.redis.pause()
        try:
            writing = asyncio.create_task(_status(session.patch(f"{url}/1", json={"price": 1})))
            is_waiting = partial(_has_logged, coordinator, "cache_unavailable")
            await asyncio.to_thread(wait_until, is_waiting, "its outcomes wait")
            await asyncio.to_thread(coordinator.stop, signal.SIGTERM, 5.0)
            assert coordinator.exit_status == 0, coordinator.status
            system.processes.remove(coordinator)
        finally:
            native_servers.redis.resume()
        assert not writing.done()
        await asyncio.to_thread(system.start_coordinator, "items")
        assert await writing == 200


def _has_logged(process: Process, event: str) -> bool:
    return event in process.log_path.read_text()


async def _status(request: AbstractAsyncContextManager[aiohttp.ClientResponse]) -> int:
    async with request as response:
        return response.status
