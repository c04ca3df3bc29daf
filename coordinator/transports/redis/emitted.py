"""How emitted commands and effects are published to Redis: to the streams of what the system says."""

import asyncio
from collections.abc import Callable, Sequence
from time import time
from typing import ClassVar, Final

from coordinator.client.publish_spans import messaging
from coordinator.lane.outbox import message_of
from coordinator.protocol.wire import encode_pack, headers_of_pack
from coordinator.runtime.recording import Attributes
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.transports.emitting import EmittedMessage, Emitting
from coordinator.transports.redis.entries import encoded_head
from coordinator.transports.redis.keys import system_stream_key
from coordinator.transports.redis.publisher import RedisPublisher

MESSAGING: Final = messaging(is_rabbitmq=False)


class RedisEmitted(Emitting):
    """Used within the loop of its publisher."""

    messaging: ClassVar[Attributes] = MESSAGING

    def __init__(
        self,
        publisher: RedisPublisher,
        on_confirmed: Callable[[Sequence[OutboxEntry]], None],
        retry_delay_s: float,
        by: str | None = None,
    ) -> None:
        """`by` names the process that publishes."""
        super().__init__(on_confirmed, retry_delay_s)
        self._publisher = publisher
        self._by = by

    def _put(self, target: str, emitted: Sequence[EmittedMessage]) -> "asyncio.Future[None]":
        if len(emitted) == 1:
            (only,) = emitted
            head, body = _head(only, self._by), only.entry.arguments
        else:
            messages = [each.message for each in emitted]
            head = encoded_head(None, headers_of_pack(messages), at=int(time()), by=self._by)
            body = encode_pack(messages, with_origin=True)
        return self._publisher.publish(target, system_stream_key(target), head, body)


def head_of_emitted(entry: OutboxEntry) -> bytes:
    """The head with which an emitted command, or an effect, travels alone."""
    return _head(EmittedMessage(entry, message_of(entry)), None)


def _head(emitted: EmittedMessage, by: str | None) -> bytes:
    return encoded_head(emitted.message, emitted.headers, at=emitted.at_s, by=by)
