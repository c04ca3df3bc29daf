"""RabbitMQ keeps what a transport promises."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from itertools import cycle
from uuid import uuid4

import pika
import pytest

from coordinator.dev.servers.server_set import ServerSet
from coordinator.lane.delivery import Delivery
from coordinator.lane.high_water import Mark
from coordinator.protocol.wire import JSON_CONTENT, CommandMessage
from coordinator.runtime.settings import BrokerSettings, LaneSettings
from coordinator.service.errors import BrokerUnavailable, ConfigurationError, Unavailable
from coordinator.service.options import Origin
from coordinator.service.outcome import Outcome
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.transports.rabbitmq import bindings, marks, writes
from coordinator.transports.rabbitmq.amqp import AmqpConnection
from coordinator.transports.rabbitmq.consumer import LaneConsumer
from coordinator.transports.rabbitmq.emitted import EmittedCommands
from coordinator.transports.rabbitmq.marks import read_mark
from coordinator.transports.rabbitmq.publisher import Publisher
from coordinator.transports.rabbitmq.topology import SYSTEM_EXCHANGE, WRITES_EXCHANGE, mark_queue_name, queue_name
from coordinator.transports.rabbitmq.writes import RabbitWrites
from tests.support.consuming import InboxConsuming, settlement
from tests.support.servers import Environment, quorum_queues_are_noted
from tests.support.system import wait_until
from tests.support.transport_contract import COMMAND_BYTES, SOON_S, WITHIN_S, BrokerContract, command

ROOM = 5


class RabbitConsuming(InboxConsuming):
    """A LaneConsumer, without a lane behind it."""

    def __init__(self, lane: str, broker: BrokerSettings) -> None:
        super().__init__()
        self._lane, self._broker = lane, broker
        settings = LaneSettings(outbox_watch_s=0.1)
        self.consumer = LaneConsumer(lane, broker, self.inbox, settings=settings, holder=f"test {uuid4()}")
        self.consumer.start(lambda _: None)

    async def until_consuming(self) -> None:
        await asyncio.to_thread(wait_until, lambda: self.consumer.is_consuming, "it consumes")

    async def settle(self, deliveries: list[Delivery]) -> None:
        self.consumer.settle(self.inbox.channel_number, settlement(deliveries))

    async def keep(self, mark: Mark) -> None:
        self.consumer.keep(self.channel, mark)
        while await self.kept() != mark:  # noqa: ASYNC110  # the broker offers no event
            await asyncio.sleep(0.01)

    async def kept(self) -> Mark | None:
        connection = await AmqpConnection.open(self._broker, "contract")
        try:
            return await read_mark(connection, self._lane)
        except BrokerUnavailable:
            # Its queue is gone, or somebody reads it.
            return None
        finally:
            await connection.close()

    def hand_over(self, mark: Mark) -> None:
        self.consumer.keep(self.channel, mark)
        assert self.consumer.hand_over(self.channel)

    async def until_behind(self, channel: int) -> None:
        await asyncio.to_thread(
            wait_until, lambda: self.channel != channel and self.consumer.is_consuming, "it consumes again"
        )

    async def leave(self) -> None:
        assert await asyncio.to_thread(self.consumer.stop, 10.0)


class RabbitTransporting:
    """A lane of the test's own on the broker."""

    def __init__(self, environment: Environment, servers: ServerSet, stack: AsyncExitStack) -> None:
        self.lane = f"contract-{uuid4().hex[:12]}"
        self._broker = BrokerSettings(url=environment["AMQP_URL"])
        self._servers = servers
        self._stack = stack
        self._publisher: Publisher | None = None
        self._losing = cycle(("queue_delete", "queue_purge"))

    def limit(self) -> None:
        self._broker = self._broker.model_copy(update={"queue_bytes_max": ROOM * COMMAND_BYTES})

    async def publisher(self) -> Publisher:
        if self._publisher is None:
            await self._declare()
            self._publisher = Publisher(self._broker, "contract", (WRITES_EXCHANGE, SYSTEM_EXCHANGE))
            self._publisher.start()
            self._stack.push_async_callback(self._publisher.close)
            await self._publisher.wait_ready()
        return self._publisher

    async def emitting(self, on_confirmed: Callable[[Sequence[OutboxEntry]], None]) -> EmittedCommands:
        return EmittedCommands(await self.publisher(), on_confirmed, SOON_S)

    async def publish(self, message: CommandMessage) -> None:
        publisher = await self.publisher()
        exchange = SYSTEM_EXCHANGE if message.origin == "system" else WRITES_EXCHANGE
        properties = pika.BasicProperties(
            message_id=message.command_id, type=message.type, content_type=JSON_CONTENT, delivery_mode=2
        )
        await publisher.publish(exchange, self.lane, properties, message.arguments)

    async def ask(self, message: CommandMessage) -> Outcome:
        async with RabbitWrites(
            self._broker, confirm_timeout_s=10, wait_s=10, in_flight_max=10, log=None, name="contract"
        ) as writes:
            return await writes.issue(self.lane, message, None)

    async def consumer(self) -> RabbitConsuming:
        consuming = RabbitConsuming(self.lane, self._broker)
        self._stack.push_async_callback(asyncio.to_thread, consuming.consumer.stop, 10.0)
        await consuming.until_consuming()
        return consuming

    async def lose_mark(self) -> None:
        connection = await AmqpConnection.open(self._broker, "contract")
        channel = await connection.channel()
        await channel.call(getattr(channel.raw, next(self._losing)), mark_queue_name(self.lane))
        await connection.close()

    async def crash(self) -> None:
        broker = self._servers.rabbitmq
        await asyncio.to_thread(wait_until, lambda: quorum_queues_are_noted(broker), "the queue is noted")
        await asyncio.to_thread(broker.kill)
        await asyncio.to_thread(broker.start)

    async def _declare(self) -> None:
        """The queue, which its coordinator declares."""
        connection = await AmqpConnection.open(self._broker, "contract")
        channel = await connection.channel()
        await channel.declare_lane(self.lane, self._broker.queue_bytes_max)
        await connection.close()


