"""RabbitMQ keeps what is promised to the workers of effects."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest

from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.settings import BrokerSettings
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.transports.rabbitmq.amqp import AmqpConnection
from coordinator.transports.rabbitmq.effects.transport import RabbitEffects
from coordinator.transports.rabbitmq.emitted import properties_of
from coordinator.transports.rabbitmq.publisher import Publisher
from coordinator.transports.rabbitmq.topology import SYSTEM_EXCHANGE
from tests.integration.test_transports import RabbitConsuming
from tests.support.effect_contract import EffectContract
from tests.support.servers import Environment


class RabbitEffecting:
    """A service of the test's own on the broker."""

    def __init__(self, broker: BrokerSettings, stack: AsyncExitStack) -> None:
        self.service = f"contract{uuid4().hex[:12]}"
        self._broker = broker
        self._stack = stack
        self._publisher = Publisher(broker, "contract", (SYSTEM_EXCHANGE,))
        self._consuming: RabbitConsuming | None = None

    async def open(self) -> None:
        """Declare what the service's coordinator declares."""
        connection = await AmqpConnection.open(self._broker, "contract")
        channel = await connection.channel()
        await channel.declare_lane(self.service, self._broker.queue_bytes_max)
        await channel.declare_effects(self.service, self._broker.queue_bytes_max)
        await connection.close()
        self._publisher.start()
        self._stack.push_async_callback(self._publisher.close)
        await self._publisher.wait_ready()

    async def emit(self, entry: OutboxEntry) -> None:
        await self._publisher.publish(SYSTEM_EXCHANGE, entry.lane, properties_of(entry), entry.arguments)

    async def transport(self, prefetch: int) -> RabbitEffects:
        return RabbitEffects(self.service, self._broker, prefetch)

    async def brought(self) -> CommandMessage:
        if self._consuming is None:
            self._consuming = RabbitConsuming(self.service, self._broker)
            self._stack.push_async_callback(asyncio.to_thread, self._consuming.consumer.stop, 10.0)
        (delivery,) = await self._consuming.take(1)
        await self._consuming.settle([delivery])
        (message,) = delivery.commands
        return message


class TestRabbitMQ(EffectContract):
    @pytest.fixture
    async def effecting(self, administrators: Environment) -> AsyncIterator[RabbitEffecting]:
        async with AsyncExitStack() as stack:
            effecting = RabbitEffecting(BrokerSettings(url=administrators["AMQP_URL"]), stack)
            await effecting.open()
            yield effecting
