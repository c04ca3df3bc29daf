"""How emitted commands are published to RabbitMQ: through the system's exchange."""

import asyncio
from collections.abc import Callable, Sequence
from time import time
from typing import ClassVar, Final

import pika

from coordinator.client.publish_spans import messaging
from coordinator.lane.outbox import message_of
from coordinator.protocol.wire import encode_pack, headers_of_pack
from coordinator.runtime.recording import Attributes
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.transports.emitting import EmittedMessage, Emitting
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

    def _put(self, target: str, emitted: Sequence[EmittedMessage]) -> "asyncio.Future[None]":
        if len(emitted) == 1:
            (only,) = emitted
            properties, body = _properties(only, self._app_id), only.entry.arguments
        else:
            messages = [each.message for each in emitted]
            headers = headers_of_pack(messages)
            properties = command_properties(None, headers, timestamp=int(time()), app_id=self._app_id)
            body = encode_pack(messages, with_origin=True)
        return self._publisher.publish(SYSTEM_EXCHANGE, target, properties, body)


def properties_of(entry: OutboxEntry, app_id: str | None = None) -> pika.BasicProperties:
    """The AMQP properties with which an emitted command, or an effect, travels alone."""
    return _properties(EmittedMessage(entry, message_of(entry)), app_id)


def _properties(emitted: EmittedMessage, app_id: str | None) -> pika.BasicProperties:
    return command_properties(emitted.message, emitted.headers, timestamp=emitted.at_s, app_id=app_id)
