"""Whether a gateway's database answers, asked while requests hold all connections for reads."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.client.database import close_database, open_database
from coordinator.http.app import create_app
from coordinator.http.database_part import CONNECTIONS
from coordinator.migrations.migrate import migrate
from coordinator.registry import registry
from coordinator.runtime.addresses import parse_address
from coordinator.runtime.settings import DatabaseSettings, GatewaySettings
from coordinator.stores.kinds import Database
from tests.faults.proxy import TcpProxy
from tests.support.databases import FreshDatabases, sql_engine
from tests.unit.gateways.gateway_fakes import FakeLog, FakeWrites
from tests.unit.gateways.test_gateways_process import AWAY, ended, port_of, run

SEEN_WITHIN_S = 5.0
ASKED_AT_A_TIME = 30


@pytest.fixture(params=["users", "payments", "items"])
def lane(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(lane: str, databases: FreshDatabases) -> str:
    made = databases.new(f"{lane.upper()}_DATABASE_URL")
    migrate(registry().service(lane), DatabaseSettings(database_url=made))
    return made


@asynccontextmanager
async def held(database: Database) -> AsyncIterator[None]:
    """While the only connection of this reader is taken, by another read."""
    if isinstance(database, AsyncEngine):
        async with database.connect():
            yield
        return
    version = (await database.command("hello"))["topologyVersion"]
    # It is answered once the server changes: never.
    asked = {"hello": 1, "topologyVersion": version, "maxAwaitTimeMS": 60_000}
    waiting = asyncio.create_task(database.command(asked))
    await asyncio.sleep(0)
    try:
        yield
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


@asynccontextmanager
async def gateway(lane: str, url: str, own_url: str) -> AsyncIterator[tuple[TestClient[Any, Any], Database]]:
    async with AsyncExitStack() as stack:
        database, own_database = open_database(url, pool_max=1), open_database(own_url, CONNECTIONS)
        for each in (database, own_database):
            stack.push_async_callback(close_database, each)
        app = create_app(
            registry().gateway(lane),
            transport=cast(Any, FakeWrites()),
            database=database,
            command_log=FakeLog(),
            settings=GatewaySettings(),
            own_database=own_database,
        )
        yield await stack.enter_async_context(TestClient(TestServer(app))), database


async def state_of(client: TestClient[Any, Any]) -> Any:
    async with client.get("/readyz") as answer:
        return (await answer.json(content_type=None))["checks"]["database"]


async def test_a_database_answers_while_reads_hold_all_connections(lane: str, url: str) -> None:
    async with gateway(lane, url, url) as (client, database), held(database):
        assert await state_of(client) == "ok"
        # However many ask.
        assert await asyncio.gather(*(state_of(client) for _ in range(ASKED_AT_A_TIME))) == ["ok"] * ASKED_AT_A_TIME


async def test_a_database_that_does_not_answer_is_seen_and_so_is_that_it_does_again(lane: str, url: str) -> None:
    port = parse_address(url).hosts[0].port or 0
    async with TcpProxy(port) as proxy, gateway(lane, url, url.replace(f":{port}/", f":{proxy.port}/")) as (client, _):
        assert await state_of(client) == "ok"
        proxy.stall()
        began_s = time.monotonic()
        states = await asyncio.gather(*(state_of(client) for _ in range(ASKED_AT_A_TIME)))
        assert states == ["down"] * ASKED_AT_A_TIME
        assert time.monotonic() - began_s < SEEN_WITHIN_S
        proxy.resume()
        async with asyncio.timeout(4 * SEEN_WITHIN_S):
            while await state_of(client) == "down":
                pass


@pytest.mark.usefixtures("native_servers")
async def test_a_gateways_process_asks_over_a_connection_of_its_own(databases: FreshDatabases) -> None:
    url = databases.new("USERS_DATABASE_URL")
    migrate(registry().service("users"), DatabaseSettings(database_url=url))
    engine = sql_engine(url)

    def backends() -> set[int]:
        others = "datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        with engine.connect() as connection:
            return set(connection.execute(text(f"SELECT pid FROM pg_stat_activity WHERE {others}")).scalars())

    settings = AWAY | {"USERS_DATABASE_URL": url, "GATEWAY_READ_POOL_MAX": "1"}
    process = await run("users", "--port", "0", **settings)
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{await port_of(process)}") as session:

            async def state() -> Any:
                async with session.get("/readyz") as answer:
                    return (await answer.json(content_type=None))["checks"]["database"]

            assert await state() == "ok"
            own = await asyncio.to_thread(backends)
            async with session.get("/users/7") as answer:
                assert answer.status == 404
            (reading,) = await asyncio.to_thread(backends) - own
            os.kill(reading, signal.SIGSTOP)
            try:
                waiting = asyncio.create_task(session.get("/users/7"))
                assert await state() == "ok"
                assert not waiting.done()
            finally:
                os.kill(reading, signal.SIGCONT)
            (await waiting).release()
    finally:
        process.send_signal(signal.SIGTERM)
        code, stderr = await ended(process)
        engine.dispose()
    assert code == 0, stderr
