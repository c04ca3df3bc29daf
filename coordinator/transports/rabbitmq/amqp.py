"""pika's asyncio adapter, awaitable: connections, channels, consumers and declarations.

A consumer of a lane never closes its connection in the protocol's way and never cancels, nacks or rejects: RabbitMQ
would put its unacknowledged messages back in another order. It ends by `abort`, which leaves the socket as a crash
would; the broker then requeues in order.

`lost` is done however a connection ends, or a channel or a consumer of it: a closed connection never looks open.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import pika
from pika.channel import Channel
from pika.exceptions import AMQPError, ChannelClosedByBroker

from coordinator.runtime.awaited import Late
from coordinator.runtime.settings import BrokerSettings
from coordinator.service.errors import BrokerUnavailable, ConfigurationError
from coordinator.service.outside_calls import effects_key
from coordinator.transports.rabbitmq.direct_reply import DIRECT_REPLY, DirectReplies
from coordinator.transports.rabbitmq.driver_arguments import broker_address, broker_parameters
from coordinator.transports.rabbitmq.errors import channel_closed, connection_lost, not_connected, refused
from coordinator.transports.rabbitmq.nodes import NodesInTurn
from coordinator.transports.rabbitmq.pika_connection import PikaConnection
from coordinator.transports.rabbitmq.pulse import Pulse
from coordinator.transports.rabbitmq.streams import LoopStreams
from coordinator.transports.rabbitmq.topology import (
    DEAD_EXCHANGE,
    SYSTEM_EXCHANGE,
    WRITES_EXCHANGE,
    dead_queue_arguments,
    dead_queue_name,
    effects_queue_arguments,
    mark_queue_arguments,
    mark_queue_name,
    queue_arguments,
    queue_name,
)

ANSWER_TIMEOUT_S = 30.0
"""How long the broker may take to answer one method, such as the declaration of a queue on a busy cluster."""
NOBODY = "nobody.consumes.this"
"""The routing key of a message that is published only to see whether this user may publish."""
_END_TIMEOUT_S = 1.0
_PIKA_LOG = logging.getLogger("pika")

Callback = Callable[..., Any]


class AmqpConnection:
    """One open connection. `lost` is done once it is no longer open.

    Its result is the reason, a BrokerUnavailable. It raises the unforeseen error of a callback of ours: that is a
    defect, which another connection would meet too.
    """

    def __init__(self, parameters: pika.ConnectionParameters, within_s: float) -> None:
        if _PIKA_LOG.level == logging.NOTSET:
            # pika logs every loss at length, at several places; we log it once, with our reaction.
            _PIKA_LOG.setLevel(logging.CRITICAL)
        self.parameters = parameters
        self.is_blocked = False
        self.lost: asyncio.Future[BrokerUnavailable] = _future()
        self._opened: asyncio.Future[None] = _future()
        self._why: Exception | None = None
        self._pulse: Pulse | None = None
        self._raw = PikaConnection(
            parameters,
            on_open_callback=self._on_open,
            on_open_error_callback=self._on_open_error,
            on_close_callback=self._on_close,
            custom_ioloop=LoopStreams(asyncio.get_running_loop(), within_s),
        )
        # Before it is open: the broker may be blocked from the first moment on.
        self._raw.add_on_connection_blocked_callback(self._on_blocked)
        self._raw.add_on_connection_unblocked_callback(self._on_unblocked)

    @classmethod
    async def open(cls, settings: BrokerSettings, name: str) -> "AmqpConnection":
        """Connect to any node; `name` shows in RabbitMQ's management.

        An attempt that is given up leaves nothing behind. `connect_timeout_s` is the limit of each. Raises
        BrokerUnavailable, and ConfigurationError if another attempt would end in the same way.
        """
        nodes = NodesInTurn(broker_parameters(settings, name))
        for node in nodes:
            try:
                return await cls._open(node, settings.connect_timeout_s, name)
            except (BrokerUnavailable, ConfigurationError) as error:
                nodes.refused(node, error)
        raise nodes.refusal

    @classmethod
    async def _open(cls, node: pika.ConnectionParameters, timeout_s: float, name: str) -> "AmqpConnection":
        connection = cls(node, timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                await connection._opened
        except TimeoutError:
            await connection.end()
            raise BrokerUnavailable(
                f"RabbitMQ at {broker_address(node)} did not answer within {timeout_s:g} s"
            ) from None
        except BaseException:
            await connection.end()
            raise
        pulse = connection._pulse = Pulse(connection._raw, name)
        connection.lost.add_done_callback(lambda _: pulse.stop())
        return connection

    @property
    def late(self) -> Late | None:
        """The answer that shows that the connection lives, if it is late. For any thread."""
        # Under an alarm the broker does not read, which `is_blocked` says.
        return None if self._pulse is None or self.is_blocked else self._pulse.late

    @property
    def unsent_bytes(self) -> int:
        """How many bytes the connection was given that are not yet in the socket."""
        return self._raw.unsent_bytes

    @property
    def server_version(self) -> str:
        """The broker's version, by its own account."""
        return str((self._raw.server_properties or {}).get("version", ""))

    async def channel(self, *, is_beside: bool = False) -> "AmqpChannel":
        """Open a channel; `is_beside`: the connection outlives it. Raises BrokerUnavailable if that fails."""
        opened = _future()
        try:
            raw = self._raw.channel(on_open_callback=lambda _: _resolve(opened, None))
        except AMQPError as error:
            raise self.lost_because(error) from error
        channel = AmqpChannel(raw, self, opened)
        channel.is_beside = is_beside
        await self.answer(opened, "channel.open")
        return channel

    def abort(self) -> None:
        """Drop the socket: unacknowledged messages are requeued in order."""
        if not self.lost.done():
            self._raw.abort()

    def end_because(self, why: Exception) -> None:
        """Drop the socket, for this reason: BrokerUnavailable, or a defect that `lost` is to raise."""
        if self._why is None:
            self._why = why
        self.abort()

    async def end(self) -> None:
        """Drop the socket, and return once it is gone."""
        self.abort()
        await asyncio.wait({self.lost}, timeout=_END_TIMEOUT_S)

    async def close(self) -> None:
        """Close in the protocol's way: for connections that only publish."""
        if self.lost.done():
            return
        try:
            self._raw.close()
            await asyncio.wait({self.lost}, timeout=_END_TIMEOUT_S)
        except AMQPError:
            pass
        finally:
            await self.end()

    def guarded(self, callback: Callback) -> Callback:
        """A callback for pika: its errors end this connection as a defect, and not as a lost stream."""

        def call(*arguments: Any) -> None:
            try:
                callback(*arguments)
            except Exception as error:  # noqa: BLE001  # `lost` raises it
                self.end_because(error)

        return call

    async def answer(self, answer: "asyncio.Future[Any]", what: str) -> Any:
        """The broker's answer. Raises BrokerUnavailable if it does not come, or if the connection is lost first."""
        await asyncio.wait({answer, self.lost}, timeout=ANSWER_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        if self.lost.done():
            raise self.lost.result()
        where = broker_address(self.parameters)
        raise BrokerUnavailable(f"RabbitMQ at {where} did not answer {what} within {ANSWER_TIMEOUT_S:g} s")

    def lost_because(self, error: BaseException) -> BrokerUnavailable:
        """Why the connection is lost, if pika says only that a frame cannot be sent."""
        if self.lost.done() and self.lost.exception() is None:
            return self.lost.result()
        return connection_lost(self.parameters, error)

    def _on_open(self, _: Any) -> None:
        _resolve(self._opened, None)

    def _on_open_error(self, _: Any, error: BaseException | str) -> None:
        refusal = not_connected(self.parameters, self._raw.closed_by_broker or error)
        if not self._opened.done():
            self._opened.set_exception(refusal)
        _resolve(self.lost, BrokerUnavailable(str(refusal)))

    def _on_close(self, _: Any, error: BaseException) -> None:
        why = self._why
        if why is None or isinstance(why, BrokerUnavailable):
            _resolve(self.lost, why or connection_lost(self.parameters, error))
        elif not self.lost.done():
            self.lost.set_exception(why)

    def _on_blocked(self, *_: Any) -> None:
        self.is_blocked = True

    def _on_unblocked(self, *_: Any) -> None:
        self.is_blocked = False


class AmqpChannel:
    """One open channel; `raw` is pika's. One that the broker closes ends its connection, if not `is_beside`."""

    def __init__(self, raw: Channel, connection: AmqpConnection, opened: "asyncio.Future[None]") -> None:
        self.raw = raw
        self._connection = connection
        self._waiting: asyncio.Future[Any] = opened
        self._method = "channel.open"
        self._is_consuming = self.is_beside = False
        raw.add_on_close_callback(self._on_close)

    async def call(self, method: Callback, *arguments: Any, **options: Any) -> Any:
        """Call a method of `raw` that takes a callback, and wait for its answer.

        Raises ConfigurationError if the broker refuses for good, BrokerUnavailable otherwise.
        """
        answer = self._waiting = _future()
        self._method = method.__name__
        try:
            method(*arguments, callback=lambda frame: _resolve(answer, frame), **options)
            return await self._connection.answer(answer, self._method)
        except AMQPError as error:
            raise self._connection.lost_because(error) from error

    async def consume(self, queue: str, on_message: Callback, *, auto_ack: bool = False) -> None:
        """Consume a queue: `on_message` is called with pika's channel, method, properties and body.

        A consumer that the broker ends (its queue was deleted, or from RabbitMQ 4.3 on a delivery was not acknowledged
        for long) takes its connection with it, since pika would only forget it; so does an `on_message` that raises.
        Raises as `call`.
        """
        if not self._is_consuming:
            self._is_consuming = True
            self.raw.add_on_cancel_callback(self._on_cancel)
        # The broker gives this name when it ends a consumer.
        await self.call(
            self.raw.basic_consume,
            queue,
            on_message_callback=self._connection.guarded(on_message),
            auto_ack=auto_ack,
            consumer_tag=queue,
        )

    async def peek(self, queue: str) -> list[bytes]:
        """The messages of a queue, which stay in it: this channel has them until it is closed. Raises as `call`."""
        bodies: list[bytes] = []
        while True:
            answer = self._waiting = _future()
            self._method = "basic_get"
            empty = self._connection.guarded(lambda _, answer=answer: _resolve(answer, None))
            self.raw.add_callback(empty, [pika.spec.Basic.GetEmpty])
            try:
                self.raw.basic_get(queue, lambda *got, answer=answer: _resolve(answer, got[3]), auto_ack=False)
            except AMQPError as error:
                raise self._connection.lost_because(error) from error
            body = await self._connection.answer(answer, self._method)
            if body is None:
                return bodies
            bodies.append(body)

    async def close(self) -> None:
        """Have the broker take back unacknowledged messages. The connection stays."""
        if self.raw.is_open:
            closed = _future()
            self.raw.add_on_close_callback(lambda *_: _resolve(closed, None))
            self.raw.close()
            await self._connection.answer(closed, "channel.close")

    async def direct_replies(self) -> DirectReplies:
        """The way to know direct reply-to addresses of this connection's node.

        This publishes a message that no queue takes and that comes back: the broker has put an address of our own into
        it. Raises as `call`.
        """
        returned = _future()
        on_return = self._connection.guarded(lambda _, __, properties, ___: _resolve(returned, properties.reply_to))
        self.raw.add_on_return_callback(on_return)
        await self.consume(DIRECT_REPLY, _ignore, auto_ack=True)
        properties = pika.BasicProperties(reply_to=DIRECT_REPLY)
        try:
            self.raw.basic_publish("", NOBODY, b"", properties, mandatory=True)
        except AMQPError as error:
            raise self._connection.lost_because(error) from error
        own = await self._connection.answer(returned, "basic.publish")
        await self.call(self.raw.basic_cancel, DIRECT_REPLY)
        return DirectReplies(own, self._connection.server_version)

    async def confirm_publishes(self, exchanges: Sequence[str], on_confirm: Callback, user: str | None = None) -> None:
        """Have publishes confirmed; make sure first that these exchanges exist, and that this user may publish to them.

        This publishes a message that no queue takes, since no other method checks that right, and that the broker knows
        us as `user`: if it is refused, the broker closes the channel instead of answering. Raises as `call`.
        """
        properties = pika.BasicProperties(user_id=user)
        try:
            for exchange in exchanges:
                self.raw.basic_publish(exchange, NOBODY, b"", properties)
        except AMQPError as error:
            raise self._connection.lost_because(error) from error
        await self.call(self.raw.confirm_delivery, self._connection.guarded(on_confirm))

    async def declare_exchanges(self) -> None:
        """Declare the exchanges of the whole system, so that any process may start first."""
        for exchange in (WRITES_EXCHANGE, SYSTEM_EXCHANGE, DEAD_EXCHANGE):
            await self.call(self.raw.exchange_declare, exchange=exchange, exchange_type="direct", durable=True)

    async def declare_lane(self, lane: str, bytes_max: int) -> None:
        """Declare the exchanges and queues of a lane, which takes public commands and the system's own.

        Raises ConfigurationError when one exists with other arguments.
        """
        await self.declare_exchanges()
        await self._declare_queue(dead_queue_name(lane), dead_queue_arguments(), (DEAD_EXCHANGE,), lane)
        arguments = queue_arguments(lane, bytes_max)
        await self._declare_queue(queue_name(lane), arguments, (WRITES_EXCHANGE, SYSTEM_EXCHANGE), lane)
        await self.declare_mark(lane)

    async def declare_mark(self, lane: str) -> int:
        """Declare the queue of a lane's mark; return how many messages it has, as far as RabbitMQ says.

        Raises ConfigurationError when it exists with other arguments.
        """
        declared = await self.call(
            self.raw.queue_declare, queue=mark_queue_name(lane), durable=True, arguments=mark_queue_arguments()
        )
        return int(declared.method.message_count)

    async def declare_effects(self, service: str, bytes_max: int) -> None:
        """Declare the exchanges and queues of a service's effects, which only the system may emit.

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

    def _on_cancel(self, frame: Any) -> None:
        where = broker_address(self._connection.parameters)
        self._connection.end_because(
            BrokerUnavailable(
                f"RabbitMQ at {where} ended the consumer of {frame.method.consumer_tag}: was the queue deleted, "
                "or a delivery not acknowledged for too long?"
            )
        )

    def _on_close(self, _: Any, error: BaseException) -> None:
        if not isinstance(error, ChannelClosedByBroker):
            # The connection is lost, and gives the reason itself.
            return
        parameters = self._connection.parameters
        if not self._waiting.done():
            self._waiting.set_exception(refused(parameters, error, self._method))
        if not self.is_beside:
            self._connection.end_because(channel_closed(parameters, error, self.raw.channel_number))


def _ignore(*_: Any) -> None:
    """Nobody knows our own address."""


def _future() -> "asyncio.Future[Any]":
    """A future whose exception may stay unseen: its waiter may have been cancelled."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future


def _resolve(future: "asyncio.Future[Any]", value: Any) -> None:
    if not future.done():
        future.set_result(value)
