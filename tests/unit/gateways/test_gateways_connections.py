"""Connections: no client that is slow, silent or many keeps others from being served. Over real sockets."""

import asyncio
import os
import resource
import signal
import socket
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import aiohttp
import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

import coordinator.http.connections
import coordinator.http.runner
from coordinator.access.settings import AccessSettings
from coordinator.access.tokens import Tokens
from coordinator.dev.servers.process import die_with_parent
from coordinator.http.connections import SEND_BUFFER_BYTES, SURPLUS
from coordinator.http.descriptors import BACKLOG_MAX, OTHERS, OTHERS_OF_EACH, make_room_for_connections
from coordinator.http.looks import SHARED_S
from coordinator.http.operations import CHECKS, Check
from coordinator.runtime.settings import GatewaySettings
from coordinator.service.errors import ConfigurationError
from tests.support.issuer import AUDIENCE, ISSUER, Issuer, SigningKey, serving
from tests.unit.gateways.conftest import Start
from tests.unit.gateways.gateway_fakes import USER
from tests.unit.gateways.test_gateways_process import AWAY, ROOT, ended, port_of

DEADLINE_S = 20.0
KEY = SigningKey("one")
GET = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
CREATE = (
    b"POST /users HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 43\r\n\r\n"
    b'{"name": "Ada", "email": "ada@example.org"}'
)


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def status(self) -> int:
        async with asyncio.timeout(DEADLINE_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            for line in head.split(b"\r\n"):
                if line.lower().startswith(b"content-length:"):
                    await self.reader.readexactly(int(line.partition(b":")[2]))
        return int(head.split(b" ", 2)[1])

    async def rest(self) -> bytes:
        """All that comes until the gateway closes the connection."""
        async with asyncio.timeout(DEADLINE_S):
            with suppress(ConnectionError):
                return await self.reader.read()
            return b""


@asynccontextmanager
async def connected(port: int, **options: Any) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, **options)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def wait_for(event: asyncio.Event) -> None:
    await event.wait()


async def trickle(client: Client, pause_s: float) -> None:
    """One byte after the other, as long as somebody listens."""
    with suppress(ConnectionError):
        for byte in b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 10_000:
            client.send(bytes([byte]))
            await client.writer.drain()
            await asyncio.sleep(pause_s)


