"""What the operator's commands ask of RabbitMQ: lengths of queues, and a lane's dead letters.

Dead letters are read by a consumer that acknowledges nothing and whose connection is then aborted: that puts them back
in their order. (basic.get does not: RabbitMQ 3.10 put 70 messages that were got one by one back in another order.) One
that is dealt with is acknowledged; nothing else removes one.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event
from time import monotonic
from typing import Any

import pika
from msgspec import Struct
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection
from pika.exceptions import AMQPError, ChannelClosedByBroker, NackError, StreamLostError, UnroutableError

from coordinator.operate.output import quiet
from shared.errors import BrokerUnavailable, ConfigurationError
from shared.messaging.topology import WRITES_EXCHANGE, dead_queue_name, queue_name
from shared.messaging.wire import JSON_CONTENT, CommandMessage, headers_of
from shared.settings import BrokerSettings

DEAD_LETTERS_MAX = 10_000
"""Dead letters of one lane that are looked at, oldest first: they are held in memory."""

_NOT_FOUND = 404
_RESOURCE_LOCKED = 405
_PERSISTENT = 2
_BLOCKED_TIMEOUT_S = 10
_RETURN_TIMEOUT_S = 5.0
_RECEIVE_TIMEOUT_S = 15.0
# A channel of RabbitMQ keeps what is more than 32 to itself for a while, and loses it when the connection is aborted.
_ACKNOWLEDGED_AT_ONCE = 16


class QueueDepth(Struct, frozen=True, kw_only=True):
    """A queue's messages that no consumer holds, and its consumers as RabbitMQ counts them.

    Of a quorum queue with a single active consumer, 3.10 counts that one only, and no standby.
    """

    ready: int
    consumers: int


class DeadMessage(Struct, frozen=True, kw_only=True):
    """A dead letter as it lies in its queue. `tag` is its place in the channel that got it."""

    tag: int
    lane: str
    command_id: str | None
    type: str | None
    headers: dict[str, Any]
    body: bytes


class DeadLetterQueue:
    """The dead letters of one lane, for as long as `Broker.dead_letters` lasts."""

    def __init__(self, lane: str, channel: BlockingChannel, messages: list[DeadMessage]) -> None:
        self.lane = lane
        self.messages = messages
        self.settled = 0
        self._channel = channel

    def remove(self, message: DeadMessage) -> None:
        """Acknowledge one: it is gone for good once the queue is left."""
        self._channel.basic_ack(message.tag)
        self.settled += 1
        if self.settled % _ACKNOWLEDGED_AT_ONCE == 0:
            self.flush()

    def flush(self) -> None:
        """Return once the acknowledgements are in the queue's log, which a get stands behind."""
        self._channel.basic_get(dead_queue_name(self.lane))


class Broker:
    """One connection. Raises BrokerUnavailable throughout when it cannot be had, or is lost."""

    def __init__(self, connection: BlockingConnection, settings: BrokerSettings) -> None:
        self._connection = connection
        self._settings = settings

    def depth(self, queue: str) -> QueueDepth | None:
        """None: there is no such queue."""
        try:
            channel = self._connection.channel()
            declared = channel.queue_declare(queue, passive=True).method
            channel.close()
        except ChannelClosedByBroker as error:
            if error.reply_code == _NOT_FOUND:
                return None
            raise
        return QueueDepth(ready=declared.message_count, consumers=declared.consumer_count)

    def lane_depth(self, lane: str) -> QueueDepth | None:
        return self.depth(queue_name(lane))

    def dead_depth(self, lane: str) -> QueueDepth | None:
        return self.depth(dead_queue_name(lane))

    @contextmanager
    def dead_letters(self, lane: str) -> Iterator[DeadLetterQueue]:
        """All dead letters of a lane, oldest first; those not removed are back in their order afterwards.

        One operator at a time: raises BrokerUnavailable while another one is at the same lane's.
        """
        depth = self.dead_depth(lane)
        if depth is None:
            yield DeadLetterQueue(lane, self._connection.channel(), [])
            return
        with self._alone_at(lane):
            # On a connection of their own, which is aborted: see the module's docstring.
            connection = _connect(self._settings)
            channel = connection.channel()
            letters = DeadLetterQueue(lane, channel, [])
            try:
                _receive(connection, channel, letters, min(depth.ready, DEAD_LETTERS_MAX))
                yield letters
                letters.flush()
            finally:
                _abort(connection)
                self._wait_returned(lane, depth.ready - letters.settled)

    def publish(self, lane: str, message: CommandMessage) -> None:
        """Return once the broker has the command safe in the lane's queue."""
        channel = self._connection.channel()
        channel.confirm_delivery()
        properties = pika.BasicProperties(
            message_id=message.command_id,
            type=message.type,
            content_type=JSON_CONTENT,
            delivery_mode=_PERSISTENT,
            headers=headers_of(message),
        )
        try:
            channel.basic_publish(WRITES_EXCHANGE, lane, message.arguments, properties, mandatory=True)
        except UnroutableError:
            raise BrokerUnavailable(f"no queue takes commands of lane {lane}: has its coordinator ever run?") from None
        except NackError:
            raise BrokerUnavailable(f"the queue of lane {lane} is full: try again when it is shorter") from None
        channel.close()

    @contextmanager
    def _alone_at(self, lane: str) -> Iterator[None]:
        """An exclusive queue is the lock: RabbitMQ lets no other connection declare it, and it ends with this one."""
        channel = self._connection.channel()
        name = f"{dead_queue_name(lane)}.operator"
        try:
            channel.queue_declare(name, exclusive=True)
        except ChannelClosedByBroker as error:
            if error.reply_code != _RESOURCE_LOCKED:
                raise
            raise BrokerUnavailable(
                f"another operator is at the dead letters of lane {lane}: try again when that command has ended"
            ) from None
        try:
            yield
        finally:
            if channel.is_open:
                channel.queue_delete(name)
                channel.close()

    def _wait_returned(self, lane: str, count: int) -> None:
        """The broker puts them back after it has answered the close; the next operator should not miss them."""
        deadline = monotonic() + _RETURN_TIMEOUT_S
        while monotonic() < deadline:
            depth = self.dead_depth(lane)
            if depth is None or depth.ready >= count:
                return
            Event().wait(0.01)


