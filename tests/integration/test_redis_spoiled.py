"""A lane on Redis goes on, whatever somebody did to its streams by hand, and when Redis has no memory left, or takes no
writes for another reason."""

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import redis

from coordinator.dev.servers.redis_broker import RedisBroker
from coordinator.lane.high_water import Mark
from coordinator.service.errors import BrokerUnavailable, Overloaded
from coordinator.transports.redis.connection import RedisConnection
from coordinator.transports.redis.keys import commands_key, counter_key, kept_key, lease_key
from coordinator.transports.redis.lane_lease import LaneLease
from coordinator.transports.redis.lost_messages import LOST
from coordinator.transports.redis.scripts import JUMPS_MAX, NUMBER_MAX
from tests.support.redis_transport import ROOM, RedisConsuming, RedisTransporting, insisting
from tests.support.system import wait_until
from tests.support.transport_contract import WITHIN_S, command, numbers


@pytest.fixture
def administrator(redis_broker: RedisBroker) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_broker.url) as client:
        yield client


@pytest.fixture
async def transporting(redis_broker: RedisBroker) -> AsyncIterator[RedisTransporting]:
    async with AsyncExitStack() as stack:
        yield RedisTransporting(redis_broker, stack)


_ADD_AND_TAKE_OUT = "redis.call('XDEL', KEYS[1], redis.call('XADD', KEYS[1], ARGV[1], 'anything', 'at all'))"


async def until(holds: Callable[[], bool], what: str = "nothing is left") -> None:
    await asyncio.to_thread(wait_until, holds, what)


async def publish_many(transporting: RedisTransporting) -> None:
    for number in range(1, 2 * ROOM):
        await transporting.publish(command(number))


async def settled(consumer: RedisConsuming, count: int, administrator: redis.Redis, stream: str) -> list[int]:
    """The numbers of so many deliveries, once they are out of the stream."""
    taken = await consumer.take(count)
    await consumer.settle(taken)
    await until(lambda: not administrator.xlen(stream))
    return numbers([each for each in taken if each.commands[0].defect is None])


@pytest.mark.parametrize("entry_id", ["*", "7-3", f"{NUMBER_MAX - 1}-0", f"{2**53}-0", f"{2**64 - 1}-7"])
@pytest.mark.parametrize("by", ["the consumer", "hand", "hand, while another waits"])
async def test_an_entry_added_by_hand_and_taken_out_again_leaves_room_for_others(
    transporting: RedisTransporting, administrator: redis.Redis, entry_id: str, by: str
) -> None:
    """Its stream remembers its id. The numbers that are passed over are none that Redis has lost."""
    stream = commands_key(transporting.lane, is_system=False)
    async with asyncio.timeout(WITHIN_S):
        consumer = await transporting.consumer()
        await transporting.publish(command(1))
        waiting = await consumer.take(1)
        assert numbers(waiting) == [1]
        if by != "hand, while another waits":
            await consumer.settle(waiting)
            await until(lambda: not administrator.xlen(stream))
        if by == "the consumer":
            administrator.xadd(stream, {"anything": "at all"}, id=entry_id)
            assert await settled(consumer, 1, administrator, stream) == []
        else:
            # More jumps than these are not remembered.
            jumps = " ".join(["1=1"] * JUMPS_MAX)
            administrator.hset(counter_key(transporting.lane), "jumps", jumps)
            administrator.eval(_ADD_AND_TAKE_OUT, 1, stream, entry_id)
        for number in range(2, 6):
            await insisting(transporting, command(number))
            taken = await consumer.take(1)
            await consumer.settle(taken)
            assert numbers(taken) == [number]
        await consumer.leave()
    assert LOST.labels(transporting.lane)._value.get() == 0
    assert len((administrator.hget(counter_key(transporting.lane), "jumps") or b"").split()) <= JUMPS_MAX


