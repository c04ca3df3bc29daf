"""pika on the loop's transports: what pika is told, and when."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pika.adapters.utils.nbio_interface import AbstractStreamProtocol

from coordinator.runtime.settings import BrokerSettings
from coordinator.transports.rabbitmq.amqp import AmqpConnection
from coordinator.transports.rabbitmq.streams import FEED_BYTES_MAX, LoopStreams

WITHIN_S = 10.0
LOOPS = (asyncio.new_event_loop, uvloop.new_event_loop)
NewLoop = Callable[[], asyncio.AbstractEventLoop]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Recorder(AbstractStreamProtocol):  # type: ignore[misc]  # pika has no types
    """Notes what it is told; `fault` is raised when data comes."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.transport: Any = None
        self.pieces: list[bytes] = []
        self.has_eof = False
        self.lost: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        self._fault = fault

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)
        if self._fault is not None:
            raise self._fault

    def eof_received(self) -> bool:
        self.has_eof = True
        return False

    def connection_lost(self, error: BaseException | None) -> None:
        self.lost.set_result(error)


def _same(recorder: Recorder) -> Recorder:
    return recorder


async def connected(port: int, recorder: Recorder, context: ssl.SSLContext | None = None) -> None:
    """Link a connected socket, as pika's workflow does."""
    loop = asyncio.get_running_loop()
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setblocking(False)
    done: asyncio.Future[Any] = loop.create_future()
    LoopStreams(loop).create_streaming_connection(lambda: recorder, sock, done.set_result, context, "localhost")
    result = await done
    if isinstance(result, BaseException):
        raise result
    assert result == (recorder.transport, recorder)


def run(
    new_loop: NewLoop,
    serve: Serve,
    test: Callable[[int], Awaitable[None]],
    context: ssl.SSLContext | None = None,
) -> None:
    """Run a test against a server that serves each connection so."""

    async def main() -> None:
        taken: list[asyncio.StreamWriter] = []

        async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            taken.append(writer)
            try:
                await serve(reader, writer)
            finally:
                writer.close()

        server = await asyncio.start_server(served, "127.0.0.1", 0, ssl=context)
        async with server, asyncio.timeout(WITHIN_S):
            try:
                await test(server.sockets[0].getsockname()[1])
            finally:
                # From Python 3.12 on a server waits for its connections, and one that does not read sees no end.
                for writer in taken:
                    writer.transport.abort()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


async def echo_and_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.readexactly(10_000))
    await writer.drain()


async def say_hello_and_wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello")
    await reader.read()


async def read_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    reader._transport.pause_reading()  # type: ignore[attr-defined]
    with suppress(ConnectionError):
        await reader.read()


