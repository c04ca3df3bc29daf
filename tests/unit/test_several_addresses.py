"""A name that has several addresses, of which the first one is silent: each connection comes to the second one."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any

import pytest
from psycopg.errors import OperationalError

from coordinator.runtime.event_loop import new_event_loop
from coordinator.runtime.settings import BrokerSettings
from coordinator.runtime.several_addresses import first_connected
from coordinator.service.errors import BrokerUnavailable
from coordinator.stores.postgresql.reading import PromptConnection
from coordinator.transports.rabbitmq.amqp import AmqpConnection
from coordinator.transports.rabbitmq.streams import LoopStreams

NAME = "several.example"
SILENT, ALIVE, REFUSING = "127.0.0.9", "127.0.0.1", "127.0.0.8"
WITHIN_S = 4.0
"""A read of a gateway may take 5 s, and so may a connection to the broker."""


@contextmanager
def silent_at(port: int) -> Iterator[None]:
    """An address that answers no attempt to connect, as a machine that is gone."""
    with ExitStack() as stack, socket.socket() as server:
        server.bind((SILENT, port))
        server.listen(0)
        for _ in range(4):
            # Once its queue is full the kernel answers nobody.
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with suppress(BlockingIOError):
                waiting.connect((SILENT, port))
        yield


def found(port: Any, *addresses: str) -> list[Any]:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port or 0))) for address in addresses]


@asynccontextmanager
async def answering() -> AsyncIterator[tuple[int, "asyncio.Future[bytes]"]]:
    """A server at the second address: its port, and what it was sent first."""
    sent: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.read(100)
        if not sent.done():
            sent.set_result(first)
        writer.close()

    async with await asyncio.start_server(serve, ALIVE, 0) as server:
        port = server.sockets[0].getsockname()[1]
        with silent_at(port):
            yield port, sent


@pytest.fixture
def resolving(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a loop of asyncio's, and all that asks the C library by way of Python, finds the name."""
    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        return found(port, SILENT, ALIVE) if host == NAME else real(host, port, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


def test_our_loop_connects_to_the_first_address_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = new_event_loop()

    async def resolve(_: object, host: str, port: Any, **options: Any) -> Any:
        return found(port, *(REFUSING, SILENT, ALIVE) if host == NAME else (host,))

    monkeypatch.setattr(type(loop), "getaddrinfo", resolve)

    async def connect() -> None:
        async with answering() as (port, sent):
            _, writer = await asyncio.wait_for(asyncio.open_connection(NAME, port), WITHIN_S)
            writer.write(b"hello")
            assert await asyncio.wait_for(sent, WITHIN_S) == b"hello"
            writer.close()

    try:
        loop.run_until_complete(connect())
    finally:
        loop.close()


def test_all_addresses_that_refuse_are_named() -> None:
    async def connect() -> None:
        with socket.socket() as unused:
            unused.bind(("", 0))
            addresses = found(unused.getsockname()[1], REFUSING, ALIVE)
            with pytest.raises(OSError, match=rf"{REFUSING}.*{ALIVE}"):
                await first_connected(asyncio.get_running_loop(), addresses)

    asyncio.run(connect())


@pytest.mark.usefixtures("resolving")
def test_rabbitmq_is_reached_at_the_second_address() -> None:
    async def connect() -> None:
        async with answering() as (port, sent):
            settings = BrokerSettings(url=f"amqp://guest:guest@{NAME}:{port}/")
            began_s = time.monotonic()
            with pytest.raises(BrokerUnavailable, match=r"(?i)lost|closed|eof"):
                await AmqpConnection.open(settings, "test")
            assert (await sent).startswith(b"AMQP")
            assert time.monotonic() - began_s < WITHIN_S

    asyncio.run(connect())


def test_rabbitmq_is_not_asked_at_an_address_of_a_family_without_sockets() -> None:
    async def resolve() -> None:
        loop = asyncio.get_running_loop()
        streams, done = LoopStreams(loop), loop.create_future()
        unknown = (99, socket.SOCK_STREAM, 6, "", ("::1", 1))

        async def resolved(*_: object, **__: object) -> Any:
            return [unknown, *found(1, ALIVE)]

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(loop, "getaddrinfo", resolved)
            streams.getaddrinfo(NAME, 1, on_done=done.set_result)
            assert await done == found(1, ALIVE)

    asyncio.run(resolve())


@pytest.mark.usefixtures("resolving")
def test_postgresql_is_read_at_the_second_address() -> None:
    async def connect() -> None:
        async with answering() as (port, sent):
            with pytest.raises(OperationalError):
                await PromptConnection.connect(host=NAME, port=port, user="nobody", connect_timeout=5)
            # It asks for TLS, or for a database.
            assert len(await asyncio.wait_for(sent, 0)) >= 8

    began_s = time.monotonic()
    asyncio.run(connect())
    assert time.monotonic() - began_s < WITHIN_S