@pytest.mark.parametrize("how", ["XADD", "XDEL"])
async def test_commands_that_somebody_takes_away_before_they_are_read_are_noticed(
    transporting: RedisTransporting, administrator: redis.Redis, how: str
) -> None:
    stream = commands_key(transporting.lane, is_system=False)
    lost = LOST.labels(transporting.lane)._value
    async with asyncio.timeout(WITHIN_S):
        for number in range(1, 6):
            await transporting.publish(command(number))
        first = await transporting.consumer()
        taken = await first.take(5)
        # What is settled behind others is gone, and is missed by nobody.
        await first.settle(taken[1:3] + taken[4:])
        await first.leave()
        second = await transporting.consumer()
        taken = await second.take(2)
        assert numbers(taken) == [1, 4]
        await second.settle(taken[:1])
        await second.leave()
        for number in range(6, 9):
            await transporting.publish(command(number))
        if how == "XADD":
            administrator.xadd(stream, {"anything": "at all"}, maxlen=0, approximate=False)
        else:
            administrator.xdel(stream, "6-0", "8-0")
        third = await transporting.consumer()
        if how == "XDEL":
            assert numbers(await third.take(2)) == [4, 7]
        await transporting.publish(command(9))
        assert numbers(await third.take(1)) == [9]
        await third.leave()
    assert lost.get() == (3 if how == "XADD" else 2)


async def test_an_entry_added_by_hand_is_no_number_that_redis_has_lost(
    transporting: RedisTransporting, administrator: redis.Redis
) -> None:
    """Its id may be far above the counter, when its consumer connects again."""
    lost = LOST.labels(transporting.lane)._value
    async with asyncio.timeout(WITHIN_S):
        consumer = await transporting.consumer()
        await transporting.publish(command(1))
        administrator.xadd(commands_key(transporting.lane, is_system=False), {"anything": "at all"})
        taken = await consumer.take(2)
        administrator.set(lease_key(transporting.lane), "another's", px=100)
        await consumer.settle(taken)
        assert len(await consumer.take(2)) == 2, "on the next channel"
        await consumer.leave()
    assert lost.get() == 0


async def test_commands_behind_one_with_a_great_number_keep_their_order(
    transporting: RedisTransporting, administrator: redis.Redis
) -> None:
    """Although numbers that large are looked at twice."""
    for is_system, entry_id in ((False, f"{NUMBER_MAX - 1}-0"), (True, f"{2**53}-0")):
        administrator.xadd(commands_key(transporting.lane, is_system=is_system), {"a": "b"}, id=entry_id)
    async with asyncio.timeout(WITHIN_S):
        consumer = await transporting.consumer()
        for number in range(1, 21):
            await insisting(transporting, command(number, origin="system" if number % 3 else "public"))
        taken = await consumer.take(22)
        await consumer.leave()
    assert numbers([each for each in taken if each.commands[0].defect is None]) == list(range(1, 21))


@pytest.mark.parametrize("how", ["DEL", "XTRIM"])
async def test_a_full_queue_that_was_emptied_by_hand_takes_commands_again(
    transporting: RedisTransporting, administrator: redis.Redis, how: str
) -> None:
    transporting.limit()
    stream = commands_key(transporting.lane, is_system=False)
    async with asyncio.timeout(WITHIN_S):
        with pytest.raises(Overloaded):
            await publish_many(transporting)
        if how == "DEL":
            administrator.delete(stream)
        else:
            administrator.xtrim(stream, maxlen=0, approximate=False)
        consumer = await transporting.consumer()
        await insisting(transporting, command(100))
        assert numbers(await consumer.take(1)) == [100]
        await consumer.leave()


@pytest.mark.parametrize("policy", ["noeviction", "volatile-ttl"])
async def test_a_redis_without_memory_is_emptied_by_its_consumers(
    transporting: RedisTransporting, administrator: redis.Redis, policy: str
) -> None:
    """It refuses what would take more, but a consumer takes its turn, keeps it, and takes out what it has settled.

    Also where somebody has changed its policy since it was looked at: it takes the lease away then, which expires.
    """
    stream = commands_key(transporting.lane, is_system=False)
    async with asyncio.timeout(WITHIN_S):
        for number in range(1, 6):
            await transporting.publish(command(number))
        publisher = await transporting.publisher()
        administrator.config_set("maxmemory", "1mb")
        try:
            consumer = await transporting.consumer()
            taken = await consumer.take(5)
            administrator.config_set("maxmemory-policy", policy)
            with pytest.raises(Overloaded, match="no memory"):
                await transporting.publish(command(6))
            assert (publisher.is_healthy, publisher.problem) == (False, "the broker has no memory left")
            assert numbers(taken) == [1, 2, 3, 4, 5]
            channel = consumer.channel
            await until(lambda: administrator.hget(kept_key(transporting.lane), "unsettled") == b"5", "it is renewed")
            await consumer.settle(taken)
            await until(lambda: not administrator.xlen(stream))
            consumer.consumer.keep(channel, Mark(sequence=5))
            await until(lambda: bool(administrator.hget(kept_key(transporting.lane), "mark")), "it is kept")
            assert consumer.channel == channel
            await consumer.leave()
        finally:
            administrator.config_set("maxmemory", 0)
            administrator.config_set("maxmemory-policy", "noeviction")
        # It sees by itself that there is room again.
        await until(lambda: publisher.is_healthy, "it is ready")


