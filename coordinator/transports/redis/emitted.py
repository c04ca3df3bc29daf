"""How emitted commands and effects are published to Redis: to the streams of what the system says."""

import asyncio
from collections.abc import Callable, Sequence
from time import time
from typing import Any, ClassVar, Final

from coordinator.client.publish_spans import messaging
from coordinator.lane.outbox import message_of
from coordinator.protocol.wire import HEADER_REPLAYED, CommandMessage, headers_of
from coordinator.runtime.recording import Attributes
from coordinator.service.options import Options
from coordinator.service.outside_calls import EFFECTS_PREFIX
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.transports.emitting import Emitting
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

    def _put(self, entry: OutboxEntry, message: CommandMessage) -> "asyncio.Future[None]":
        head = head_of_emitted(entry, message, self._by)
        return self._publisher.publish(entry.lane, system_stream_key(entry.lane), head, entry.arguments)


def head_of_emitted(entry: OutboxEntry, message: CommandMessage | None = None, by: str | None = None) -> bytes:
    """The head with which an emitted command, or an effect, travels."""
    message = message_of(entry) if message is None else message
    headers: dict[str, Any] = headers_of(message, is_lowered=message.origin == "public")
    if Options.decode(entry.options).replayed:
        headers[HEADER_REPLAYED] = True
    # From an effect's age its worker knows what the other side may have forgotten.
    at = int(entry.created_at.timestamp() if entry.lane.startswith(EFFECTS_PREFIX) else time())
    return encoded_head(message, headers, at=at, by=by)
