"""When a gateway begins to listen: a proxy that finds its port open sends it requests at once."""

import asyncio
import os
import signal
from types import SimpleNamespace
from typing import Any, ClassVar, NoReturn, cast

import aiohttp
import pytest

from coordinator.dev.servers.ports import free_port
from coordinator.http import main, opening
from coordinator.registry import registry
from coordinator.service.errors import BrokerUnavailable, ConfigurationError

USERS = [main.Offered(registry().gateway("users"))]


class Connecting:
    """Writes whose connection is there when a test says so."""

    connected: ClassVar[bool] = True
    problem: ClassVar[str | None] = None
    account: ClassVar[str] = "users_gateway"

    def __init__(self) -> None:
        self.may_connect = asyncio.Event()
        self.is_asked = asyncio.Event()
        self.is_closed = False

    def commands(self, _name: str, **_: Any) -> "Connecting":
        return self

    def pending(self, command_id: str) -> bool:
        return False

    def settled_place(self, command_id: str) -> tuple[str, int] | None:
        return None

    async def waiting(self, lane: str) -> int | None:
        return None

    async def start(self) -> None:
        pass

    async def wait_connected(self, timeout_s: float) -> None:
        self.is_asked.set()
        try:
            async with asyncio.timeout(timeout_s):
                await self.may_connect.wait()
        except TimeoutError:
            raise BrokerUnavailable("not connected") from None

    async def failed(self) -> NoReturn:
        await asyncio.Event().wait()
        raise NotImplementedError

    async def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def starting(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    writes, port = Connecting(), free_port()
    monkeypatch.setenv("USERS_READER_URL", "postgresql://nobody@127.0.0.1:9/users")
    monkeypatch.setattr(opening, "open_transport", lambda _: cast(Any, writes))

    def begin(metrics_port: int | None = None) -> "asyncio.Task[None]":
        return asyncio.create_task(main._serve(USERS, "127.0.0.1", port, None, metrics_port))

    return SimpleNamespace(writes=writes, port=port, begin=begin)


async def health(port: int) -> int:
    return (await asked(port, "/healthz"))[0]


async def asked(port: int, path: str) -> tuple[int, str]:
    """Status and body, once the port is open."""
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(f"http://127.0.0.1:{port}{path}") as response:
                    return response.status, await response.text()
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.01)


async def stop(serving: "asyncio.Task[None]", writes: Connecting) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(serving, 10)
    assert writes.is_closed


async def test_nobody_can_connect_before_the_broker_takes_commands(starting: SimpleNamespace) -> None:
    serving = starting.begin()
    await asyncio.wait_for(starting.writes.is_asked.wait(), 10)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", starting.port)
    starting.writes.may_connect.set()
    assert await asyncio.wait_for(health(starting.port), 10) == 200
    await stop(serving, starting.writes)


async def test_a_broker_that_is_away_holds_it_up_only_for_a_while(
    starting: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "FIRST_CONNECTION_WAIT_S", 0.05)
    serving = starting.begin()
    assert await asyncio.wait_for(health(starting.port), 10) == 200
    await stop(serving, starting.writes)


async def test_a_primary_that_cannot_serve_is_refused_by_its_setting(
    starting: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys and secrets are read there: those of another lane's database would count."""
    said = iter([None, "it is the database of lane items"])

    async def problem(*_: object) -> str | None:
        return next(said)

    monkeypatch.setattr(opening, "reading_problem", problem)
    monkeypatch.setenv("USERS_PRIMARY_URL", "postgresql://nobody@127.0.0.1:10/users")
    with pytest.raises(ConfigurationError, match=r"USERS_PRIMARY_URL.*lane items"):
        await asyncio.wait_for(starting.begin(), 10)


async def test_metrics_have_a_port_of_their_own_where_it_is_named(starting: SimpleNamespace) -> None:
    starting.writes.may_connect.set()
    metrics_port = free_port()
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", metrics_port):
        with pytest.raises(ConfigurationError, match=rf"port {metrics_port} .*--metrics-port"):
            await starting.begin(metrics_port)
    serving = starting.begin(metrics_port)
    assert await asyncio.wait_for(health(starting.port), 10) == 200
    assert (await asked(starting.port, "/metrics"))[0] == 404
    assert "/metrics" not in (await asked(starting.port, "/openapi.json"))[1]
    status, text = await asked(metrics_port, "/metrics")
    assert status == 200
    assert "coordinator_build_info" in text
    assert (await asked(metrics_port, "/readyz"))[0] == 404
    await stop(serving, starting.writes)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", metrics_port)


async def test_a_database_of_another_kind_is_refused_by_the_settings_that_may_name_it(
    starting: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "FIRST_CONNECTION_WAIT_S", 0.05)
    monkeypatch.setenv("USERS_READER_URL", "mongodb://127.0.0.1:9/users")
    with pytest.raises(ConfigurationError, match=r"USERS_READER_URL, .*must name an SQL database, and names MongoDB"):
        await starting.begin()


@pytest.mark.parametrize("host", ["a" * 64, "a..b", "\x1b[2J" * 20])
async def test_what_is_no_name_of_a_host_is_refused_by_name(
    starting: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setattr(opening, "FIRST_CONNECTION_WAIT_S", 0.05)
    monkeypatch.setenv("ACCESS_METHODS", "none")
    with pytest.raises(ConfigurationError, match=r"cannot listen on port \d+ of '.*--port") as refused:
        await main._serve(USERS, host, starting.port)
    assert str(refused.value).isprintable()
