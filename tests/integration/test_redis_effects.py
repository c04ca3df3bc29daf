"""Redis keeps what is promised to the workers of effects."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import pytest
import redis

from coordinator.dev.servers.redis_broker import RedisBroker
from coordinator.operate.queue_depth import EffectsDepth
from coordinator.operate.redis_broker import connected_to_redis
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.settings import BrokerSettings
from coordinator.service.errors import Overloaded
from coordinator.service.outside_calls import effects_key
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.transports.rabbitmq.rights import OPERATOR, BrokerNames
from coordinator.transports.redis.connection import RedisConnection
from coordinator.transports.redis.effects.transport import LOOK_S, RedisEffects
from coordinator.transports.redis.emitted import head_of_emitted
from coordinator.transports.redis.keys import counter_key, later_key, system_stream_key, worker_key
from coordinator.transports.redis.publisher import RedisPublisher
from coordinator.transports.redis.rights import redis_accounts, rules_of
from coordinator.transports.redis.scripts import GREET, NUMBER_MAX, RUNS_MAX
from tests.support.effect_contract import PREFETCH, WITHIN_S, EffectContract, Working, numbers
from tests.support.redis_transport import RedisConsuming, made_queue, until_taken
from tests.support.system import wait_until


class RedisEffecting:
    """A service of the test's own on Redis."""

    def __init__(self, broker: BrokerSettings, stack: AsyncExitStack) -> None:
        self.service = f"contract{uuid4().hex[:12]}"
        self.key = effects_key(self.service)
        self.broker = broker
        self._stack = stack
        self._publisher = RedisPublisher(broker, "contract")
        self._consuming: RedisConsuming | None = None

    async def open(self) -> None:
        """Make what the service's coordinator makes."""
        await made_queue(self.broker, self.service)
        connection = await RedisConnection.open(self.broker, "contract")
        keys = (counter_key(self.key), system_stream_key(self.key))
        await connection.run_script(GREET, keys, connection.run, 1, NUMBER_MAX, RUNS_MAX)
        await connection.close()
        self._publisher.start()
        self._stack.push_async_callback(self._publisher.close)
        await self._publisher.wait_ready()

    async def emit(self, entry: OutboxEntry) -> None:
        await self.add(head_of_emitted(entry), entry.arguments)

    async def add(self, head: bytes, body: bytes) -> None:
        await self._publisher.publish(self.key, system_stream_key(self.key), head, body)

    async def transport(self, prefetch: int) -> RedisEffects:
        return RedisEffects(self.service, self.broker, prefetch)

    async def brought(self) -> CommandMessage:
        if self._consuming is None:
            self._consuming = RedisConsuming(self.service, self.broker)
            self._stack.push_async_callback(asyncio.to_thread, self._consuming.consumer.stop, 10.0)
        (delivery,) = await self._consuming.take(1)
        await self._consuming.settle([delivery])
        (message,) = delivery.commands
        return message


