"""A Redis of a test's own, as a broker, and one lane's way through it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from itertools import cycle
from uuid import uuid4

from coordinator.dev.servers.redis_broker import RedisBroker
from coordinator.lane.delivery import Delivery
from coordinator.lane.high_water import Mark, decode_mark
from coordinator.protocol.wire import CommandMessage, headers_of
from coordinator.runtime.settings import BrokerSettings, LaneSettings
from coordinator.service.errors import BrokerUnavailable, Overloaded
from coordinator.service.outcome import Outcome
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.transports.redis.connection import RedisConnection
from coordinator.transports.redis.consumer import RedisLane
from coordinator.transports.redis.emitted import RedisEmitted
from coordinator.transports.redis.entries import encoded_head
from coordinator.transports.redis.keys import commands_key, counter_key, kept_key
from coordinator.transports.redis.publisher import RedisPublisher
from coordinator.transports.redis.scripts import GREET, NUMBER_MAX, RUNS_MAX
from coordinator.transports.redis.writes import RedisWrites
from tests.support.consuming import InboxConsuming, settlement
from tests.support.system import wait_until
from tests.support.transport_contract import COMMAND_BYTES, SOON_S

ROOM = 5


async def made_queue(broker: BrokerSettings, lane: str) -> None:
    """What the lane's coordinator makes."""
    connection = await RedisConnection.open(broker, "contract")
    streams = (commands_key(lane, is_system=False), commands_key(lane, is_system=True))
    await connection.run_script(GREET, (counter_key(lane), *streams), connection.run, 1, NUMBER_MAX, RUNS_MAX)
    await connection.close()


class RedisConsuming(InboxConsuming):
    """A RedisLane, without a lane behind it."""

    def __init__(
        self,
        lane: str,
        broker: BrokerSettings,
        settings: LaneSettings | None = None,
        *,
        has_effects: bool = False,
        last_place: Callable[[], str | None] | None = None,
    ) -> None:
        super().__init__()
        self._lane, self._broker = lane, broker
        settings = settings or LaneSettings(outbox_watch_s=0.1)
        self.consumer = RedisLane(
            lane,
            broker,
            self.inbox,
            settings=settings,
            holder=f"test {uuid4()}",
            has_effects=has_effects,
            last_place=last_place,
        )
        self.consumer.start(lambda _: None)

    async def until_consuming(self) -> None:
        await asyncio.to_thread(wait_until, lambda: self.consumer.is_consuming, "it consumes")

    async def settle(self, deliveries: list[Delivery]) -> None:
        self.consumer.settle(self.inbox.channel_number, settlement(deliveries))

    async def keep(self, mark: Mark) -> None:
        self.consumer.keep(self.channel, mark)
        while await self.kept() != mark:  # Redis offers no event
            await asyncio.sleep(0.01)

    async def kept(self) -> Mark | None:
        connection = await RedisConnection.open(self._broker, "contract")
        try:
            body = await connection.call("HGET", kept_key(self._lane), "mark")
            return None if body is None else decode_mark(body)
        except ValueError:
            return None
        finally:
            await connection.close()

    def hand_over(self, mark: Mark) -> None:
        self.consumer.keep(self.channel, mark)
        assert self.consumer.hand_over(self.channel)

    async def until_behind(self, channel: int) -> None:
        del channel  # the next one begins with its turn
        await self.until_consuming()

    async def leave(self) -> None:
        assert await asyncio.to_thread(self.consumer.stop, 10.0)


class RedisTransporting:
    """A lane of the test's own on Redis."""

    def __init__(self, server: RedisBroker, stack: AsyncExitStack) -> None:
        self.lane = f"contract-{uuid4().hex[:12]}"
        self.broker = BrokerSettings(url=server.url)
        self.server = server
        self._stack = stack
        self._publisher: RedisPublisher | None = None
        kept = kept_key(self.lane)
        self._losing = cycle((("HDEL", kept, "mark"), ("HSET", kept, "mark", "no mark")))

    def limit(self) -> None:
        self.broker = self.broker.model_copy(update={"queue_bytes_max": ROOM * COMMAND_BYTES})

    async def publisher(self) -> RedisPublisher:
        if self._publisher is None:
            await made_queue(self.broker, self.lane)
            self._publisher = RedisPublisher(self.broker, "contract")
            self._publisher.start()
            self._stack.push_async_callback(self._publisher.close)
            await self._publisher.wait_ready()
        return self._publisher

    async def publish(self, message: CommandMessage) -> None:
        publisher = await self.publisher()
        stream = commands_key(self.lane, is_system=message.origin == "system")
        await publisher.publish(self.lane, stream, encoded_head(message, headers_of(message)), message.arguments)

    async def emitting(self, on_confirmed: Callable[[Sequence[OutboxEntry]], None]) -> RedisEmitted:
        return RedisEmitted(await self.publisher(), on_confirmed, SOON_S)

    async def ask(self, message: CommandMessage) -> Outcome:
        async with RedisWrites(
            self.broker, confirm_timeout_s=10, wait_s=10, in_flight_max=10, log=None, name="contract"
        ) as writes:
            return await writes.issue(self.lane, message, None)

    async def consumer(self, *, last_place: Callable[[], str | None] | None = None) -> RedisConsuming:
        """`last_place` says what the lane's database has of the last command that was settled."""
        consuming = RedisConsuming(self.lane, self.broker, last_place=last_place)
        self._stack.push_async_callback(asyncio.to_thread, consuming.consumer.stop, 10.0)
        await consuming.until_consuming()
        return consuming

    async def lose_mark(self) -> None:
        connection = await RedisConnection.open(self.broker, "contract")
        await connection.call(*next(self._losing))
        await connection.close()

    async def crash(self) -> None:
        await asyncio.to_thread(self.server.kill)
        await asyncio.to_thread(self.server.start)


async def insisting(transporting: RedisTransporting, message: CommandMessage) -> None:
    """Publish until it is taken."""
    await until_taken(lambda: transporting.publish(message))


async def until_taken(publish: Callable[[], Awaitable[None]]) -> None:
    """Publish until Redis takes it."""
    while True:
        try:
            await publish()
        except (BrokerUnavailable, Overloaded):
            await asyncio.sleep(0.05)
        else:
            return
