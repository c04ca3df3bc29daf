"""The messages of an effect worker over RabbitMQ: results, unreadable effects, and effects that are put back."""

import time
from collections.abc import Awaitable
from typing import Any, ClassVar, Final

import pika

from coordinator.client.publish_spans import messaging
from coordinator.protocol.attempted import Attempted
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.recording import Attributes
from coordinator.service.errors import Unavailable
from coordinator.service.outside_calls import effects_key
from coordinator.transports.effect_bringing import EffectBringing, headers_carrying
from coordinator.transports.rabbitmq.effects.retry_queues import HEADER_PUT_BACK_AT, retry_key
from coordinator.transports.rabbitmq.properties import app_id, command_properties
from coordinator.transports.rabbitmq.publisher import Publisher
from coordinator.transports.rabbitmq.topology import SYSTEM_EXCHANGE

MESSAGING: Final = messaging(is_rabbitmq=True)


class Bringing(EffectBringing):
    """Publishes for the effects of one service. Each message waits by itself for a queue that takes it."""

    messaging: ClassVar[Attributes] = MESSAGING

    def __init__(self, service: str, publisher: Publisher, pause_s: float) -> None:
        super().__init__(service, pause_s)
        self._publisher = publisher
        self._app_id = app_id(f"effects.{service}")

    def _put(self, lane: str, message: CommandMessage, headers: dict[str, Any]) -> Awaitable[None]:
        properties = command_properties(message, headers, timestamp=int(time.time()), app_id=self._app_id)
        return self._publisher.publish(SYSTEM_EXCHANGE, lane, properties, message.arguments)

    async def put_back(
        self, message: CommandMessage, attempted: Attempted, emitted_at_s: int | None, delay_s: float
    ) -> bool:
        """Have the effect come again after about this delay, to any worker. False: no queue takes it now."""
        target = retry_key(self._service, delay_s)
        properties = _carrying(message, attempted, emitted_at_s, self._app_id)
        properties.headers[HEADER_PUT_BACK_AT] = int(time.time() * 1000)
        try:
            await self._publisher.publish(SYSTEM_EXCHANGE, target, properties, message.arguments)
        except Unavailable as error:
            self._warn("effect_not_put_back", target, error, command_id=message.command_id)
            return False
        return True

    async def bring_again(self, message: CommandMessage, attempted: Attempted, emitted_at_s: int | None) -> None:
        """Bring an effect that was put back to the workers. Return once the broker has it."""
        target = effects_key(self._service)

        def put() -> Awaitable[None]:
            properties = _carrying(message, attempted, emitted_at_s, self._app_id)
            return self._publisher.publish(SYSTEM_EXCHANGE, target, properties, message.arguments)

        await self._carry_on(target, put, message)


def _carrying(
    message: CommandMessage, attempted: Attempted, emitted_at_s: int | None, publisher: str | None = None
) -> pika.BasicProperties:
    """The properties of a message that carries an effect on."""
    headers = headers_carrying(message, attempted)
    return command_properties(message, headers, timestamp=emitted_at_s, app_id=publisher)
