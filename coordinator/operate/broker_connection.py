"""A connection of an operator to RabbitMQ, which tells the lengths of queues."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import AMQPError, ChannelClosedByBroker, ConnectionClosedByBroker

from coordinator.operate.queue_depth import EffectsDepth, QueueDepth
from coordinator.runtime.settings import BrokerSettings
from coordinator.service.errors import BrokerUnavailable
from coordinator.service.outside_calls import effects_key
from coordinator.transports.rabbitmq.driver_arguments import broker_parameters
from coordinator.transports.rabbitmq.effects.retry_queues import DELAYS_S, retry_key
from coordinator.transports.rabbitmq.errors import not_connected
from coordinator.transports.rabbitmq.nodes import NodesInTurn
from coordinator.transports.rabbitmq.topology import dead_queue_name, queue_name

_NOT_FOUND = 404
_CLOSED = re.compile(r"ConnectionClosedByBroker: \((\d+)\) ['\"](.*)['\"]")
_BLOCKED_TIMEOUT_S = 10


class Broker:
    """One connection. Its methods raise BrokerUnavailable if it cannot be opened, or is lost."""

    def __init__(self, connection: BlockingConnection) -> None:
        self._connection = connection

    def depth(self, queue: str) -> QueueDepth | None:
        """The size of a queue; None: there is no such queue."""
        try:
            with self._channel() as channel:
                declared = channel.queue_declare(queue, passive=True).method
        except ChannelClosedByBroker as error:
            if error.reply_code == _NOT_FOUND:
                return None
            raise
        return QueueDepth(ready=declared.message_count, consumers=declared.consumer_count)

    def lane_depth(self, lane: str) -> QueueDepth | None:
        return self.depth(queue_name(lane))

    def dead_depth(self, key: str) -> QueueDepth | None:
        """The messages of a lane, or of a service's effects, that the broker itself has dead-lettered."""
        return self.depth(dead_queue_name(key))

    def effects_depth(self, service: str) -> EffectsDepth | None:
        """A service's calls to the outside that wait, also for another attempt; None: it has no queue for them."""
        first = self.depth(queue_name(effects_key(service)))
        if first is None:
            return None
        back = [self.depth(retry_key(service, length_s)) for length_s in DELAYS_S.values()]
        waiting = first.ready + sum(each.ready for each in back if each is not None)
        return EffectsDepth(waiting=waiting, consumers=first.consumers)

    @contextmanager
    def _channel(self) -> Iterator[BlockingChannel]:
        """A channel for one question, since the broker closes a channel when it refuses something."""
        channel = self._connection.channel()
        yield channel
        channel.close()


@contextmanager
def connected(settings: BrokerSettings) -> Iterator[Broker]:
    """Connect. Raises BrokerUnavailable, ConfigurationError."""
    connection = _connect(settings)
    try:
        yield Broker(connection)
    except AMQPError as error:
        raise BrokerUnavailable(f"RabbitMQ: {_reason(error)}") from error
    finally:
        # What ends the command may have broken off a call, and then RabbitMQ refuses a proper end, too.
        with suppress(AMQPError):
            if connection.is_open:
                connection.close()


def _connect(settings: BrokerSettings) -> BlockingConnection:
    nodes = NodesInTurn(broker_parameters(settings, "operator"))
    for node in nodes:
        node.socket_timeout = node.stack_timeout = settings.connect_timeout_s
        node.blocked_connection_timeout = _BLOCKED_TIMEOUT_S
        try:
            return BlockingConnection(node)
        except (AMQPError, AMQPConnectorException, OSError) as error:
            nodes.refused(node, not_connected(node, _closed_by_broker(error) or error))
    raise nodes.refusal


def _closed_by_broker(error: BaseException) -> ConnectionClosedByBroker | None:
    """The broker's words before it closed a connection that was being opened; pika keeps them as a text."""
    said = _CLOSED.search(_reason(error))
    return None if said is None else ConnectionClosedByBroker(int(said[1]), said[2])


def _reason(error: BaseException) -> str:
    """The innermost reason of a nested error of pika's, since it says most."""
    for inner in (*error.args, *getattr(error, "exceptions", ())):
        found = getattr(inner, "exception", inner)
        if isinstance(found, BaseException):
            return _reason(found)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
