"""An idle connection of a reader's that others have ended costs the next read one new connection at most."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.cache.connections import AsyncRedisScripts
from coordinator.cache.reader import Lookup, RowCache
from coordinator.cache.scripts import CLOCK
from coordinator.client.database import READ_TIMEOUT_MS, close_database, open_database, reading
from coordinator.runtime.addresses import parse_address
from coordinator.runtime.cache_settings import CacheSettings
from coordinator.runtime.event_loop import new_event_loop
from shared.items.cache import LEASE_KEY, cache_key
from shared.items.model import Item
from tests.faults.proxy import TcpProxy
from tests.support.databases import FreshDatabases, sql_engine
from tests.support.servers import Environment

READS = 6
IDLE_MS = 5
Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=[new_event_loop, asyncio.SelectorEventLoop], ids=["a gateway's loop", "asyncio's own loop"])
def run(request: pytest.FixtureRequest) -> Run:
    def run(coroutine: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(coroutine)

    return run


@pytest.fixture(
    params=["USERS_DATABASE_URL", "PAYMENTS_DATABASE_URL", "ITEMS_DATABASE_URL"],
    ids=["PostgreSQL", "MySQL", "MongoDB"],
)
def url(request: pytest.FixtureRequest, databases: FreshDatabases) -> str:
    return databases.new(request.param)


@pytest.fixture(autouse=True)
def idle_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver of MongoDB replaces what was idle for so long that a firewall may have forgotten it."""
    monkeypatch.setattr("coordinator.stores.mongodb.kind.IDLE_MS_MAX", IDLE_MS)


@pytest.mark.parametrize("ending", [TcpProxy.cut, TcpProxy.end, TcpProxy.silence], ids=["reset", "ended", "silent"])
def test_reads_after_the_end_of_idle_connections_succeed(
    url: str, run: Run, ending: Callable[[TcpProxy], None]
) -> None:
    async def check() -> None:
        async with proxied(url) as (proxy, database):
            await read_at_once(database)
            # The least time that counts as idle for long.
            await asyncio.sleep(2 * IDLE_MS / 1000)
            ending(proxy)
            began_at_s = time.monotonic()
            await read_at_once(database)
            assert time.monotonic() - began_at_s < READ_TIMEOUT_MS / 1000

    run(check())


def test_reads_after_the_limit_of_a_server_for_idle_sessions_succeed(databases: FreshDatabases, run: Run) -> None:
    """MySQL's `wait_timeout` is 8 h, and minutes where others run the server."""
    url = databases.new("PAYMENTS_DATABASE_URL")
    engine = sql_engine(url)

    async def check() -> None:
        database: Any = open_database(url, pool_max=READS)
        try:
            await read_at_once(database, "SET SESSION wait_timeout = 1")
            async with asyncio.timeout(20):
                while await asyncio.to_thread(sessions):
                    pass
            await read_at_once(database)
        finally:
            await close_database(database)

    def sessions() -> int:
        with engine.connect() as connection:
            others = "FROM information_schema.processlist WHERE db = database() AND id <> connection_id()"
            return int(connection.execute(text(f"SELECT count(*) {others}")).scalar_one())

    run(check())
    engine.dispose()


@pytest.mark.parametrize("ending", [TcpProxy.cut, TcpProxy.end, TcpProxy.silence], ids=["reset", "ended", "silent"])
def test_reads_after_the_end_of_idle_connections_to_redis_succeed(
    server_environment: Environment, run: Run, ending: Callable[[TcpProxy], None]
) -> None:
    async def check() -> None:
        url = server_environment["REDIS_URL"]
        [host] = parse_address(url).hosts
        async with TcpProxy(host.port or 0) as proxy:
            settings = CacheSettings(url=url.replace(f":{host.port}/", f":{proxy.port}/"), timeout_s=1.0)
            scripts, other = AsyncRedisScripts(settings), AsyncRedisScripts(settings)
            cache = RowCache(scripts, Item, cache_key, LEASE_KEY, ttl_s=settings.ttl_s)
            try:
                await asyncio.gather(*(scripts.run(CLOCK, [], []) for _ in range(READS)))
                ending(proxy)
                # What comes over another connection comes after the ends of these.
                await other.run(CLOCK, [], [])
                found = await asyncio.gather(*(cache.get(number) for number in range(READS)))
                if ending is not TcpProxy.silence:
                    assert found == [Lookup(None)] * READS
            finally:
                await scripts.close()
                await other.close()

    run(check())


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[tuple[TcpProxy, Any]]:
    [host, *_] = parse_address(url).hosts
    async with TcpProxy(host.port or 0) as proxy:
        database: Any = open_database(url.replace(f":{host.port}/", f":{proxy.port}/"), pool_max=READS)
        try:
            yield proxy, database
        finally:
            await close_database(database)


async def read_at_once(database: Any, statement: str = "SELECT 1") -> None:
    """Several, so that the pool fills."""
    found = await asyncio.gather(*(read(database, statement) for _ in range(READS)), return_exceptions=True)
    assert found == [None] * READS


async def read(database: Any, statement: str) -> None:
    async with reading():
        if isinstance(database, AsyncEngine):
            async with database.connect() as connection:
                await connection.execute(text(statement))
        else:
            await database["anything"].find_one()
