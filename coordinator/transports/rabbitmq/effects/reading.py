"""Reading the deliveries of a queue of effects. No function here raises, whatever was published."""

from typing import Any

import msgspec
import pika

from coordinator.protocol.attempted import Attempted
from coordinator.protocol.decoding import decode
from coordinator.protocol.wire import CommandMessage, Defect
from coordinator.transports.effect_bringing import known_of_effect
from coordinator.transports.rabbitmq.properties import envelope_of
from coordinator.transports.rabbitmq.topology import SYSTEM_EXCHANGE

_TIME_S_MAX = 1 << 40


def effect_of(method: Any, properties: pika.BasicProperties, body: bytes) -> CommandMessage:
    """One effect; a fault of the message is its `defect`."""
    if method.exchange != SYSTEM_EXCHANGE:
        # Only lanes ask for effects, through `writes.system`. Here a stranger chose the id and the type.
        # An operator may know better, since earlier releases sent effects through `writes`.
        claimed = f"{str(properties.type)[:100]!r} {str(properties.message_id)[:100]!r}"
        exchange = f"the exchange {str(method.exchange)[:100]!r}" if method.exchange else "the default exchange"
        text = f"{claimed} came through {exchange}, effects do through {SYSTEM_EXCHANGE}"
        message = _decoded(properties, method.exchange, body)
        return msgspec.structs.replace(message, origin="public", defect=Defect("not_from_system", text))
    return _decoded(properties, method.exchange, body)


def known_of(properties: pika.BasicProperties, *, is_again: bool) -> tuple[Attempted, str]:
    """The record of the attempts, and the mark that tells this copy's dead letter from that of a later replay.

    `is_again`: it was delivered before, to a worker that may have made a call.
    """
    return known_of_effect(headers_of(properties), emitted_at_s(properties), is_again=is_again)


def emitted_at_s(properties: pika.BasicProperties) -> int | None:
    """When its lane emitted the effect; None: a message of an earlier release may not say."""
    timestamp = properties.timestamp
    return timestamp if isinstance(timestamp, int) and 0 < timestamp < _TIME_S_MAX else None


def headers_of(properties: pika.BasicProperties) -> dict[str, Any]:
    """The headers of a delivery, which may have none."""
    return properties.headers if isinstance(properties.headers, dict) else {}


def _decoded(properties: pika.BasicProperties, exchange: str, body: bytes) -> CommandMessage:
    try:
        messages = decode(envelope_of(properties, exchange), body)
    except Exception as error:  # noqa: BLE001  # a decoder may fail in any way; the message is settled
        text = f"it cannot be read: {type(error).__name__}: {error}"
        return CommandMessage(command_id=None, type=None, arguments=body, defect=Defect("malformed_effect", text))
    if len(messages) == 1:
        return messages[0]
    defect = Defect("malformed_effect", "an effect travels alone, and not in a pack")
    return CommandMessage(command_id=None, type=None, arguments=body, defect=defect)