@pytest.mark.parametrize("why", ["NOREPLICAS", "MISCONF", "BUSY"])
async def test_whoever_is_refused_by_a_redis_that_takes_no_writes_is_unready_until_it_does(
    transporting: RedisTransporting, administrator: redis.Redis, why: str
) -> None:
    async with asyncio.timeout(WITHIN_S):
        consumer = await transporting.consumer()
        publisher = await transporting.publisher()
        # Else an attempt to consume is what says so first, and it connects again and again.
        await consumer.leave()
        with _takes_no_writes(administrator, why):
            with pytest.raises(BrokerUnavailable, match=why):
                await transporting.publish(command(1))
            assert (publisher.is_healthy, publisher.problem) == (False, "the broker takes no writes")
            assert why in publisher.unready_reason
            await asyncio.sleep(1.5)
            assert not publisher.is_healthy
        await until(lambda: publisher.is_healthy, "it is ready")
        await transporting.publish(command(2))
        consumer = await transporting.consumer()
        assert numbers(await consumer.take(1)) == [2]


@contextmanager
def _takes_no_writes(administrator: redis.Redis, why: str) -> Iterator[None]:
    """`why`: it has too few replicas, cannot write its snapshot, or a script keeps it busy."""
    match why:
        case "NOREPLICAS":
            administrator.config_set("min-replicas-to-write", 1)
        case "MISCONF":
            # A folder stands where the snapshot would.
            (_folder(administrator) / "dump.rdb" / "in the way").mkdir(parents=True)
            administrator.config_set("save", "3600 1")
            administrator.bgsave()
            wait_until(lambda: administrator.info("persistence")["rdb_last_bgsave_status"] == "err", "it has failed")
        case "BUSY":
            administrator.config_set("busy-reply-threshold", 100)
            endless = threading.Thread(target=_run_endlessly, args=(administrator,))
            endless.start()
            wait_until(lambda: _is_busy(administrator), "the script keeps it busy")
    try:
        yield
    finally:
        match why:
            case "NOREPLICAS":
                administrator.config_set("min-replicas-to-write", 0)
            case "MISCONF":
                administrator.config_set("save", "")
                shutil.rmtree(_folder(administrator) / "dump.rdb")
            case "BUSY":
                administrator.script_kill()
                endless.join()


def _run_endlessly(administrator: redis.Redis) -> None:
    with suppress(redis.ResponseError):  # it is killed
        administrator.eval("while true do end", 0)


def _is_busy(administrator: redis.Redis) -> bool:
    try:
        administrator.ping()
    except redis.ResponseError:
        return True
    return False


def _folder(administrator: redis.Redis) -> Path:
    return Path(str(administrator.config_get("dir")["dir"]))


async def test_a_turn_of_before_redis_lost_everything_is_not_taken_for_a_later_one(
    transporting: RedisTransporting, administrator: redis.Redis
) -> None:
    """Its late settlements would take out what has the same numbers now."""
    connections = [await RedisConnection.open(transporting.broker, "test") for _ in range(2)]
    old, new = (LaneLease("lost", each, 10.0) for each in connections)
    await old.take()
    administrator.delete(lease_key("lost"), kept_key("lost"))
    await new.take()
    assert (old.number, new.number) == (1, 1)
    # The new one's process dies, and its lease ends.
    administrator.delete(lease_key("lost"))
    assert not await old.renew(0)
    assert await old.keep(b"{}") == 0
    assert await new.renew(0)
    for each in connections:
        await each.close()
