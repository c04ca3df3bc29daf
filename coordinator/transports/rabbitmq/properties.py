"""The AMQP properties of a message that was received, as the wire protocol's envelope."""

from typing import Any, Protocol

from coordinator.protocol.wire import Envelope
from coordinator.transports.rabbitmq.topology import SYSTEM_EXCHANGE


class Properties(Protocol):
    """What an AMQP library makes of a message's properties."""

    message_id: Any
    type: Any
    content_type: Any
    headers: Any


def envelope_of(properties: Properties, exchange: str = "") -> Envelope:
    """The properties that the protocol uses, whatever is in them, of a message that came through an exchange."""
    return Envelope(
        message_id=properties.message_id,
        type=properties.type,
        content_type=properties.content_type,
        headers=properties.headers or {},
        is_system=exchange == SYSTEM_EXCHANGE,
    )
