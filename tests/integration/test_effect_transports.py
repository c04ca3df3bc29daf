"""RabbitMQ keeps what is promised to the workers of effects."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from uuid import uuid4

import pytest

from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.settings import BrokerSettings
from coordinator.service.errors import Unavailable
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.transports.rabbitmq import bindings
from coordinator.transports.rabbitmq.amqp import AmqpConnection
from coordinator.transports.rabbitmq.bindings import queues_of_effects
from coordinator.transports.rabbitmq.effects.transport import RabbitEffects
from coordinator.transports.rabbitmq.emitted import properties_of
from coordinator.transports.rabbitmq.publisher import Publisher
from coordinator.transports.rabbitmq.topology import SYSTEM_EXCHANGE
from tests.integration.test_transports import RabbitConsuming
from tests.support.effect_contract import EffectContract, numbers
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

    async def unbind(self) -> None:
        """As somebody who does not know what it is for."""
        connection = await AmqpConnection.open(self._broker, "contract")
        channel = await connection.channel()
        for queue in queues_of_effects(self.service):
            await channel.call(channel.raw.queue_unbind, queue.name, SYSTEM_EXCHANGE, queue.key)
        await connection.close()

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

    async def test_effects_find_their_workers_again_whose_way_somebody_takes_away(
        self, effecting: RabbitEffecting, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The first attempt, and a later one."""
        monkeypatch.setattr(bindings, "BIND_EVERY_S", 0.2)
        async with asyncio.timeout(2 * self.within_s):
            worker = await self._worker(effecting)
            while worker.transport.unready_reason is not None:  # noqa: ASYNC110  # the transport offers no event
                await asyncio.sleep(0.01)
            await effecting.unbind()
            is_emitted = False
            while not is_emitted:
                # As long as no queue takes it, the broker says so.
                with suppress(Unavailable):
                    await self._emit(effecting, 1)
                    is_emitted = True
                await asyncio.sleep(0.05)
            (delivery,) = await worker.take(1)
            await worker.put_back(delivery)
            worker.transport.acknowledge([delivery])
            again = await worker.take(1)
            await worker.end()
        assert numbers(again) == [1]
