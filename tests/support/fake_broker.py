"""A broker in memory, for pika: no sockets, and it misbehaves as it is told to.

It speaks AMQP in bytes, so that what pika does with them is tested too. `install` puts it behind every connection that
coordinator/transports/rabbitmq opens, in whatever thread.
"""

import asyncio
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from msgspec import Struct
from pika import spec
from pika.adapters.utils.nbio_interface import AbstractIOReference, AbstractStreamTransport
from pika.frame import Header, Method

from coordinator.transports.rabbitmq.direct_reply import DIRECT_REPLY
from coordinator.transports.rabbitmq.streams import LoopStreams

SERVER = {
    "product": "RabbitMQ",
    "capabilities": {
        "publisher_confirms": True,
        "basic.nack": True,
        "consumer_cancel_notify": True,
        "connection.blocked": True,
        "authentication_failure_close": True,
    },
}
FRAME_MAX = 8192
UP = "up"
"""The step at which a connection is all set up: nothing more is asked."""


OWN_ADDRESS = "amq.rabbitmq.reply-to.g1h2AA5yZXBseUA3ODUzMTM0OAAAAuwAAAAAawgq+A==.lVJ9ftPNBVwmajfn7+1JvA=="
"""As RabbitMQ 3.10 makes them."""


class Published(Struct, frozen=True):
    """A message that came on a channel."""

    exchange: str
    routing_key: str
    headers: dict[str, Any]
    body: bytes


class Stream(AbstractStreamTransport):  # type: ignore[misc]  # pika has no types
    """One connection, seen from pika as its transport."""

    def __init__(self, broker: "FakeBroker", protocol: Any) -> None:
        self.broker = broker
        self.name = ""
        self.is_closed = False
        self.seen: Counter[str] = Counter()
        self.consumers: dict[str, tuple[int, str]] = {}
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._tags: dict[int, int] = {}
        self._content: dict[int, tuple[Any, Any, int, bytes]] = {}
        self.is_silent = False
        self.is_stuck = False
        """What is written stays unsent, as on a socket of a broker that does not read."""
        self.unsent_bytes = 0

    def get_protocol(self) -> Any:
        return self._protocol

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def abort(self) -> None:
        self.lose(None)

    def lose(self, error: Exception | None) -> None:
        """As a lost socket does."""
        if not self.is_closed:
            self.is_closed = True
            self.broker.closed += 1
            self._loop.call_soon(self._protocol.connection_lost, error)

    def end(self) -> None:
        """As a peer that closes its side."""

        def feed() -> None:
            if not self.is_closed:
                self._protocol.eof_received()
                self.lose(None)

        self._loop.call_soon(feed)

    def send(self, *frames: tuple[int, Any] | bytes) -> None:
        """Have pika read these in one piece."""
        data = b"".join(each if isinstance(each, bytes) else Method(*each).marshal() for each in frames)

        def feed() -> None:
            if self.is_closed:
                return
            try:
                self._protocol.data_received(data)
            except Exception as error:  # noqa: BLE001  # as our own transport does
                self.lose(error)

        self._loop.call_soon(feed)

    def send_threadsafe(self, *frames: tuple[int, Any] | bytes) -> None:
        """`send` from a test whose connection lives in another thread."""
        self._loop.call_soon_threadsafe(self.send, *frames)

    def call_threadsafe(self, call: Callable[..., None], *arguments: Any) -> None:
        """Anything else, in the connection's thread."""
        self._loop.call_soon_threadsafe(call, *arguments)

    def write(self, data: bytes) -> None:
        if self.is_stuck:
            self.unsent_bytes += len(data)
            return
        self._buffer += data
        if self._buffer.startswith(b"AMQP"):
            self._buffer = self._buffer[8:]
            start = spec.Connection.Start(server_properties=SERVER, mechanisms="PLAIN", locales="en_US")
            self._answer("AMQP", 0, (0, start))
        while len(self._buffer) >= 7:
            kind, channel, size = struct.unpack_from(">BHL", self._buffer)
            if len(self._buffer) < size + 8:
                return
            assert size + 8 <= FRAME_MAX or not self.seen["Connection.TuneOk"], "a frame larger than was agreed"
            payload, self._buffer = self._buffer[7 : 7 + size], self._buffer[8 + size :]
            if kind == spec.FRAME_METHOD:
                self._on_method(channel, payload)
            elif kind == spec.FRAME_HEADER:
                properties = spec.BasicProperties()
                properties.decode(payload[12:])
                (length,) = struct.unpack_from(">Q", payload, 4)
                self._content[channel] = (self._content[channel][0], properties, length, b"")
                self._on_body(channel, b"")
            elif kind == spec.FRAME_BODY:
                self._on_body(channel, payload)

    def _on_method(self, channel: int, payload: bytes) -> None:
        (number,) = struct.unpack_from(">I", payload)
        method: Any = spec.methods[number]()
        method.decode(payload, 4)
        if isinstance(method, spec.Connection.StartOk):
            self.name = method.client_properties["connection_name"]
        if isinstance(method, spec.Basic.Publish):
            self._content[channel] = (method, None, 0, b"")
            return
        if isinstance(method, spec.Connection.Close):
            self.send((0, spec.Connection.CloseOk()))
        elif isinstance(method, spec.Channel.Close):
            self.send((channel, spec.Channel.CloseOk()))
        elif isinstance(method, spec.Basic.Ack):
            self.broker.acknowledged.append(method.delivery_tag)
        elif not isinstance(method, spec.Connection.TuneOk | spec.Channel.CloseOk):
            if isinstance(method, spec.Confirm.Select):
                self._tags[channel] = 0
            if isinstance(method, spec.Basic.Consume):
                self.consumers[method.consumer_tag] = channel, method.queue
            self._answer(method.NAME, channel, (channel, _ANSWERS[type(method)](method)))
        else:
            self.seen[method.NAME] += 1

    def _on_body(self, channel: int, piece: bytes) -> None:
        method, properties, length, body = self._content[channel]
        body += piece
        self._content[channel] = method, properties, length, body
        if len(body) < length:
            return
        if method.mandatory and properties.reply_to == DIRECT_REPLY:
            self._answer("Basic.Return", channel, _returned(channel, method, OWN_ADDRESS))
            return
        message = Published(method.exchange, method.routing_key, dict(properties.headers or {}), body)
        if channel in self._tags:
            self._tags[channel] += 1
        self.broker.published.append(message)
        self.broker.on_published(self, channel, self._tags.get(channel), message)

    def _answer(self, step: str, channel: int, answer: tuple[int, Any] | bytes) -> None:
        self.seen[step] += 1
        self.broker.answer(self, step, channel, answer)


