"""The messages of an effect worker over Redis: results, unreadable effects, and effects that are put back."""

import time
from collections.abc import Awaitable
from typing import Any, ClassVar, Final

from coordinator.client.publish_spans import messaging
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.recording import Attributes
from coordinator.transports.effect_bringing import EffectBringing
from coordinator.transports.redis.entries import encoded_head
from coordinator.transports.redis.keys import system_stream_key
from coordinator.transports.redis.publisher import RedisPublisher

MESSAGING: Final = messaging(is_rabbitmq=False)


class RedisBringing(EffectBringing):
    """Publishes for the effects of one service. Each message waits by itself for a queue that takes it."""

    messaging: ClassVar[Attributes] = MESSAGING

    def __init__(self, service: str, publisher: RedisPublisher, pause_s: float) -> None:
        super().__init__(service, pause_s)
        self._publisher = publisher
        self.by = f"effects.{service}"

    def _put(self, lane: str, message: CommandMessage, headers: dict[str, Any]) -> Awaitable[None]:
        head = encoded_head(message, headers, at=int(time.time()), by=self.by)
        return self._publisher.publish(lane, system_stream_key(lane), head, message.arguments)