class TestRedis(EffectContract):
    @pytest.fixture
    async def effecting(self, redis_broker: RedisBroker) -> AsyncIterator[RedisEffecting]:
        async with AsyncExitStack() as stack:
            effecting = RedisEffecting(BrokerSettings(url=redis_broker.url), stack)
            await effecting.open()
            yield effecting

    @pytest.fixture
    def administrator(self, redis_broker: RedisBroker) -> Iterator[redis.Redis]:
        with redis.Redis.from_url(redis_broker.url) as client:
            yield client

    async def test_what_a_dead_worker_had_comes_to_another(
        self, effecting: RedisEffecting, administrator: redis.Redis
    ) -> None:
        """Its key expires. It is not taken from one that lives."""
        async with asyncio.timeout(WITHIN_S):
            dead, other = await self._worker(effecting), await self._worker(effecting)
            await self._emit(effecting, *range(1, 2 * PREFETCH + 1))
            of_dead, of_other = await dead.take(PREFETCH), await other.take(PREFETCH)
            assert sorted(numbers([*of_dead, *of_other])) == list(range(1, 2 * PREFETCH + 1))
            assert not await other.has_another()
            await dead.end()
            other.transport.acknowledge(of_other)
            again = await other.take(PREFETCH)
            assert numbers(again) == numbers(of_dead)
            assert all(each.attempted.may_have_happened for each in again)
            other.transport.acknowledge(again)
            stream = system_stream_key(effecting.key)
            await asyncio.to_thread(wait_until, lambda: administrator.xlen(stream) == 0, "nothing is left")
            await other.end()
        assert administrator.hget(counter_key(effecting.key), "bytes") == b"0"
        assert not administrator.keys(worker_key(effecting.service, "*"))

    async def test_operators_see_what_a_dead_worker_had_as_waiting(self, effecting: RedisEffecting) -> None:
        """Redis keeps its name, and its effects as pending, until another worker claims them."""

        def depth() -> EffectsDepth | None:
            with connected_to_redis(effecting.broker) as seen:
                return seen.effects_depth(effecting.service)

        async with asyncio.timeout(WITHIN_S):
            worker = await self._worker(effecting)
            await self._emit(effecting, 1)
            await worker.take(1)
            assert depth() == EffectsDepth(waiting=0, consumers=1)
            await worker.end()
        assert depth() == EffectsDepth(waiting=1, consumers=0)

    @pytest.mark.parametrize("lacks", ["", "+xinfo|consumers", "+xinfo|groups"])
    async def test_an_operator_s_account_of_another_release_sees_how_many_effects_wait(
        self, effecting: RedisEffecting, administrator: redis.Redis, lacks: str
    ) -> None:
        (account,) = (each for each in redis_accounts(BrokerNames(lanes=["users"])) if each.name == OPERATOR)
        rules = [rule for rule in rules_of(account) if rule != lacks]
        run: Callable[..., Any] = administrator.execute_command
        run("ACL", "SETUSER", "yesterday", "reset", "on", ">yesterday", *rules)
        url = f"redis://yesterday:yesterday@{effecting.broker.url.rpartition('@')[2]}"
        async with asyncio.timeout(WITHIN_S):
            worker = await self._worker(effecting)
            await self._emit(effecting, 1, 2)
            await worker.take(1)
            with connected_to_redis(BrokerSettings(url=url)) as seen:
                depth = seen.effects_depth(effecting.service)
            await worker.end()
        run("ACL", "DELUSER", "yesterday")
        assert depth is not None
        assert depth.consumers == 1

    async def test_a_worker_that_stops_does_not_bring_back_to_itself_what_it_puts_back(
        self, effecting: RedisEffecting, administrator: redis.Redis
    ) -> None:
        """Else the next one would have it as an effect that may have happened."""
        async with asyncio.timeout(WITHIN_S):
            worker = await self._worker(effecting)
            await self._emit(effecting, 1)
            taken = await worker.take(1)
            worker.transport.stop()
            assert await worker.transport.put_back(taken[0], 0.0)
            worker.transport.acknowledge(taken)
            await asyncio.sleep(2 * LOOK_S)  # for nothing: there is no event of what must not happen
            assert administrator.zcard(later_key(effecting.service)) == 1
            await worker.end()
            other = await self._worker(effecting)
            (again,) = await other.take(1)
            assert not again.attempted.may_have_happened
            await other.end()

    async def test_an_effect_that_cannot_be_read_comes_with_its_defect(
        self, effecting: RedisEffecting, administrator: redis.Redis
    ) -> None:
        async with asyncio.timeout(WITHIN_S):
            worker = await self._worker(effecting)
            await effecting.add(b"{", b"")
            await effecting.add(b'{"content":"application/vnd.write-coordinator.pack+json"}', b"[{},{}]")
            administrator.xadd(system_stream_key(effecting.key), {"a": "b"})
            administrator.zadd(later_key(effecting.service), {"no line's end": 1})
            await self._emit(effecting, 1)
            taken = await worker.take(PREFETCH)
            worker.transport.acknowledge(taken)
            taken += await worker.take(2)
            worker.transport.acknowledge(taken[PREFETCH:])
            await worker.end()
        defects = sorted(each.message.defect.code for each in taken if each.message.defect is not None)
        assert defects == ["malformed_effect", "malformed_properties", "malformed_properties", "malformed_properties"]
        assert sum(each.message.defect is None for each in taken) == 1

    @pytest.mark.parametrize("entry_id", ["*", f"{NUMBER_MAX + 9}-0"])
    async def test_an_effect_added_by_hand_leaves_room_for_others(
        self, effecting: RedisEffecting, administrator: redis.Redis, entry_id: str
    ) -> None:
        """Its stream remembers its id: others are put back, and emitted, behind it."""
        stream = system_stream_key(effecting.key)
        async with asyncio.timeout(WITHIN_S):
            worker = await self._worker(effecting)
            await self._emit(effecting, 1)
            (waiting,) = await worker.take(1)
            assert await worker.transport.put_back(waiting, 0.5)
            administrator.xadd(stream, {"a": "b"}, id=entry_id)
            (foreign,) = await worker.take(1)
            worker.transport.acknowledge([foreign, waiting])
            assert numbers(await worker.take(1)) == [1]
            await until_taken(lambda: self._emit(effecting, 2))
            assert numbers(await worker.take(1)) == [2]
            await worker.end()

    async def test_workers_of_a_redis_without_memory_go_on(
        self, effecting: RedisEffecting, administrator: redis.Redis
    ) -> None:
        """They take what waits, and what was put back is due; it refuses what would be put back now."""
        async with asyncio.timeout(WITHIN_S):
            await self._emit(effecting, 1, 2)
            first = await self._worker(effecting)
            one, two = await first.take(2)
            assert await first.transport.put_back(one, 0.0)
            first.transport.acknowledge([one])
            administrator.config_set("maxmemory", "1mb")
            try:
                assert not await first.transport.put_back(two, 0.0)
                await first.end()
                worker = await self._worker(effecting)
                taken = await worker.take(2)
                assert sorted(numbers(taken)) == [1, 2]
                worker.transport.acknowledge(taken)
                stream = system_stream_key(effecting.key)
                await asyncio.to_thread(wait_until, lambda: administrator.xlen(stream) == 0, "nothing is left")
                await worker.end()
            finally:
                administrator.config_set("maxmemory", 0)

    async def test_a_full_queue_that_was_emptied_by_hand_takes_effects_again(
        self, effecting: RedisEffecting, administrator: redis.Redis
    ) -> None:
        administrator.hset(counter_key(effecting.key), "bytes", str(1 << 40))
        async with asyncio.timeout(WITHIN_S):
            with pytest.raises(Overloaded):
                await self._emit(effecting, 1)
            worker = await self._worker(effecting)
            await until_taken(lambda: self._emit(effecting, 2))
            assert numbers(await worker.take(1)) == [2]
            await worker.end()

    async def test_a_full_queue_takes_nothing_back(self, effecting: RedisEffecting) -> None:
        async with asyncio.timeout(WITHIN_S):
            effecting.broker = effecting.broker.model_copy(update={"queue_bytes_max": 1})
            worker: Working = await self._worker(effecting)
            await self._emit(effecting, 1)
            (taken,) = await worker.take(1)
            assert not await worker.transport.put_back(taken, 1.0)
            await worker.end()