class TestRabbitMQ(BrokerContract):
    @pytest.fixture
    async def transporting(
        self, administrators: Environment, native_servers: ServerSet, monkeypatch: pytest.MonkeyPatch
    ) -> AsyncIterator[RabbitTransporting]:
        monkeypatch.setattr(marks, "LOOK_EVERY_S", 0.2)
        async with AsyncExitStack() as stack:
            yield RabbitTransporting(administrators, native_servers, stack)

    async def test_an_account_that_the_broker_knows_by_another_name_is_named_at_once(
        self, transporting: RabbitTransporting, administrators: Environment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """RabbitMQ would refuse each message with its name."""
        await transporting.publish(command(1))
        monkeypatch.setattr(writes, "user_of", lambda _: "somebody-else")
        broker = BrokerSettings(url=administrators["AMQP_URL"])
        with pytest.raises(ConfigurationError, match="user_id property set to 'somebody-else'"):
            async with RabbitWrites(broker, confirm_timeout_s=10, wait_s=10, in_flight_max=10, log=None):
                raise AssertionError("it is connected")

    async def test_a_mark_outlives_the_loss_of_the_connections_that_were_to_carry_it(
        self, transporting: RabbitTransporting
    ) -> None:
        """The lane is idle then, and no next mark makes good for it."""
        mark = Mark(sequence=7, epoch=2, series={"accounts": 4})
        async with asyncio.timeout(6 * WITHIN_S):
            await transporting.publish(command(1))
            first = await transporting.consumer()
            taken = await first.take(1)
            await first.settle(taken)
            broker = transporting._servers.rabbitmq
            await asyncio.to_thread(wait_until, lambda: quorum_queues_are_noted(broker), "the queue is noted")
            await asyncio.to_thread(broker.kill)
            first.consumer.keep(first.channel, mark)
            await asyncio.to_thread(broker.start)
            await self._until_kept(first, mark)

    @pytest.mark.parametrize("what", ["exchange_delete", "queue_unbind"])
    async def test_commands_find_a_lane_again_whose_way_somebody_takes_away(
        self, transporting: RabbitTransporting, monkeypatch: pytest.MonkeyPatch, what: str
    ) -> None:
        """Its consumer is told nothing, and may have had no delivery yet."""
        monkeypatch.setattr(bindings, "BIND_EVERY_S", 0.2)
        lane, origins = transporting.lane, tuple[Origin, ...](("public", "system"))
        async with asyncio.timeout(2 * WITHIN_S):
            consuming = await transporting.consumer()
            # It declares the lane at its start.
            await transporting.publisher()
            connection = await AmqpConnection.open(transporting._broker, "contract")
            channel = await connection.channel()
            for exchange in (WRITES_EXCHANGE, SYSTEM_EXCHANGE):
                named = (exchange,) if what == "exchange_delete" else (queue_name(lane), exchange, lane)
                await channel.call(getattr(channel.raw, what), *named)
            await connection.close()
            for number, origin in enumerate(origins, 1):
                is_published = False
                while not is_published:
                    # As long as no queue takes it, the broker says so.
                    with suppress(Unavailable):
                        await transporting.publish(command(number, origin=origin))
                        is_published = True
                    await asyncio.sleep(0.05)
            taken = await consuming.take(len(origins))
        assert [delivery.commands[0].origin for delivery in taken] == list(origins)
