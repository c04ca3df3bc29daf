"""A gateway's read ends within its limit though the server says nothing, and its connection is not kept."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Coroutine

import pytest
from sqlalchemy import text

from coordinator.client import database as reads
from coordinator.client.database import close_database, open_database, reading
from coordinator.runtime.addresses import parse_address
from coordinator.runtime.event_loop import new_event_loop
from coordinator.service.errors import DatabaseUnavailable
from tests.faults.proxy import TcpProxy
from tests.support.databases import FreshDatabases, sql_engine

LIMIT_S = 1.0
SLACK_S = 1.0


@pytest.fixture(autouse=True)
def short_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "READ_TIMEOUT_MS", round(LIMIT_S * 1000))


@pytest.fixture(params=["USERS_DATABASE_URL", "PAYMENTS_DATABASE_URL"], ids=["PostgreSQL", "MySQL"])
def url(request: pytest.FixtureRequest, databases: FreshDatabases) -> str:
    return databases.new(request.param)


def on_a_gateways_loop(run: Callable[[], Coroutine[None, None, None]]) -> None:
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(run())


async def fails_in_time(database: object) -> None:
    began_at_s = time.monotonic()
    with pytest.raises(DatabaseUnavailable, match="did not answer within"):
        await read(database)
    assert time.monotonic() - began_at_s < LIMIT_S + SLACK_S


async def read(database: object, statement: str = "SELECT 1") -> object:
    async with reading(), database.connect() as connection:  # type: ignore[attr-defined]
        return (await connection.execute(text(statement))).scalar_one()


def test_a_read_on_a_frozen_connection_ends_in_time_and_the_next_ones_succeed(url: str) -> None:
    async def run() -> None:
        port = parse_address(url).hosts[0].port or 0
        async with TcpProxy(port) as proxy:
            database = open_database(url.replace(f":{port}/", f":{proxy.port}/"), pool_max=2)
            try:
                assert await read(database) == 1
                proxy.stall()
                # More than the pool has: each gives its connection back.
                for _ in range(3):
                    await fails_in_time(database)
                proxy.resume()
                assert await asyncio.gather(*(read(database) for _ in range(4))) == [1] * 4
                assert database.pool.checkedout() == 0  # type: ignore[union-attr]
            finally:
                await close_database(database)

    on_a_gateways_loop(run)


@pytest.mark.usefixtures("native_servers")
def test_a_read_whose_backend_is_stopped_ends_in_time(databases: FreshDatabases) -> None:
    async def run() -> None:
        database = open_database(databases.new("USERS_DATABASE_URL"), pool_max=1)
        pid = await read(database, "SELECT pg_backend_pid()")
        assert isinstance(pid, int)
        os.kill(pid, signal.SIGSTOP)
        try:
            await fails_in_time(database)
            assert await read(database) == 1
        finally:
            os.kill(pid, signal.SIGCONT)
            await close_database(database)

    on_a_gateways_loop(run)


def test_a_read_that_takes_too_long_is_cancelled_on_the_server(databases: FreshDatabases) -> None:
    url = databases.new("USERS_DATABASE_URL")
    engine = sql_engine(url)

    async def run() -> None:
        database = open_database(url, pool_max=1)
        with pytest.raises(DatabaseUnavailable, match="did not answer within"):
            await read(database, "SELECT pg_sleep(60)")
        try:
            async with asyncio.timeout(10):
                while await asyncio.to_thread(sleeping):
                    pass
        finally:
            await close_database(database)

    def sleeping() -> int:
        with engine.connect() as connection:
            asleep = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'"
            return int(connection.execute(text(asleep)).scalar_one())

    on_a_gateways_loop(run)
    engine.dispose()