class TestEveryStateEnds:
    async def test_a_head_that_does_not_end(self, start: Start) -> None:
        users = await start("users", GatewaySettings(head_timeout_s=0.3))
        async with connected(users.port) as client:
            client.send(GET[:20])
            assert (await client.rest()).startswith(b"HTTP/1.1 408 ")

    async def test_a_head_that_comes_byte_by_byte(self, start: Start) -> None:
        users = await start("users", GatewaySettings(head_timeout_s=0.3))
        with capture_logs() as lines:
            async with connected(users.port) as client:
                slow = asyncio.create_task(trickle(client, 0.02))
                # What is sent to a client that goes on sending may be lost when the connection is closed.
                await client.rest()
                slow.cancel()
        assert [line["reason"] for line in lines if line["event"] == "connections_ended"] == ["head_timeout"]

    async def test_the_head_of_a_later_request(self, start: Start) -> None:
        users = await start("users", GatewaySettings(head_timeout_s=0.3))
        async with connected(users.port) as client:
            client.send(GET)
            assert await client.status() == 200
            client.send(GET[:20])
            assert (await client.rest()).startswith(b"HTTP/1.1 408 ")

    async def test_a_head_that_begins_behind_another_request(self, start: Start) -> None:
        users = await start("users", GatewaySettings(head_timeout_s=0.3, idle_timeout_s=0.3))
        async with connected(users.port) as client:
            client.send(GET + GET[:20])
            assert await client.status() == 200
            assert await client.rest() == b""

    async def test_silence_from_the_start(self, start: Start) -> None:
        users = await start("users", GatewaySettings(head_timeout_s=0.3))
        async with connected(users.port) as client:
            assert await client.rest() == b""

    async def test_silence_after_a_request(self, start: Start) -> None:
        users = await start("users", GatewaySettings(idle_timeout_s=0.3, head_timeout_s=60))
        async with connected(users.port) as client:
            client.send(GET)
            assert await client.status() == 200
            assert await client.rest() == b""

    async def test_a_head_without_end(self, start: Start) -> None:
        users = await start("users", GatewaySettings(head_bytes_max=1024))
        async with connected(users.port) as client:
            client.send(b"GET / HTTP/1.1\r\nX: " + b"x" * 700)
            await until(lambda: any(each._head_bytes for each in users.server.connections))
            client.send(b"x" * 700)
            assert (await client.rest()).startswith(b"HTTP/1.1 431 ")

    @pytest.mark.parametrize("path", [b"/users", b"/nothing", b"/healthz"])
    async def test_a_body_that_does_not_end(self, start: Start, path: bytes) -> None:
        users = await start("users", GatewaySettings(body_timeout_s=0.3))
        async with connected(users.port) as client:
            head = b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
            client.send(head % path)
            assert 400 <= await client.status() < 500
            assert await client.rest() == b""

    async def test_a_response_that_nobody_reads(self, start: Start) -> None:
        users = await start("users", GatewaySettings(send_timeout_s=0.3))
        users.rows.rows = {number: replace(USER, id=number, name="x" * 200) for number in range(1, 201)}
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, ("127.0.0.1", users.port))
            # More than the buffers of both kernels and of the gateway hold.
            with suppress(OSError):
                async with asyncio.timeout(DEADLINE_S):
                    while True:
                        await loop.sock_sendall(client, b"GET /users?limit=200 HTTP/1.1\r\nHost: a\r\n\r\n" * 100)
            await until(lambda: not users.server.connections)

    async def test_what_the_kernel_keeps_for_who_does_not_read_is_bounded(self, start: Start) -> None:
        users = await start("users", GatewaySettings())
        async with connected(users.port) as client:
            client.send(GET)
            await client.status()
            (connection,) = users.server.connections
            opened = connection.transport.get_extra_info("socket")
            assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * SEND_BUFFER_BYTES

    async def test_what_a_closed_connection_has_left_to_send(self, start: Start) -> None:
        """To close is to send the rest first: also that ends."""
        users = await start("users", GatewaySettings(send_timeout_s=0.3))
        users.rows.rows = {number: replace(USER, id=number, name="x" * 200) for number in range(1, 201)}
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, ("127.0.0.1", users.port))
            await loop.sock_sendall(client, GET)
            await until(lambda: users.server.connections)
            (connection,) = users.server.connections
            connection.transport.set_write_buffer_limits(high=100 << 20)
            connection.transport.write(b"x" * (20 << 20))
            connection.force_close()
            await until(lambda: connection._open is None)


async def until(is_so: Any) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not is_so():  # noqa: ASYNC110  # of another task's objects
            await asyncio.sleep(0.01)