class FakeBroker:
    """Counts connections; `answer` and `on_published` are what a test replaces."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.closed = 0
        self.published: list[Published] = []
        self.acknowledged: list[int] = []
        self._faults: dict[tuple[str, str], list[Callable[[Stream, int, Any], None]]] = {}
        self.on_published: Callable[[Stream, int, int | None, Published], None] = confirm

    @property
    def made(self) -> int:
        return len(self.streams)

    def of(self, name: str) -> list[Stream]:
        """The connections whose name ends so, in the order in which they were made."""
        return [stream for stream in self.streams if stream.name.endswith(name)]

    def plan(self, name: str, step: str, fault: Callable[[Stream, int, Any], None], times: int = 1) -> None:
        """The next times that a connection of this name comes to this step, do this instead of answering."""
        self._faults[name, step] = [fault] * times

    def answer(self, stream: Stream, step: str, channel: int, answer: tuple[int, Any] | bytes) -> None:
        """Answer, or do what is planned."""
        if stream.is_silent:
            return
        for (name, planned), faults in self._faults.items():
            # Before it says its name, any of them is meant.
            if planned == step and faults and (stream.name.endswith(name) or not stream.name):
                faults.pop()(stream, channel, answer)
                return
        stream.send(answer)


def confirm(stream: Stream, channel: int, tag: int | None, _: Published) -> None:
    """Take a message."""
    if tag is not None and not stream.is_silent:
        stream.send((channel, spec.Basic.Ack(tag)))


@contextmanager
def fake_broker() -> Iterator[FakeBroker]:
    """Every connection that is opened meanwhile is to this broker."""
    broker, lock = FakeBroker(), threading.Lock()

    def connect_socket(_: Any, __: Any, ___: Any, on_done: Callable[[None], None]) -> AbstractIOReference:
        return _Later(on_done, None)

    def create(
        _: Any, protocol_factory: Callable[[], Any], sock: Any, on_done: Callable[[Any], None], **__: Any
    ) -> AbstractIOReference:
        sock.close()
        protocol = protocol_factory()
        stream = Stream(broker, protocol)
        with lock:
            broker.streams.append(stream)

        def begin() -> None:
            protocol.connection_made(stream)
            on_done((stream, protocol))

        return _Later(begin, on_cancel=stream.abort)

    with (
        patch.object(LoopStreams, "connect_socket", connect_socket, create=True),
        patch.object(LoopStreams, "create_streaming_connection", create),
    ):
        yield broker


class _Later(AbstractIOReference):  # type: ignore[misc]  # pika has no types
    def __init__(self, call: Callable[..., None], *arguments: Any, on_cancel: Callable[[], None] | None = None) -> None:
        self._on_cancel = on_cancel
        self._handle = asyncio.get_running_loop().call_soon(call, *arguments)

    def cancel(self) -> bool:
        self._handle.cancel()
        if self._on_cancel is not None:
            self._on_cancel()
        return True


_ANSWERS: dict[type[Any], Callable[[Any], Any]] = {
    spec.Connection.StartOk: lambda _: spec.Connection.Tune(2047, FRAME_MAX, 60),
    spec.Connection.Open: lambda _: spec.Connection.OpenOk(),
    spec.Channel.Open: lambda _: spec.Channel.OpenOk(),
    spec.Queue.Declare: lambda method: spec.Queue.DeclareOk(method.queue, 0, 0),
    spec.Queue.Bind: lambda _: spec.Queue.BindOk(),
    spec.Queue.Unbind: lambda _: spec.Queue.UnbindOk(),
    spec.Exchange.Declare: lambda _: spec.Exchange.DeclareOk(),
    spec.Basic.Qos: lambda _: spec.Basic.QosOk(),
    spec.Basic.Consume: lambda method: spec.Basic.ConsumeOk(method.consumer_tag),
    spec.Basic.Cancel: lambda method: spec.Basic.CancelOk(method.consumer_tag),
    spec.Confirm.Select: lambda _: spec.Confirm.SelectOk(),
}


def _returned(channel: int, method: Any, reply_to: str) -> bytes:
    frames = (
        Method(channel, spec.Basic.Return(312, "NO_ROUTE", method.exchange, method.routing_key)),
        Header(channel, 0, spec.BasicProperties(reply_to=reply_to)),
    )
    return b"".join(frame.marshal() for frame in frames)


def close_connection(code: int = 320, text: str = "CONNECTION_FORCED - it was closed") -> tuple[int, Any]:
    return 0, spec.Connection.Close(code, text, 0, 0)


def close_channel(channel: int, code: int, text: str) -> tuple[int, Any]:
    return channel, spec.Channel.Close(code, text, 0, 0)
