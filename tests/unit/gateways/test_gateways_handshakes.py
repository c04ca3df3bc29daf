"""Connections whose handshake of TLS is on its way count, and give way, as all others do."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from itertools import islice
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
import uvloop
from structlog.testing import capture_logs

from coordinator.client.database import close_database, open_database
from coordinator.http import connections
from coordinator.http.app import create_app
from coordinator.http.certificate import serve_certificate
from coordinator.http.connections import SURPLUS
from coordinator.http.server import listening
from coordinator.registry import registry
from coordinator.runtime.server_files import ServerFiles
from coordinator.runtime.server_tls import ServerTls
from coordinator.runtime.settings import GatewaySettings
from tests.support.authority import Authority
from tests.unit.gateways.gateway_fakes import FakeLog, FakeWrites

OPEN = 'coordinator_gateway_connections{service="users"}'


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Any:
    return lambda: asyncio.Runner(loop_factory=request.param)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@asynccontextmanager
async def served(authority: Authority, **settings: Any) -> AsyncIterator[tuple[int, aiohttp.ClientSession]]:
    """A gateway with TLS, its port, and a client of it that knows its certificate."""
    certificate, key = authority.issue("server", "IP:127.0.0.1")
    database = open_database("postgresql://nobody@127.0.0.1:9/users")
    app = create_app(
        registry().gateway("users"),
        transport=cast(Any, FakeWrites()),
        database=database,
        command_log=FakeLog(),
        settings=GatewaySettings(**settings),
    )
    serve_certificate(app, ServerTls("gateway", ServerFiles("GATEWAY_TLS_", str(certificate), str(key))))
    trusting = ssl.create_default_context(cafile=str(authority.certificate))
    try:
        with capture_logs() as lines:
            async with listening(app, "127.0.0.1", 0):
                (port,) = [line["port"] for line in lines if line["event"] == "started"]
                connector = aiohttp.TCPConnector(ssl=trusting, force_close=True)
                async with aiohttp.ClientSession(f"https://127.0.0.1:{port}", connector=connector) as session:
                    yield port, session
    finally:
        await close_database(database)


async def count_of(session: aiohttp.ClientSession, metric: str) -> float:
    async with session.get("/metrics") as answer:
        (line,) = [each for each in (await answer.text()).splitlines() if each.startswith(metric)]
    return float(line.rpartition(" ")[2])


class Silent:
    """Clients that connect, and say nothing or the wrong thing."""

    def __init__(self) -> None:
        self._open: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def connect(self, port: int, said: bytes = b"") -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        self._open.append((reader, writer))
        writer.write(said)

    async def ended(self, number: int) -> None:
        """So many were cut off, whichever: those that come at the same moment do not make room for each other."""
        reading = [asyncio.ensure_future(reader.read()) for reader, _ in self._open]
        for each in islice(asyncio.as_completed(reading), number):
            with suppress(ConnectionError):
                await each
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)

    def close(self) -> None:
        for _, writer in self._open:
            writer.transport.abort()


def try_out(runner: Any, trial: Callable[[Silent], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(30):
            with closing(Silent()) as silent:
                await trial(silent)
            # What is aborted ends with the next turns of the loop.
            await asyncio.sleep(0.01)

    with runner() as running:
        running.run(main())


def test_clients_that_say_nothing_give_way_to_those_that_do(
    authority: Authority, runner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def trial(silent: Silent) -> None:
        async with served(authority, connections_max=4, head_timeout_s=600.0) as (port, session):
            for _ in range(4 * (4 + SURPLUS)):
                await silent.connect(port)
            # So all of them were accepted, and those that are left have begun a while ago.
            await silent.ended(3 * (4 + SURPLUS))
            monkeypatch.setattr(connections, "GRACE_S", 0.0)
            async with session.get("/healthz") as answer:
                assert answer.status == 200
            await silent.ended(3 * (4 + SURPLUS) + 1)
            assert await count_of(session, OPEN) <= 4 + SURPLUS

    try_out(runner, trial)


def test_a_handshake_takes_as_long_as_a_head_may(authority: Authority, runner: Any) -> None:
    async def trial(silent: Silent) -> None:
        async with served(authority, head_timeout_s=0.5) as (port, session):
            ended = 'coordinator_gateway_connections_ended_total{reason="head_timeout",service="users"}'
            await silent.connect(port)
            await silent.ended(1)
            assert await count_of(session, ended) >= 1

    try_out(runner, trial)


def test_one_that_fails_leaves_its_place_and_one_under_way_hinders_no_stop(authority: Authority, runner: Any) -> None:
    async def trial(silent: Silent) -> None:
        async with served(authority, head_timeout_s=600.0) as (port, session):
            await silent.connect(port, b"GET /healthz HTTP/1.1\r\n\r\n")
            await silent.ended(1)
            assert await count_of(session, OPEN) == 1
            await silent.connect(port)
        await silent.ended(2)

    try_out(runner, trial)
