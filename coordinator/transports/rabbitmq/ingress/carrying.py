"""What the ingress makes of a message of an outside account. No function here raises, whatever strangers publish.

Who publishes is proved by the exchange: only that account may write there. All else of a message is for its lane to
judge, as if it had come through `writes`; so what has a meaning there goes on as it is, and nothing else does.
"""

from typing import Any, Final

import pika

from coordinator.protocol.actors import HEADER_ACTOR, HEADER_NO_ACTOR
from coordinator.protocol.attributing import claims_an_actor, says_nobody_asks
from coordinator.protocol.decoding import decode
from coordinator.protocol.fields import ID, TYPE
from coordinator.protocol.senders import HEADER_SENDER, sender_words
from coordinator.protocol.tracestates import HEADER_TRACESTATE, HEADER_TRACESTATES
from coordinator.protocol.wire import (
    HEADER_MALFORMED,
    HEADER_REPLY_PACKS,
    HEADER_TRACEPARENT,
    HEADERS,
    PACK_CONTENT,
    Envelope,
)
from coordinator.runtime.token_bucket import BYTES_OF_A_REQUEST
from coordinator.service.principal import BROKER_USER, Principal, UnbelievedAccount
from coordinator.transports.rabbitmq.ingress.topology import ingress_name
from coordinator.transports.rabbitmq.properties import PERSISTENT, envelope_of

_TRACE: Final = frozenset({HEADER_TRACEPARENT, HEADER_TRACESTATE, HEADER_TRACESTATES})
_TRACE_CHARACTERS_MAX: Final = 1024
"""A longer one names no trace, and would take the room of what the ingress adds."""
_TAKEN: Final = frozenset({ID.header, TYPE.header, *HEADERS, HEADER_REPLY_PACKS, HEADER_MALFORMED}) | _TRACE
_WHY_CHARACTERS_MAX: Final = 500
_UNBELIEVED: Final = UnbelievedAccount(subject=f"{BROKER_USER}anybody")


class Carrying:
    """Makes the messages of one account those of the ingress, whose own account and name are `user` and `app_id`."""

    def __init__(self, account: str, user: str, app_id: str) -> None:
        self._account = account
        self._exchange = ingress_name(account)
        self._actor = Principal(subject=f"{BROKER_USER}{account}")
        self._user = user
        self._app_id = app_id

    def carried(self, exchange: str, properties: pika.BasicProperties, at_s: int) -> pika.BasicProperties:
        """The properties with which a message goes on that came through this exchange.

        Its `expiration` does not: behind the ingress nothing expires past the limit of a lane's queue.
        """
        envelope = envelope_of(properties, exchange)
        given = envelope.headers.items()
        headers = {name: value for name, value in given if name in _TAKEN and _has_room(name, value)}
        return pika.BasicProperties(
            message_id=properties.message_id,
            type=properties.type,
            content_type=properties.content_type,
            reply_to=properties.reply_to,
            correlation_id=properties.correlation_id,
            priority=properties.priority,
            delivery_mode=PERSISTENT,
            timestamp=at_s,
            user_id=self._user,
            app_id=self._app_id,
            headers=headers | self._attribution(envelope, exchange),
        )

    def unreadable(self, exchange: str, properties: pika.BasicProperties, at_s: int, why: str) -> pika.BasicProperties:
        """Those of a message that cannot be published with its own: its lane makes a dead letter of it."""
        text = f"the ingress could not hand them on: {ascii(why)[:_WHY_CHARACTERS_MAX]}"
        return pika.BasicProperties(
            delivery_mode=PERSISTENT,
            timestamp=at_s,
            user_id=self._user,
            app_id=self._app_id,
            headers={HEADER_MALFORMED: text} | self._attribution(envelope_of(properties, exchange), exchange),
        )

    def _attribution(self, envelope: Envelope, exchange: str) -> dict[str, Any]:
        """Who asks, in the words of a gateway; and that it comes from a stranger, of whom nothing is believed."""
        is_his = exchange == self._exchange and envelope.user_id in (None, self._account)
        claims = is_his and claims_an_actor(envelope)
        is_nobodys = not is_his or says_nobody_asks(envelope)
        sender = sender_words(_UNBELIEVED if claims else None, is_strangers=True)
        asks: dict[str, Any] = {HEADER_NO_ACTOR: True} if is_nobodys else {HEADER_ACTOR: self._actor.as_json}
        return asks | {HEADER_SENDER: sender}


def cost_of(properties: pika.BasicProperties, body: bytes) -> int:
    """How much of its account's share a message takes: its commands, and the bytes that are more than one's."""
    commands = len(decode(envelope_of(properties), body)) if properties.content_type == PACK_CONTENT else 1
    return commands + len(body) // BYTES_OF_A_REQUEST


def _has_room(name: str, value: object) -> bool:
    return name not in _TRACE or (isinstance(value, str) and len(value) <= _TRACE_CHARACTERS_MAX)