@pytest.fixture(params=LOOPS, ids=("asyncio", "uvloop"))
def new_loop(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    return request.param  # type: ignore[no-any-return]


def test_bytes_go_both_ways_in_pieces_that_pika_can_parse_fast(new_loop: NewLoop) -> None:
    async def test(port: int) -> None:
        recorder = Recorder()
        await connected(port, recorder)
        for start in range(0, 10_000, 1000):
            recorder.transport.write(bytes([start // 1000]) * 1000)
        # The server ends the connection.
        assert await recorder.lost is None
        assert recorder.has_eof
        assert b"".join(recorder.pieces) == b"".join(bytes([n]) * 1000 for n in range(10))
        assert max(map(len, recorder.pieces)) <= FEED_BYTES_MAX
        recorder.transport.write(b"too late")
        recorder.transport.abort()

    run(new_loop, echo_and_end, test)


def test_an_aborted_stream_is_lost_a_turn_later_and_without_an_error(new_loop: NewLoop) -> None:
    async def test(port: int) -> None:
        recorder = Recorder()
        await connected(port, recorder)
        recorder.transport.abort()
        assert not recorder.lost.done()
        assert await recorder.lost is None

    run(new_loop, say_hello_and_wait, test)


def test_what_pika_cannot_take_ends_the_stream_and_pika_is_told_why(new_loop: NewLoop) -> None:
    async def test(port: int) -> None:
        recorder = Recorder(ValueError("not a frame"))
        await connected(port, recorder)
        error = await recorder.lost
        assert isinstance(error, ValueError)
        assert recorder.pieces == [b"hello"]

    run(new_loop, say_hello_and_wait, test)


def test_a_stream_that_is_not_wanted_any_more_is_not_reported(new_loop: NewLoop) -> None:
    async def test(port: int) -> None:
        loop = asyncio.get_running_loop()
        for turns in range(6):
            sock = socket.create_connection(("127.0.0.1", port))
            sock.setblocking(False)
            recorder = Recorder()
            reported: list[object] = []
            linking = LoopStreams(loop).create_streaming_connection(partial(_same, recorder), sock, reported.append)
            for _ in range(turns):
                await asyncio.sleep(0)
            is_cancelled = linking.cancel()
            assert is_cancelled != bool(reported)
            assert not linking.cancel()
            if reported:
                recorder.transport.abort()
            if recorder.transport is not None:
                # What came too late to be prevented is ended.
                await recorder.lost
            assert len(reported) == (not is_cancelled)

    run(new_loop, say_hello_and_wait, test)


def test_tls_is_the_loop_s_and_checks_the_server_s_name(new_loop: NewLoop, tmp_path: Path) -> None:
    serving, trusting = _contexts(tmp_path, "localhost")

    async def test(port: int) -> None:
        recorder = Recorder()
        await connected(port, recorder, trusting)
        recorder.transport.write(b"x" * 10_000)
        await recorder.lost
        assert b"".join(recorder.pieces) == b"x" * 10_000

    run(new_loop, echo_and_end, test, serving)


def test_a_server_of_another_name_is_refused(new_loop: NewLoop, tmp_path: Path) -> None:
    serving, trusting = _contexts(tmp_path, "elsewhere")

    async def test(port: int) -> None:
        with pytest.raises(ssl.SSLCertVerificationError):
            await connected(port, Recorder(), trusting)

    run(new_loop, echo_and_end, test, serving)


def _contexts(directory: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a certificate of its own making, and that of a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = directory / "server.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(path)
    return serving, ssl.create_default_context(cadata=certificate.public_bytes(serialization.Encoding.PEM).decode())


@pytest.mark.parametrize("new_loop", LOOPS)
def test_an_attempt_is_gone_whenever_it_is_given_up(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """To a server that takes connections and says nothing; given up after any number of the loop's turns."""
    accepted: list[asyncio.Task[None]] = []
    complaints: list[object] = []
    took = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        ended = asyncio.current_task()
        assert ended is not None
        accepted.append(ended)
        took.set()
        while await reader.read(100):
            pass

    async def test(port: int) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        settings = BrokerSettings(url=f"amqp://127.0.0.1:{port}", connect_timeout_s=WITHIN_S)
        for turns in [*range(25), 40, 80]:
            for _ in range(3):
                attempt = asyncio.create_task(AmqpConnection.open(settings, "test"))
                for _ in range(turns):
                    await asyncio.sleep(0)
                attempt.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await attempt
        await asyncio.gather(*accepted, return_exceptions=True)
        took.clear()
        last = asyncio.create_task(AmqpConnection.open(settings, "test"))
        await took.wait()
        last.cancel()
        with pytest.raises(asyncio.CancelledError):
            await last
        async with asyncio.timeout(WITHIN_S):
            await asyncio.gather(*accepted, return_exceptions=True)

    run(new_loop, say_nothing, test)
    assert complaints == []


def test_what_a_peer_does_not_read_is_counted(new_loop: NewLoop) -> None:
    async def test(port: int) -> None:
        recorder = Recorder()
        await connected(port, recorder)
        piece, pieces = bytes(1 << 20), 64
        for _ in range(pieces):
            recorder.transport.write(piece)
        # Less what the two sockets hold.
        assert 32 * len(piece) < recorder.transport.get_write_buffer_size() <= pieces * len(piece)
        recorder.transport.abort()
        await recorder.lost

    run(new_loop, read_nothing, test)
