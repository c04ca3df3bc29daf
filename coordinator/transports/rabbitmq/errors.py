"""What the broker's reasons for ending a channel or a connection mean to us, as our errors."""

import re
import ssl
from typing import Final

import pika
from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker

from coordinator.runtime.settings import broker_setting
from coordinator.service.errors import BrokerUnavailable, ConfigurationError
from coordinator.transports.rabbitmq.driver_arguments import broker_address
from coordinator.transports.rabbitmq.pika_connection import ANSWERED_WITH_TLS
from coordinator.transports.reconnecting import BrokerRefuses, NotDeclaredYet

ACCESS_REFUSED: Final = 403
NOT_FOUND: Final = 404
PRECONDITION_FAILED: Final = 406
NOT_ALLOWED: Final = 530
NOT_IMPLEMENTED: Final = 540

BLAMED: Final = frozenset(
    {311, ACCESS_REFUSED, NOT_FOUND, PRECONDITION_FAILED, 501, 502, 503, 504, 505, NOT_IMPLEMENTED}
)
"""Reply codes that answer a message that was sent, and would answer it again."""

_RIGHTS = {
    ("exchange_declare", "exchange"): "configure",
    ("queue_declare", "queue"): "configure",
    # The right to the exchange for the queue's dead letters.
    ("queue_declare", "exchange"): "write to",
    ("queue_bind", "queue"): "write to",
    ("queue_bind", "exchange"): "read from",
    ("queue_unbind", "queue"): "write to",
    ("queue_unbind", "exchange"): "read from",
    ("basic_consume", "queue"): "read from",
    ("basic_get", "queue"): "read from",
    ("confirm_delivery", "exchange"): "write to",
}
"""The right that a refused method needs: RabbitMQ names it only from 3.13 on."""

_ALERT = re.compile(r"ALERT_(UNKNOWN_CA|BAD_CERTIFICATE|CERTIFICATE_[A-Z]+|UNSUPPORTED_CERTIFICATE|ACCESS_DENIED)\b")
"""What the broker says of our certificate. With TLS 1.3 that is after the handshake, and pika makes a text of it."""

_RESOURCE = re.compile(r"(queue|exchange) '([^']*)'")


_OUTCOMES: Final = "replies."
_OTHER_NAME: Final = (
    "a program with RabbitWrites(…) says the name that its account's rights have: "
    'name="gateway.SERVICE" with '
    "the account of that service's gateway, or has an account of its own, which `coordinator broker-accounts --gateway "
    'NAME` makes, and says name="gateway.NAME"'
)
"""For the queues of outcomes: an account may have those of its own name."""


class ClosedByBroker(BrokerUnavailable):
    """The broker ended a channel, or the connection, and said why. `exchange` is the one that it named, if any;
    without a `channel_number` the connection was ended."""

    def __init__(self, message: str, reply_code: int, text: str, channel_number: int | None = None) -> None:
        super().__init__(message)
        self.channel_number = channel_number
        self.reply_code = reply_code
        self.text = text
        named = _RESOURCE.search(text)
        self.exchange = named[2] if named is not None and named[1] == "exchange" else None


class ExchangeMissing(ClosedByBroker, NotDeclaredYet):
    """There is no such exchange: coordinators make all of them."""


def channel_closed(
    parameters: pika.ConnectionParameters, error: ChannelClosedByBroker, channel_number: int
) -> BrokerUnavailable:
    """Why a channel that was in use is closed."""
    code, text = error.reply_code, str(error.reply_text)
    message = f"RabbitMQ at {broker_address(parameters)} closed a channel: {text} ({code})"
    return ClosedByBroker(message, code, text, channel_number)


