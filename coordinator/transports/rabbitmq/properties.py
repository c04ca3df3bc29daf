"""AMQP properties: those of received messages, as the wire protocol's envelope, and those of published ones."""

from typing import Any, Final, Protocol

import pika

from coordinator.protocol.wire import JSON_CONTENT, PACK_CONTENT, CommandMessage, Envelope
from coordinator.runtime.broker_accounts import NO_ACCOUNTS, BrokerAccounts
from coordinator.service.principal import NO_SCOPES
from coordinator.transports.rabbitmq.topology import SYSTEM_EXCHANGE

PERSISTENT: Final = 2
_TRANSIENT: Final = 1
_SHORT_TEXT_BYTES_MAX: Final = 255


class Properties(Protocol):
    """A message's properties in the form of an AMQP library."""

    message_id: Any
    type: Any
    content_type: Any
    headers: Any
    user_id: Any


def envelope_of(properties: Properties, exchange: str = "", accounts: BrokerAccounts = NO_ACCOUNTS) -> Envelope:
    """The properties that the protocol uses, unchecked, of a message that came through an exchange.

    The broker checks the user: it takes no message with the name of another one than its publisher.
    """
    user_id = properties.user_id if isinstance(properties.user_id, str) else None
    is_system = exchange == SYSTEM_EXCHANGE
    is_gateway = user_id is not None and user_id in accounts.gateways
    return Envelope(
        message_id=properties.message_id,
        type=properties.type,
        content_type=properties.content_type,
        headers=properties.headers or {},
        is_system=is_system,
        user_id=user_id,
        is_gateway=is_gateway,
        is_strangers=is_strangers(properties, exchange, accounts),
        scopes=NO_SCOPES if user_id is None else accounts.scopes_of(user_id),
        account_scopes=accounts.scopes,
    )


def is_strangers(properties: Properties, exchange: str, accounts: BrokerAccounts) -> bool:
    """Whether neither a gateway nor the system has published a message. Of a lane that was told of no gateway nobody
    knows whether they are."""
    gateways = accounts.gateways
    return bool(gateways) and exchange != SYSTEM_EXCHANGE and properties.user_id not in gateways


def command_properties(
    message: CommandMessage | None,
    headers: dict[str, Any],
    *,
    reply_to: str | None = None,
    correlation_id: str | None = None,
    timestamp: int | None = None,
    user: str | None = None,
    app_id: str | None = None,
) -> pika.BasicProperties:
    """Those of a message that the broker must not lose: a command, an effect, or a pack of commands (None).

    The message keeps the headers, and its publisher adds to them. `user` is the account that publishes, which the
    broker checks: by that a lane knows its gateways. `timestamp` is when it was published, in seconds since the Unix
    epoch, and of an effect when its lane emitted it, which its workers read. `app_id` names the process that publishes,
    for whoever looks at a queue.
    """
    return pika.BasicProperties(
        message_id=None if message is None else message.command_id,
        type=None if message is None else message.type,
        content_type=PACK_CONTENT if message is None else JSON_CONTENT,
        delivery_mode=PERSISTENT,
        reply_to=reply_to,
        correlation_id=correlation_id,
        timestamp=timestamp,
        app_id=app_id,
        user_id=user,
        headers=headers,
    )


def app_id(name: str) -> str:
    """A process's name as `app_id` takes it: AMQP has room for so many bytes."""
    return name.encode()[:_SHORT_TEXT_BYTES_MAX].decode(errors="ignore")


def mark_properties() -> pika.BasicProperties:
    """The properties of a mark."""
    return pika.BasicProperties(content_type=JSON_CONTENT, delivery_mode=PERSISTENT)


def outcome_properties(correlation_id: str | None, *, is_pack: bool) -> pika.BasicProperties:
    """The properties of one or several outcomes: a client that misses one finds it in the command log."""
    return pika.BasicProperties(
        content_type=PACK_CONTENT if is_pack else JSON_CONTENT,
        correlation_id=correlation_id,
        delivery_mode=_TRANSIENT,
    )
