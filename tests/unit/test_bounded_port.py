"""The port of /metrics and /readyz: what connections that say nothing may take of a process."""

import asyncio
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import aiohttp
import pytest
from structlog.testing import capture_logs

from coordinator.dev.servers.ports import free_port
from coordinator.runtime import bounded_port
from coordinator.runtime.bounded_port import CONNECTIONS_MAX
from coordinator.runtime.event_loop import new_event_loop
from coordinator.runtime.health import HealthEndpoint, Readiness
from coordinator.runtime.settings import TelemetrySettings
from coordinator.service.errors import ConfigurationError
from tests.support.authority import Authority

HALF_HEAD = b"GET /readyz HTTP/1.1\r\nHost: "


@asynccontextmanager
async def served(settings: TelemetrySettings) -> AsyncIterator[int]:
    port = free_port()
    endpoint = HealthEndpoint(("lane", "users"), lambda: Readiness(True), settings, port)
    await endpoint.start()
    try:
        yield port
    finally:
        await endpoint.stop()


async def is_ready(port: int, trusting: ssl.SSLContext | None = None) -> bool:
    url = f"http{'s' if trusting else ''}://127.0.0.1:{port}/readyz"
    async with aiohttp.ClientSession() as session, session.get(url, ssl=trusting or False) as answer:
        return answer.status == 200


async def silent(port: int, said: bytes, count: int) -> list[socket.socket]:
    """So many connections, one after the other, that say this and no more."""
    found = []
    for _ in range(count):
        each = socket.socket()
        each.setblocking(False)
        await asyncio.get_running_loop().sock_connect(each, ("127.0.0.1", port))
        each.send(said)
        found.append(each)
    return found


async def ended(connection: socket.socket) -> bool:
    """Whether the server has closed it. An answer that it has sent before is read away."""
    with suppress(ConnectionError):
        while await asyncio.get_running_loop().sock_recv(connection, 1000):
            pass
    return True


async def ended_among(connections: list[socket.socket]) -> int:
    """How many of the first have been ended, once as many are as must be."""
    must = len(connections) + 1 - CONNECTIONS_MAX
    async with asyncio.timeout(30):
        await asyncio.gather(*map(ended, connections[:must]))
    still_open = [each for each in connections[must:] if not _has_end(each)]
    return len(connections) - len(still_open)


def _has_end(connection: socket.socket) -> bool:
    try:
        return not connection.recv(1000)
    except BlockingIOError:
        return False


@pytest.mark.parametrize("loop_of", [asyncio.new_event_loop, new_event_loop])
def test_connections_that_never_end_their_head_take_no_more_than_their_places(
    loop_of: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def main() -> None:
        async with served(TelemetrySettings()) as port:
            with capture_logs() as lines:
                held = await silent(port, HALF_HEAD, 3 * CONNECTIONS_MAX)
                assert await is_ready(port)
            assert await ended_among(held) == len(held) + 1 - CONNECTIONS_MAX
            for each in held:
                each.close()
        told = [line for line in lines if line["event"] == "connections_not_taken"]
        assert [(line["lane"], line["log_level"]) for line in told] == [("users", "warning")]

    with asyncio.Runner(loop_factory=loop_of) as runner:
        runner.run(main())


@pytest.mark.parametrize("loop_of", [asyncio.new_event_loop, new_event_loop])
def test_nor_do_handshakes_that_never_end(loop_of: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server", "IP:127.0.0.1")
    settings = TelemetrySettings(tls_certificate=str(certificate), tls_key=str(key))
    trusting = ssl.create_default_context(cafile=str(authority.certificate))

    async def main() -> None:
        async with served(settings) as port:
            held = await silent(port, b"", 3 * CONNECTIONS_MAX)
            assert await is_ready(port, trusting)
            assert await ended_among(held) == len(held) + 1 - CONNECTIONS_MAX
            for each in held:
                each.close()

    with asyncio.Runner(loop_factory=loop_of) as runner:
        runner.run(main())


async def test_without_open_files_it_says_so_once_and_goes_on_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_port, "CANNOT_ACCEPT_PAUSE_S", 0.001)
    loop = asyncio.get_running_loop()
    accept, left = loop.sock_accept, 5

    async def accept_without_files(listening: socket.socket) -> tuple[socket.socket, object]:
        nonlocal left
        if left:
            left -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return await accept(listening)

    monkeypatch.setattr(loop, "sock_accept", accept_without_files)
    with capture_logs() as lines:
        async with served(TelemetrySettings()) as port:
            assert await is_ready(port)
    assert left == 0
    assert [(line["event"], line["reason"]) for line in lines] == [("connections_not_taken", "Too many open files")]


async def test_a_port_that_is_taken_and_a_host_that_is_none_are_refused() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        endpoint = HealthEndpoint(
            ("lane", "users"), lambda: Readiness(True), TelemetrySettings(), taken.getsockname()[1]
        )
        with pytest.raises(ConfigurationError, match=r"cannot be used for /metrics: Address already in use; choose"):
            await endpoint.start()
        await endpoint.stop()
    for host in ("a" * 70, "", "192.0.2.1"):
        settings = TelemetrySettings(metrics_host=host)
        nowhere = HealthEndpoint(("lane", "users"), lambda: Readiness(True), settings, free_port())
        with pytest.raises(ConfigurationError, match=r"cannot be used for /metrics: .*TELEMETRY_METRICS_HOST"):
            await nowhere.start()
        await nowhere.stop()
