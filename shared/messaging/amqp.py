"""pika's asyncio adapter, awaitable: connections, channels and declarations.

A consumer of a lane never closes its connection in the protocol's way and never cancels, nacks or rejects: RabbitMQ
would put what it has not acknowledged back in another order. It ends by `abort`, which leaves the socket as a crash
would; the broker then requeues in order.
"""

import asyncio
import struct
from collections.abc import Callable, Sequence
from typing import Any, cast

import pika
import pika.frame
import pika.spec
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import Channel
from pika.exceptions import AMQPError, InvalidFrameError, StreamLostError

from shared.effects import effects_key
from shared.errors import BrokerUnavailable, ConfigurationError
from shared.messaging.streams import LoopStreams
from shared.messaging.topology import (
    DEAD_EXCHANGE,
    SYSTEM_EXCHANGE,
    WRITES_EXCHANGE,
    dead_queue_arguments,
    dead_queue_name,
    effects_queue_arguments,
    queue_arguments,
    queue_name,
)
from shared.messaging.wire import HEADER_MALFORMED
from shared.settings import BrokerSettings

_PRECONDITION_FAILED = 406
_ACCESS_REFUSED = 403
_CONTENT = (pika.frame.Header, pika.frame.Body)


class _Connection(AsyncioConnection):  # type: ignore[misc]  # pika has no types
    def _read_frame(self) -> tuple[int, Any]:
        """A frame; one of properties that pika cannot decode becomes one that says so.

        Anybody may publish, and pika raises on some headers that AMQP allows (an infinite float, a date beyond year
        9999, a type it does not know). The exception would end this connection and each one after it, at the same
        message, and with them the lane.
        """
        try:
            return cast("tuple[int, Any]", super()._read_frame())
        except InvalidFrameError:
            raise
        except Exception:
            kind, channel, size = struct.unpack_from(">BHL", self._frame_buffer)
            if kind != pika.spec.FRAME_HEADER:
                raise
            content = self._frame_buffer[pika.spec.FRAME_HEADER_SIZE :][:size]
            _, _, body_size = struct.unpack_from(">HHQ", content)
            properties = pika.BasicProperties(headers={HEADER_MALFORMED: bytes(content[12:]).hex()[:1000]})
            consumed = pika.spec.FRAME_HEADER_SIZE + size + pika.spec.FRAME_END_SIZE
            return consumed, pika.frame.Header(channel, body_size, properties)

    def _process_frame(self, frame_value: Any) -> None:
        """A frame of a message goes to its channel at once: pika would first look for callbacks that none can have."""
        if isinstance(frame_value, _CONTENT) or isinstance(
            getattr(frame_value, "method", None), pika.spec.Basic.Deliver
        ):
            self.frames_received += 1
            self._deliver_frame_to_channel(frame_value)
        else:
            super()._process_frame(frame_value)

    def _output_marshaled_frames(self, marshaled_frames: Sequence[bytes]) -> None:
        """Hand the frames of one message over as one, so that no loop sends them one by one."""
        super()._output_marshaled_frames([b"".join(marshaled_frames)])

    def abort(self) -> None:
        """Drop the socket without a word."""
        if self._transport is not None:
            self._terminate_stream(StreamLostError("aborted by us"))