class TestTheNumberOfConnections:
    async def test_whoever_does_not_read_makes_room(self, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(coordinator.http.connections, "READING_S", 0.1)
        users = await start("users", GatewaySettings(connections_max=2, send_timeout_s=60))
        users.rows.rows = {number: replace(USER, id=number, name="x" * 200) for number in range(1, 201)}
        loop = asyncio.get_running_loop()
        with socket.socket() as one, socket.socket() as other:
            for client in (one, other):
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.setblocking(False)
                await loop.sock_connect(client, ("127.0.0.1", users.port))
                await loop.sock_sendall(client, b"GET /users?limit=200 HTTP/1.1\r\nHost: a\r\n\r\n" * 60)
            limits = next(iter(users.server.connections)).limits
            await until(lambda: len(limits.unread) == 2)
            await asyncio.sleep(0.1)  # so long a slow network may take
            async with connected(users.port) as honest:
                honest.send(CREATE)
                assert await honest.status() == 201

    async def test_whoever_has_been_sending_for_longest_makes_room(self, start: Start) -> None:
        users = await start("users", GatewaySettings(connections_max=3))
        async with AsyncExitStack() as stack:
            slow = [await stack.enter_async_context(connected(users.port)) for _ in range(3)]
            for client in slow:
                client.send(b"GET /he")
            await until(lambda: len(users.server.connections) == 3)
            await asyncio.sleep(0.2)  # as long as a client is given
            async with connected(users.port) as good:
                good.send(GET)
                assert await good.status() == 200
                assert await slow[0].rest() == b""
                slow[2].send(b"althz HTTP/1.1\r\nHost: a\r\n\r\n")
                assert await slow[2].status() == 200

    async def test_one_that_sends_a_body_slowly_makes_room(self, start: Start) -> None:
        users = await start("users", GatewaySettings(connections_max=1))
        async with connected(users.port) as slow:
            slow.send(CREATE[:-1])
            await until(lambda: users.server.connections)
            await asyncio.sleep(0.2)
            async with connected(users.port) as good:
                good.send(GET)
                assert await good.status() == 200
            assert await slow.rest() == b""
        assert users.writes.issued == []

    async def test_one_that_waits_until_it_is_known_who_asks_makes_room(self, start: Start) -> None:
        """Whoever makes up an id of a key while its issuer is slow has shown nothing, and holds nobody up."""
        async with serving(Issuer(KEY)) as issuer:
            access = AccessSettings(
                methods="tokens", token_issuer=ISSUER, token_audience=AUDIENCE, token_keys=issuer.url
            )
            asking = Tokens(access)
            users = await start("users", GatewaySettings(connections_max=2), authenticator=asking)
            issuer.may_answer.clear()
            known, made_up = KEY.token(), SigningKey("made up").token()
            async with AsyncExitStack() as stack:
                strangers = [await stack.enter_async_context(connected(users.port)) for _ in range(2)]
                # As if the set had not been asked for just now.
                asking._keys._tried_at = None
                for stranger in strangers:
                    stranger.send(CREATE.replace(b"\r\n\r\n", f"\r\nAuthorization: Bearer {made_up}\r\n\r\n".encode()))
                await until(lambda: len(users.server._limits.sending) == 2 and issuer.asked > 1)
                await asyncio.sleep(0.2)  # as long as a client is given
                async with connected(users.port) as honest:
                    honest.send(CREATE.replace(b"\r\n\r\n", f"\r\nAuthorization: Bearer {known}\r\n\r\n".encode()))
                    assert await honest.status() == 201
                assert await strangers[0].rest() == b""
                issuer.may_answer.set()
                assert await strangers[1].status() == 401

    async def test_one_that_is_answered_and_owes_the_rest_of_its_body_makes_room(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(coordinator.http.runner, "LINGERING_S", 3 * DEADLINE_S)
        users = await start("users", GatewaySettings(connections_max=2, body_timeout_s=3 * DEADLINE_S))
        async with connected(users.port) as first, connected(users.port) as second:
            for client in (first, second):
                client.send(GET.replace(b"\r\n\r\n", b"\r\nContent-Length: 9\r\n\r\n"))
                assert await client.status() == 200
            await until(lambda: len(users.server._limits.sending) == 2)
            second.send(b"x" * 9 + GET)
            assert await second.status() == 200
            await asyncio.sleep(0.2)  # as long as a client is given
            async with connected(users.port) as good:
                good.send(GET)
                assert await good.status() == 200
                assert await first.rest() == b""
                second.send(GET)
                assert await second.status() == 200

    async def test_one_that_is_lost_amid_its_body_is_forgotten(self, start: Start) -> None:
        users = await start("users", GatewaySettings(connections_max=2))
        limits = users.server._limits
        for _ in range(5):
            async with connected(users.port) as lost:
                lost.send(CREATE[:-1])
                await until(lambda: len(limits.sending) == 1)
                lost.writer.transport.abort()
            await until(lambda: not limits._open and not users.server.connections)
        # What is answered then is answered to nobody.
        await until(lambda: not [each for each in asyncio.all_tasks() if "RequestHandler" in repr(each.get_coro())])
        assert len(limits.sending) == 0

    @pytest.mark.parametrize("head", [b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"])
    async def test_one_that_is_lost_before_it_is_served_is_no_error_of_the_gateway(
        self, start: Start, head: bytes
    ) -> None:
        users = await start("users", GatewaySettings())
        async with connected(users.port):
            await until(lambda: len(users.server.connections) == 1)
            (connection,) = users.server.connections
            with capture_logs() as logs:
                connection.data_received(CREATE[:-1].replace(b"\r\n\r\n", head))
                # Its request is made, and the task that serves it has not begun.
                await asyncio.sleep(0)
                connection.connection_lost(ConnectionResetError())
                await until(lambda: any(each["event"] == "request" for each in logs))
        assert [each["event"] for each in logs if each["log_level"] == "error"] == []
        assert [each["http.response.status_code"] for each in logs if each["event"] == "request"] == [400]

    async def test_the_one_that_has_been_idle_for_longest_makes_room(self, start: Start) -> None:
        users = await start("users", GatewaySettings(connections_max=2))
        async with connected(users.port) as first, connected(users.port) as second, AsyncExitStack() as stack:
            for client in (first, second):
                client.send(GET)
                assert await client.status() == 200
            good = await stack.enter_async_context(connected(users.port))
            good.send(GET)
            assert await good.status() == 200
            assert await first.rest() == b""
            second.send(GET)
            assert await second.status() == 200

    async def test_what_is_being_served_is_served_and_health_is_answered(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # None of those that have only connected gives way to the next.
        monkeypatch.setattr(coordinator.http.connections, "GRACE_S", 2 * DEADLINE_S)
        users = await start("users", GatewaySettings(connections_max=2, retry_after_s=7))
        users.writes.gate.clear()
        with capture_logs() as lines:
            async with AsyncExitStack() as stack:
                served = [await stack.enter_async_context(connected(users.port)) for _ in range(2)]
                for client in served:
                    client.send(CREATE)
                await until(lambda: len(users.writes.issued) == 2)
                async with connected(users.port) as probe:
                    probe.send(GET)
                    assert (await probe.rest()).startswith(b"HTTP/1.1 200 ")
                async with connected(users.port) as other:
                    other.send(CREATE)
                    answer = await other.rest()
                    assert answer.startswith(b"HTTP/1.1 503 ")
                    assert b"Retry-After: 7\r\n" in answer
                    assert b'"code":"overloaded"' in answer
                surplus = [await stack.enter_async_context(connected(users.port)) for _ in range(SURPLUS)]
                await until(lambda: len(users.server.connections) == 2 + SURPLUS)
                async with connected(users.port) as refused:
                    answer = await refused.rest()
                    assert not answer or answer.startswith(b"HTTP/1.1 503 ")
                assert len(surplus) == SURPLUS
                assert len(users.writes.issued) == 2
                users.writes.gate.set()
                assert [await client.status() for client in served] == [201, 201]
        told = [line for line in lines if line["event"] == "connections_ended" and line["reason"] == "refused"]
        assert len(told) == 1  # of all within a minute

    async def test_a_surplus_connection_that_gives_way_makes_no_room_for_another_kind(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        users = await start("users", GatewaySettings(connections_max=2))
        users.writes.gate.clear()
        async with AsyncExitStack() as stack:
            for _ in range(2):
                (await stack.enter_async_context(connected(users.port))).send(CREATE)
            await until(lambda: len(users.writes.issued) == 2)
            limits = users.server._limits
            for grace_s in (2 * DEADLINE_S, -1.0) * 4:  # nobody gives way, anybody does
                monkeypatch.setattr(coordinator.http.connections, "GRACE_S", grace_s)
                seen = set(limits._open)
                await stack.enter_async_context(connected(users.port))
                await until(lambda: set(limits._open) - seen)  # noqa: B023
                assert sum(not each.is_surplus for each in limits._open) == 2
            users.writes.gate.set()

    async def test_who_asks_for_readiness_while_a_part_hangs_leaves_places(self, start: Start) -> None:
        users = await start("users", GatewaySettings(connections_max=8))
        app = users.server._limits._app
        hanging = asyncio.Event()
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(connected(users.port)) for _ in range(8)]
            clients[0].send(GET.replace(b"healthz", b"readyz"))
            assert await clients[0].status() == 200
            app[CHECKS].append(Check("hanging", lambda: wait_for(hanging)))
            await asyncio.sleep(2 * SHARED_S)
            for client in clients:
                client.send(GET.replace(b"healthz", b"readyz"))
            # All but one have the answer of before.
            for client in clients[1:]:
                assert await client.status() == 200
            async with connected(users.port) as honest:
                honest.send(CREATE)
                assert await honest.status() == 201
            hanging.set()
            assert await clients[0].status() == 200

    async def test_connections_that_close_leave_their_place(self, start: Start) -> None:
        users = await start("users", GatewaySettings(connections_max=2))
        for _ in range(10):
            async with connected(users.port) as client:
                client.send(GET)
                assert await client.status() == 200
        assert "coordinator_gateway_connections_ended_total" in (await users.call("GET", "/metrics"))[1].decode()


def limits(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int) -> list[tuple[int, int]]:
    changed: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: changed.append(both))
    return changed


RESERVED = SURPLUS + BACKLOG_MAX + OTHERS + 8
# With a quarter more for those that come at once.
FITTING = 154


class TestOpenFiles:
    def test_enough_are_left_as_they_are(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for soft in (1000 + RESERVED, resource.RLIM_INFINITY):
            changed = limits(monkeypatch, soft, soft)
            make_room_for_connections(GatewaySettings())
            assert changed == []

    def test_the_limit_is_raised_as_far_as_is_needed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for hard in (4096, resource.RLIM_INFINITY):
            changed = limits(monkeypatch, 256, hard)
            make_room_for_connections(GatewaySettings())
            assert changed == [(1000 + RESERVED, hard)]

    def test_what_cannot_fit_is_said_with_what_would(self, monkeypatch: pytest.MonkeyPatch) -> None:
        limits(monkeypatch, 256, 256)
        with pytest.raises(ConfigurationError, match=f"GATEWAY_CONNECTIONS_MAX to at most {FITTING}"):
            make_room_for_connections(GatewaySettings())
        limits(monkeypatch, 64, 64)
        with pytest.raises(ConfigurationError, match="raise the limit"):
            make_room_for_connections(GatewaySettings(connections_max=1))

    @pytest.mark.timeout(20)
    def test_so_is_it_where_far_too_many_are_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It counted down from there, one by one."""
        limits(monkeypatch, 256, 256)
        with pytest.raises(ConfigurationError, match=f"GATEWAY_CONNECTIONS_MAX to at most {FITTING}"):
            make_room_for_connections(GatewaySettings(connections_max=10**6))

    async def test_an_accept_that_fails_is_logged_once(self, start: Start) -> None:
        users = await start("users", GatewaySettings(head_timeout_s=0.4))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with socket.socket() as client, capture_logs() as lines:
            client.setblocking(False)
            highest = os.open(os.devnull, os.O_RDONLY)
            os.close(highest)
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
            try:
                await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", users.port))
                await until(lambda: any(line["event"] == "connections_ended" for line in lines))
                await asyncio.sleep(0.3)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        told = [line for line in lines if line["event"] == "connections_ended"]
        assert [(line["reason"], "ulimit" in line["error"]) for line in told] == [("cannot_accept", True)]


def test_each_gateway_of_a_process_has_room_for_its_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 100_000))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: raised.append(limits))
    settings = GatewaySettings(connections_max=1000)
    for gateways in (1, 3):
        make_room_for_connections(settings, gateways)
    (one, _), (three, _) = raised
    assert three > 3 * (one - OTHERS) + OTHERS
    # Those behind one port share its connections.
    make_room_for_connections(settings, 1, 3)
    assert one + 2 * (settings.read_pool_max + OTHERS_OF_EACH) == raised[-1][0]
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 2000))
    with pytest.raises(ConfigurationError, match=r"set GATEWAY_CONNECTIONS_MAX to at most \d+"):
        make_room_for_connections(settings, 3)


async def limited_gateway(**environment: str) -> asyncio.subprocess.Process:
    """A gateway's process with 256 open files."""
    code = (
        "import resource, runpy, sys\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))\n"
        "sys.argv = ['gateways', 'users', '--port', '0']\n"
        "runpy.run_module('gateways', run_name='__main__')\n"
    )
    variables = {"PATH": os.environ["PATH"], **AWAY, **environment}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        code,
        cwd=ROOT,
        env=variables,
        stdout=PIPE,
        stderr=PIPE,
        preexec_fn=die_with_parent(signal.SIGKILL),
    )


async def test_a_configuration_that_cannot_fit_is_said_in_words() -> None:
    code, stderr = await ended(await limited_gateway())
    assert code == 2
    assert f"at most {FITTING}" in stderr
    assert "Traceback" not in stderr


async def test_three_hundred_slow_heads_keep_nobody_from_being_served() -> None:
    process = await limited_gateway(GATEWAY_CONNECTIONS_MAX=str(FITTING), GATEWAY_HEAD_TIMEOUT_S="2")
    try:
        port = await port_of(process)

        async def attack() -> None:
            while True:
                with suppress(OSError):
                    async with connected(port) as client:
                        await trickle(client, 0.2)

        attackers = [asyncio.create_task(attack()) for _ in range(300)]
        await asyncio.sleep(1.0)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", timeout=aiohttp.ClientTimeout(5)) as session:
            for _ in range(40):
                async with session.get("/healthz", headers={"Connection": "close"}) as response:
                    assert response.status == 200
            gave_way = 'coordinator_gateway_connections_ended_total{reason="gave_way"'
            async with asyncio.timeout(30):
                # On a busy machine the attackers take a while until they have all places.
                while gave_way not in await (await session.get("/metrics")).text():
                    pass
        for attacker in attackers:
            attacker.cancel()
        await asyncio.gather(*attackers, return_exceptions=True)
    finally:
        process.send_signal(signal.SIGTERM)
        code, stderr = await ended(process)
    assert code == 0, stderr
    assert "Traceback" not in stderr
    lines = stderr.splitlines()
    assert 0 < sum('"connections_ended"' in line for line in lines) <= 4  # one of each reason
    assert not any("cannot_accept" in line for line in lines)
