"""Turns the broker's messages into deliveries of the lane. No function here raises, whatever strangers publish."""

from time import monotonic
from typing import Any

import msgspec
import pika
import structlog

from coordinator.lane.delivery import Arrival, Delivery, OldLetter
from coordinator.protocol.attributing import account_asking, claims_an_actor
from coordinator.protocol.decoding import decode
from coordinator.protocol.wire import HEADER_REPLY_PACKS, JSON_CONTENT, CommandMessage, Defect, Envelope, is_yes
from coordinator.runtime.repeated_line import RepeatedLine
from coordinator.runtime.settings import LaneSettings
from coordinator.service.commands import INTEGER_MAX
from coordinator.transports.rabbitmq.properties import envelope_of
from coordinator.transports.rabbitmq.topology import DEAD_EXCHANGE

OVERTAKING_PRIORITY = 5
"""RabbitMQ 4 delivers messages of this priority, and of higher ones, before others of a quorum queue."""
_DEATHS = "x-death"
_DELIVERY_COUNT = "x-delivery-count"
_EXPIRED = "expired"
_LONG_AGO_MS = 0

log = structlog.get_logger("consumer")
_unbelieved = RepeatedLine()
_anothers = RepeatedLine()


def delivery_of(
    method: Any, properties: pika.BasicProperties, body: bytes, settings: LaneSettings, at_ms: int | None = None
) -> Delivery:
    """A message of the lane's queue. It was delivered `at_ms` since the Unix epoch; None: nobody looked."""
    envelope = envelope_of(properties, method.exchange, settings.accounts)
    _note_unbelieved(envelope)
    commands = decode(envelope, body, settings.message_bytes_max, settings.pack_commands_max)
    priority = properties.priority
    if isinstance(priority, int) and priority >= OVERTAKING_PRIORITY:
        defect = Defect("priority_not_taken", f"priority {priority} would overtake what was confirmed before it")
        commands = _refused(commands, defect)
    return _delivery(method, properties, envelope, body, commands, settings, at_ms)


def dead_delivery_of(
    target: str,
    method: Any,
    properties: pika.BasicProperties,
    body: bytes,
    settings: LaneSettings,
    at_ms: int | None = None,
) -> Delivery:
    """A message of a queue of dead letters: one that the broker let expire, or the letter of an older release.

    An expired message is settled as `expired`, like a command whose deadline is over. No message from here counts as
    the system's own, however it came: its publisher wrote the headers, even if they look like a letter's, and the
    exchange is the broker's. (RabbitMQ and pika read a header that is there twice differently, so even the headers that
    RabbitMQ adds prove nothing.) A letter is believed as far as the lane's log confirms it.
    """
    envelope = envelope_of(properties, accounts=settings.accounts)
    deaths = envelope.headers.get(_DEATHS)
    if not deaths and method.exchange == DEAD_EXCHANGE and "reason" in envelope.headers:
        return _letter(target, method, properties, body)
    commands = decode(envelope, body, settings.message_bytes_max, settings.pack_commands_max)
    reason = _reason_of(deaths)
    if reason == _EXPIRED:
        dead = tuple(msgspec.structs.replace(command, deadline_ms=_LONG_AGO_MS) for command in commands)
    else:
        defect = Defect("dead_lettered", f"the broker took it out of its queue: {reason}")
        dead = _refused(commands, defect)
    return _delivery(method, properties, envelope, body, dead, settings, at_ms)


def _note_unbelieved(envelope: Envelope) -> None:
    """Log that somebody says who asks, and is not believed: perhaps a gateway that the lane was not told of."""
    if envelope.user_id is None or envelope.is_gateway or envelope.is_system or not claims_an_actor(envelope):
        return
    user = envelope.user_id[:100]
    if _unbelieved.is_due(user, monotonic()):
        log.warning("actor_not_believed", user=user, setting="LANE_GATEWAY_ACCOUNTS")


def _note_refused(reply_to: str | None, user: str | None) -> None:
    """Log that somebody names a queue of another account's for his outcomes."""
    if _anothers.is_due(f"{reply_to}", monotonic()):
        log.warning("reply_queue_not_his", reply_to=reply_to, user=user, setting="LANE_REPLY_QUEUES")


def _refused(commands: tuple[CommandMessage, ...], defect: Defect) -> tuple[CommandMessage, ...]:
    return tuple(msgspec.structs.replace(command, defect=command.defect or defect) for command in commands)


def _reason_of(deaths: object) -> str:
    latest = deaths[0] if isinstance(deaths, list) and deaths else None
    reason = latest.get("reason") if isinstance(latest, dict) else None
    return reason if isinstance(reason, str) else "unknown"


def _letter(target: str, method: Any, properties: pika.BasicProperties, body: bytes) -> Delivery:
    headers = properties.headers or {}
    envelope = Envelope(
        message_id=_text(properties.message_id),
        type=_text(properties.type),
        content_type=JSON_CONTENT,
        headers=headers,
    )
    (message,) = decode(envelope, body, len(body))
    sequence = headers.get("sequence")
    letter = OldLetter(
        target=target,
        code=str(headers.get("reason")),
        reason=str(headers.get("error")),
        traceback=_text(headers.get("traceback")),
        sequence=int(sequence) if isinstance(sequence, int) else None,
    )
    message = msgspec.structs.replace(message, publisher=None, publisher_seq=None)
    return Delivery(tag=method.delivery_tag, commands=(message,), size_bytes=len(body), letter=letter)


def _delivery(
    method: Any,
    properties: pika.BasicProperties,
    envelope: Envelope,
    body: bytes,
    commands: tuple[CommandMessage, ...],
    settings: LaneSettings,
    at_ms: int | None,
) -> Delivery:
    reply_to = _text(properties.reply_to)
    if settings.reply_queues:
        account = account_asking(envelope, commands)
        if settings.accounts.is_queue_of_others(reply_to, account):
            _note_refused(reply_to, account)
            reply_to = None
    return Delivery(
        tag=method.delivery_tag,
        commands=commands,
        size_bytes=len(body),
        redelivered=bool(method.redelivered),
        reply_to=reply_to,
        correlation_id=_text(properties.correlation_id),
        reply_packs=is_yes(envelope.headers.get(HEADER_REPLY_PACKS)),
        arrival=None if at_ms is None else Arrival(at_ms, _attempts(method, envelope)),
        account=envelope.user_id if envelope.is_system else None,
    )


def _attempts(method: Any, envelope: Envelope) -> int:
    """How often a message was delivered. RabbitMQ counts the times before, and says so from the second one on; before,
    the header is its publisher's."""
    if not method.redelivered:
        return 1
    before = envelope.headers.get(_DELIVERY_COUNT)
    return before + 1 if type(before) is int and 0 < before < INTEGER_MAX else 2


def _text(value: object) -> str | None:
    """The value if it is text. pika leaves text that is not UTF-8 as bytes, which cannot name a queue."""
    return value if isinstance(value, str) else None
