"""How emitted commands are published to RabbitMQ: through the system's exchange."""

import asyncio
from collections.abc import Callable, Sequence
from time import time
from typing import ClassVar, Final

import pika

from coordinator.client.publish_spans import messaging
from coordinator.lane.outbox import message_of
from coordinator.protocol.wire import HEADER_REPLAYED, CommandMessage, headers_of
from coordinator.runtime.recording import Attributes
from coordinator.service.options import Options
from coordinator.service.outside_calls import EFFECTS_PREFIX
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.transports.emitting import Emitting
from coordinator.transports.rabbitmq.properties import command_properties
from coordinator.transports.rabbitmq.publisher import Publisher
from coordinator.transports.rabbitmq.topology import SYSTEM_EXCHANGE

MESSAGING: Final = messaging(is_rabbitmq=True)


class EmittedCommands(Emitting):
    """Used within the loop of its publisher."""

    messaging: ClassVar[Attributes] = MESSAGING

    def __init__(
        self,
        publisher: Publisher,
        on_confirmed: Callable[[Sequence[OutboxEntry]], None],
        retry_delay_s: float,
        app_id: str | None = None,
    ) -> None:
        """`app_id` names the process that publishes."""
        super().__init__(on_confirmed, retry_delay_s)
        self._publisher = publisher
        self._app_id = app_id

    def _put(self, entry: OutboxEntry, message: CommandMessage) -> "asyncio.Future[None]":
        properties = _properties(entry, message, self._app_id)
        return self._publisher.publish(SYSTEM_EXCHANGE, entry.lane, properties, entry.arguments)


def properties_of(entry: OutboxEntry, app_id: str | None = None) -> pika.BasicProperties:
    """The AMQP properties with which an emitted command, or an effect, travels."""
    return _properties(entry, message_of(entry), app_id)


def _properties(entry: OutboxEntry, message: CommandMessage, app_id: str | None) -> pika.BasicProperties:
    headers = headers_of(message, is_lowered=message.origin == "public")
    if Options.decode(entry.options).replayed:
        headers[HEADER_REPLAYED] = True
    # From an effect's age its worker knows what the other side may have forgotten.
    timestamp = int(entry.created_at.timestamp() if entry.lane.startswith(EFFECTS_PREFIX) else time())
    return command_properties(message, headers, timestamp=timestamp, app_id=app_id)