@contextmanager
def broker(settings: BrokerSettings) -> Iterator[Broker]:
    """Connect. Raises BrokerUnavailable, ConfigurationError."""
    connection = _connect(settings)
    try:
        yield Broker(connection, settings)
    except AMQPError as error:
        raise BrokerUnavailable(f"RabbitMQ: {_reason(error)}") from error
    finally:
        if connection.is_open:
            connection.close()


def _connect(settings: BrokerSettings) -> BlockingConnection:
    try:
        parameters = pika.URLParameters(settings.url)
    except (ValueError, TypeError, AMQPError) as error:
        raise ConfigurationError(f"AMQP_URL is not an AMQP address: {error}") from None
    parameters.socket_timeout = parameters.stack_timeout = settings.connect_timeout_s
    parameters.connection_attempts = 1
    parameters.blocked_connection_timeout = _BLOCKED_TIMEOUT_S
    parameters.client_properties = {"connection_name": "operator"}
    quiet()
    try:
        return BlockingConnection(parameters)
    except (AMQPError, OSError) as error:
        raise BrokerUnavailable(f"RabbitMQ cannot be reached: {_reason(error)}") from error


def _abort(connection: BlockingConnection) -> None:
    """Drop the socket without a word, as a crash would: what is not acknowledged is put back in its order."""
    sock = getattr(connection._impl._transport, "_sock", None)  # noqa: SLF001  # gone once the stream ends
    with suppress(AMQPError):
        connection._impl._terminate_stream(StreamLostError("aborted by us"))  # noqa: SLF001
        connection.process_data_events()
    connection._cleanup()  # noqa: SLF001  # as `close` does: its event loop holds sockets of its own
    if sock is not None:
        # Its end may have been noticed before the turn of the loop that closes it.
        sock.close()


def _receive(connection: BlockingConnection, channel: BlockingChannel, letters: DeadLetterQueue, count: int) -> None:
    def take(_: Any, method: Any, properties: pika.BasicProperties, body: bytes) -> None:
        letters.messages.append(
            DeadMessage(
                tag=method.delivery_tag,
                lane=letters.lane,
                command_id=_text(properties.message_id),
                type=_text(properties.type),
                headers=dict(properties.headers or {}),
                body=body,
            )
        )

    channel.basic_qos(prefetch_count=DEAD_LETTERS_MAX)
    channel.basic_consume(dead_queue_name(letters.lane), take)
    deadline = monotonic() + _RECEIVE_TIMEOUT_S
    while len(letters.messages) < count:
        if monotonic() > deadline:
            raise BrokerUnavailable(
                f"RabbitMQ gave {len(letters.messages)} of {count} dead letters of lane {letters.lane} within "
                f"{_RECEIVE_TIMEOUT_S:g} s: does somebody else consume {dead_queue_name(letters.lane)}?"
            )
        connection.process_data_events(time_limit=0.1)


def _text(value: object) -> str | None:
    """pika leaves text that is not UTF-8 as bytes."""
    return value if isinstance(value, str) else None


def _reason(error: BaseException) -> str:
    """pika nests the reason; the innermost one says most."""
    for inner in (*error.args, *getattr(error, "exceptions", ())):
        found = getattr(inner, "exception", inner)
        if isinstance(found, BaseException):
            return _reason(found)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