def refused(parameters: pika.ConnectionParameters, error: ChannelClosedByBroker, method: str) -> Exception:
    """Why `method` was not answered. A ConfigurationError if repeating it would make no difference."""
    code, text = error.reply_code, str(error.reply_text)
    where = f"RabbitMQ at {broker_address(parameters)}"
    if code == ACCESS_REFUSED:
        resource = _RESOURCE.search(text)
        kind, name = ("", "") if resource is None else (resource[1], resource[2])
        right = _RIGHTS.get((method, kind), "use")
        what = f"{kind} {name or 'amq.default'}" if kind else method
        remedy = "rabbitmqctl set_permissions gives it"
        if name.startswith(_OUTCOMES):
            remedy += f"; {_OTHER_NAME}"
        return BrokerRefuses(
            f"{broker_setting()}: user {parameters.credentials.username!r} needs the right to {right} {what} in vhost "
            f"{parameters.virtual_host!r} ({where} said: {text}); {remedy}"
        )
    if code in (PRECONDITION_FAILED, NOT_IMPLEMENTED):
        return ConfigurationError(f"{where} refuses {method}: {text}")
    closed = ClosedByBroker(f"{where} refuses {method}: {text} ({code})", code, text)
    if code == NOT_FOUND and closed.exchange is not None:
        return ExchangeMissing(str(closed), code, text)
    return closed


def not_connected(  # noqa: PLR0911  # one return for each kind
    parameters: pika.ConnectionParameters, error: BaseException | str
) -> Exception:
    """Why a connection could not be opened. A ConfigurationError if another attempt would make no difference."""
    where = f"RabbitMQ at {broker_address(parameters)}"
    cause = innermost(error)
    if isinstance(cause, ConnectionClosedByBroker):
        code, text = cause.reply_code, str(cause.reply_text)
        if code == ACCESS_REFUSED:
            return BrokerRefuses.the_account(
                f"{broker_setting()}: {where} refuses user {parameters.credentials.username!r} with this password: "
                f"{text}"
            )
        if code == NOT_ALLOWED and "limit" not in text:
            return BrokerRefuses(
                f"{broker_setting()}: {where} refuses user {parameters.credentials.username!r} in vhost "
                f"{parameters.virtual_host!r}: {text}",
                "this process's account in its vhost",
            )
        return ClosedByBroker(f"{where} refuses the connection: {text} ({code})", code, text)
    if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return ConfigurationError(f"{broker_setting()}: no TLS connection to {where} can be made: {cause}")
    alert = _ALERT.search(reason(error))
    if alert is not None:
        return ConfigurationError(
            f"{broker_setting()}: {where} takes no certificate but of its own authorities, and refuses ours "
            f"({alert[1].lower().replace('_', ' ')}): set the options 'certfile' and 'keyfile'"
        )
    if ANSWERED_WITH_TLS in reason(error):
        return ConfigurationError(
            f"{broker_setting()}: {where} has TLS at this port, and the address does not ask for it: write amqps://"
        )
    return BrokerUnavailable(f"{where} cannot be reached: {reason(error)}")


def connection_lost(parameters: pika.ConnectionParameters, error: BaseException) -> BrokerUnavailable:
    """Why a connection that was open is no longer open."""
    where = f"RabbitMQ at {broker_address(parameters)}"
    if isinstance(error, ConnectionClosedByBroker):
        code, text = error.reply_code, str(error.reply_text)
        return ClosedByBroker(f"{where} closed the connection: {text} ({code})", code, text)
    return BrokerUnavailable(f"the connection to {where} was lost: {reason(error)}")


def innermost(error: BaseException | str) -> BaseException | str:
    """The innermost reason: pika nests them, and this one says most."""
    if isinstance(error, BaseException):
        nested = [*error.args, getattr(error, "exception", None), *getattr(error, "exceptions", ())]
        inner = [each for each in nested if isinstance(each, BaseException)]
        if inner:
            return innermost(inner[-1])
    return error


def reason(error: BaseException | str) -> str:
    """The innermost reason, in words."""
    cause = innermost(error)
    if isinstance(cause, BaseException):
        return f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__
    return cause