class AmqpConnection:
    """One open connection. `lost` is done, with the reason, once it is open no more."""

    def __init__(self, connection: _Connection, lost: "asyncio.Future[BaseException]") -> None:
        self._connection = connection
        self.lost = lost
        self.is_blocked = False
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)

    @classmethod
    async def open(cls, settings: BrokerSettings, name: str) -> "AmqpConnection":
        """Connect; `name` shows in RabbitMQ's management. Raises BrokerUnavailable."""
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = loop.create_future()
        lost: asyncio.Future[BaseException] = loop.create_future()

        def on_open(_: Any) -> None:
            if not opened.done():
                opened.set_result(None)

        def on_open_error(_: Any, error: BaseException | str) -> None:
            if not opened.done():
                opened.set_exception(BrokerUnavailable(f"RabbitMQ cannot be reached: {_reason(error)}"))

        def on_close(_: Any, reason: BaseException) -> None:
            if not lost.done():
                lost.set_result(reason)

        connection = _Connection(
            _parameters(settings, name),
            on_open_callback=on_open,
            on_open_error_callback=on_open_error,
            on_close_callback=on_close,
            custom_ioloop=LoopStreams(loop),
        )
        try:
            async with asyncio.timeout(settings.connect_timeout_s):
                await opened
        except TimeoutError:
            connection.abort()
            raise BrokerUnavailable(f"RabbitMQ did not answer within {settings.connect_timeout_s} s") from None
        return cls(connection, lost)

    async def channel(self) -> "AmqpChannel":
        """Open a channel. Raises BrokerUnavailable when the connection is lost meanwhile."""
        opened: asyncio.Future[Channel] = asyncio.get_running_loop().create_future()
        self._connection.channel(on_open_callback=lambda channel: _settle(opened, channel))
        return AmqpChannel(await self._first(opened), self)

    def abort(self) -> None:
        """Drop the socket: what was not acknowledged is requeued in order."""
        if not self.lost.done():
            self._connection.abort()

    async def close(self) -> None:
        """Close in the protocol's way: for connections that only publish."""
        if not self.lost.done():
            try:
                self._connection.close()
            except AMQPError:
                self._connection.abort()
            await asyncio.wait({self.lost}, timeout=1.0)
            self.abort()

    async def _first(self, answer: "asyncio.Future[Any]") -> Any:
        """The answer, or BrokerUnavailable if the connection is lost before it comes."""
        await asyncio.wait({answer, self.lost}, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        raise BrokerUnavailable(f"the connection to RabbitMQ was lost: {_reason(self.lost.result())}")

    def _on_blocked(self, *_: Any) -> None:
        self.is_blocked = True

    def _on_unblocked(self, *_: Any) -> None:
        self.is_blocked = False


class AmqpChannel:
    """One open channel; `raw` is pika's. A channel that the broker closes takes its connection with it."""

    def __init__(self, raw: Channel, connection: AmqpConnection) -> None:
        self.raw = raw
        self._connection = connection
        self._closed: BaseException | None = None
        self._waiting: asyncio.Future[Any] | None = None
        raw.add_on_close_callback(self._on_close)

    async def call(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Call a method of `raw` that takes a callback, and wait for its answer.

        Raises ConfigurationError when the broker refuses for good, BrokerUnavailable otherwise.
        """
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting = answer
        try:
            method(*arguments, callback=lambda frame: _settle(answer, frame), **options)
            return await self._connection._first(answer)  # noqa: SLF001
        except AMQPError as error:
            raise BrokerUnavailable(f"RabbitMQ: {_reason(error)}") from error
        finally:
            self._waiting = None

    async def declare_exchanges(self) -> None:
        """Declare the exchanges of the whole system: whoever comes first finds them."""
        for exchange in (WRITES_EXCHANGE, SYSTEM_EXCHANGE, DEAD_EXCHANGE):
            await self.call(self.raw.exchange_declare, exchange=exchange, exchange_type="direct", durable=True)

    async def declare_lane(self, lane: str, bytes_max: int) -> None:
        """Declare the exchanges and queues of a lane, which takes what is said publicly and what the system says.

        Raises ConfigurationError when one exists with other arguments.
        """
        await self.declare_exchanges()
        await self._declare_queue(dead_queue_name(lane), dead_queue_arguments(), (DEAD_EXCHANGE,), lane)
        arguments = queue_arguments(lane, bytes_max)
        await self._declare_queue(queue_name(lane), arguments, (WRITES_EXCHANGE, SYSTEM_EXCHANGE), lane)

    async def declare_effects(self, service: str, bytes_max: int) -> None:
        """Declare the exchanges and queues of a service's effects, which only the system may ask for.

        Raises ConfigurationError when one exists with other arguments.
        """
        key = effects_key(service)
        await self.declare_exchanges()
        await self._declare_queue(dead_queue_name(key), dead_queue_arguments(), (DEAD_EXCHANGE,), key)
        await self._declare_queue(queue_name(key), effects_queue_arguments(bytes_max), (SYSTEM_EXCHANGE,), key)
        # Earlier releases bound it there, and RabbitMQ keeps a binding until somebody removes it.
        await self.call(self.raw.queue_unbind, queue=queue_name(key), exchange=WRITES_EXCHANGE, routing_key=key)

    async def _declare_queue(
        self, queue: str, arguments: dict[str, str | int | bool], exchanges: Sequence[str], key: str
    ) -> None:
        await self.call(self.raw.queue_declare, queue=queue, durable=True, arguments=arguments)
        for exchange in exchanges:
            await self.call(self.raw.queue_bind, queue=queue, exchange=exchange, routing_key=key)

    def _on_close(self, _: Any, reason: BaseException) -> None:
        waiting = self._waiting
        if waiting is not None and not waiting.done():
            code = getattr(reason, "reply_code", None)
            if code in (_PRECONDITION_FAILED, _ACCESS_REFUSED):
                waiting.set_exception(ConfigurationError(f"RabbitMQ refuses: {_reason(reason)}"))
            else:
                waiting.set_exception(BrokerUnavailable(f"RabbitMQ closed the channel: {_reason(reason)}"))
        self._connection.abort()


def _parameters(settings: BrokerSettings, name: str) -> pika.URLParameters:
    try:
        parameters = pika.URLParameters(settings.url)
    except (ValueError, TypeError, AMQPError) as error:
        raise ConfigurationError(f"AMQP_URL is not an AMQP address: {error}") from None
    parameters.heartbeat = settings.heartbeat_s
    parameters.socket_timeout = settings.connect_timeout_s
    parameters.stack_timeout = settings.connect_timeout_s
    parameters.connection_attempts = 1
    parameters.client_properties = {"connection_name": name}
    return parameters


def _settle(future: "asyncio.Future[Any]", value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _reason(error: BaseException | str) -> str:
    """pika nests the reason; the innermost one says most."""
    if isinstance(error, BaseException):
        nested = [inner for inner in error.args if isinstance(inner, BaseException)] + [
            inner for inner in getattr(error, "exceptions", ()) if isinstance(inner, BaseException)
        ]
        if nested:
            return _reason(nested[-1])
        return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return str(error)
