"""Redis keeps what a transport promises."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import redis

from coordinator.dev.servers.redis_broker import RedisBroker
from coordinator.lane.delivery import Delivery
from coordinator.protocol.decoding import KEPT_BYTES_MAX
from coordinator.runtime.settings import BrokerSettings, LaneSettings
from coordinator.service.errors import BrokerUnavailable, CommandPending, ConfigurationError, InvalidCommand
from coordinator.service.options import Origin
from coordinator.transports.not_sent import NOT_SENT
from coordinator.transports.redis import marks, outcomes, reading, window
from coordinator.transports.redis.connection import RedisConnection
from coordinator.transports.redis.entries import encoded_head
from coordinator.transports.redis.keys import commands_key, counter_key, lease_key
from coordinator.transports.redis.loss import counted_of
from coordinator.transports.redis.lost_messages import LOST
from coordinator.transports.redis.scripts import GREET, NUMBER_MAX, RUNS_MAX
from coordinator.transports.redis.writes import RedisWrites
from tests.faults.proxy import TcpProxy
from tests.support.redis_sentinel import RedisSentinel
from tests.support.redis_transport import RedisConsuming, RedisTransporting, insisting
from tests.support.system import wait_until
from tests.support.transport_contract import COMMAND_BYTES, WITHIN_S, BrokerContract, command, numbers


@pytest.fixture
def administrator(redis_broker: RedisBroker) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_broker.url) as client:
        yield client


@pytest.fixture
def narrow_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """A consumer reads one entry at a time, and no more once it has the bytes of two commands."""
    monkeypatch.setattr(window, "BYTES_MAX", 2 * COMMAND_BYTES)
    monkeypatch.setattr(reading, "READ_ENTRIES_MAX", 1)


@pytest.fixture
async def transporting(redis_broker: RedisBroker, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RedisTransporting]:
    monkeypatch.setattr(marks, "LOOK_EVERY_S", 0.2)
    async with AsyncExitStack() as stack:
        yield RedisTransporting(redis_broker, stack)


class TestRedis(BrokerContract):
    """On a Redis that syncs before it answers."""

    @pytest.mark.parametrize("key", ["public", "system"])
    @pytest.mark.parametrize("entry_id", ["*", "7-3", f"{NUMBER_MAX + 9}-0"])
    async def test_an_entry_that_somebody_adds_by_hand_hurts_no_other(
        self, transporting: RedisTransporting, administrator: redis.Redis, key: str, entry_id: str
    ) -> None:
        """Whatever id it has. It becomes a command with a defect, which its lane keeps as a dead letter."""
        async with asyncio.timeout(WITHIN_S):
            await transporting.publish(command(1))
            stream = commands_key(transporting.lane, is_system=key == "system")
            administrator.xadd(stream, {"anything": b"\xff"}, id=entry_id)
            consumer = await transporting.consumer()
            publishing = asyncio.ensure_future(insisting(transporting, command(2)))
            taken = await consumer.take(3)
            await publishing
            await consumer.settle(taken)
            await until_empty(administrator, transporting.lane)
        defects = [message.defect for delivery in taken for message in delivery.commands]
        assert [defect and defect.code for defect in defects] in (
            [None, "malformed_properties", None],
            [None, None, "malformed_properties"],
        )

    @pytest.mark.parametrize(
        "head",
        [
            b"",
            b"[]",
            b'{"headers":7}',
            b'{"id":[1],"type":{},"content":9,"headers":{},"reply_to":4,"correlation":[],"at":"x"}',
            b'{"headers":{"deadline":[[[[1]]]],"actor":7}}',
            b"[" * 100_000,
            b'{"id":"\xff\xff"}',
            encoded_head(command(1), {"x": [{}] * 100_000}),
        ],
        ids=[
            *("nothing", "an array", "headers that are none", "parts that are none", "a wrong actor", "deep"),
            *("no text", "long"),
        ],
    )
    async def test_a_head_that_cannot_be_read_is_its_command_s_fault(
        self, transporting: RedisTransporting, head: bytes
    ) -> None:
        async with asyncio.timeout(WITHIN_S):
            publisher = await transporting.publisher()
            stream = commands_key(transporting.lane, is_system=False)
            await publisher.publish(transporting.lane, stream, head, b"{}")
            await transporting.publish(command(2))
            consumer = await transporting.consumer()
            bad, good = await consumer.take(2)
            await consumer.settle([bad, good])
        assert [each.defect is None for each in (*bad.commands, *good.commands)] == [False, True]
        assert numbers([good]) == [2]

    async def test_an_entry_of_many_bytes_is_read_and_cut(self, transporting: RedisTransporting) -> None:
        async with asyncio.timeout(WITHIN_S):
            publisher = await transporting.publisher()
            stream = commands_key(transporting.lane, is_system=False)
            head = encoded_head(command(1), {})
            await publisher.publish(transporting.lane, stream, head, b"x" * (40 << 20))
            await transporting.publish(command(2))
            consumer = await transporting.consumer()
            large, small = await consumer.take(2)
        (message,) = large.commands
        assert message.defect is not None
        assert (message.defect.code, len(message.arguments)) == ("message_too_large", KEPT_BYTES_MAX)
        assert numbers([small]) == [2]

    @pytest.mark.usefixtures("narrow_window")
    async def test_a_consumer_has_so_many_bytes_at_a_time(self, transporting: RedisTransporting) -> None:
        async with asyncio.timeout(WITHIN_S):
            for number in range(1, 6):
                await transporting.publish(command(number))
            consumer = await transporting.consumer()
            taken = await consumer.take(3)
            assert not consumer.has_any
            await consumer.settle(taken)
            assert numbers(await consumer.take(2)) == [4, 5]

    @pytest.mark.usefixtures("narrow_window")
    async def test_a_lane_that_waits_for_more_gets_it_whatever_bytes_it_keeps_back(
        self, transporting: RedisTransporting
    ) -> None:
        """The predecessor of what it keeps back may be behind that."""
        async with asyncio.timeout(WITHIN_S):
            for number in range(1, 9):
                await transporting.publish(command(number))
            consumer = await transporting.consumer()
            assert numbers(await consumer.take(8)) == list(range(1, 9))

    async def test_a_key_that_is_no_stream_is_named_and_the_lane_goes_on_without_it(
        self, transporting: RedisTransporting, administrator: redis.Redis
    ) -> None:
        stream = commands_key(transporting.lane, is_system=False)
        async with asyncio.timeout(WITHIN_S):
            consumer = await transporting.consumer()
            administrator.set(stream, "a text")
            with pytest.raises(BrokerUnavailable, match="is no stream"):
                await transporting.publish(command(1))
            await asyncio.to_thread(
                wait_until, lambda: "WRONGTYPE" in (consumer.consumer.unready_reason or ""), "it says so"
            )
            administrator.delete(stream)
            await transporting.publish(command(2))
            assert numbers(await consumer.take(1)) == [2]

    async def test_what_both_sides_say_comes_in_one_order(self, transporting: RedisTransporting) -> None:
        """Also where one of the streams has more than is read at once."""
        public, system = list[Origin](["public"]), list[Origin](["system"])
        sides = public * 3 + system + public * 4 + system * 5 + public
        async with asyncio.timeout(WITHIN_S):
            for number, side in enumerate(sides, 1):
                await transporting.publish(command(number, origin=side))
            consuming = RedisConsuming(
                transporting.lane, transporting.broker, LaneSettings(prefetch=3, early_max=1, outbox_watch_s=0.1)
            )
            taken: list[Delivery] = []
            for _ in sides:
                taken += await consuming.take(1)
                await consuming.settle(taken[-1:])
            await consuming.leave()
        assert numbers(taken) == list(range(1, len(sides) + 1))
        assert [delivery.commands[0].origin for delivery in taken] == sides

    async def test_a_queue_that_nobody_has_made_takes_nothing(self, transporting: RedisTransporting) -> None:
        publisher = await transporting.publisher()
        with pytest.raises(BrokerUnavailable, match="no queue takes messages for 'nobodys'"):
            await publisher.publish("nobodys", commands_key("nobodys", is_system=False), b"{}", b"{}")

    @pytest.mark.parametrize("repeat_refused", [False, True])
    async def test_a_name_that_is_no_text_is_refused_and_hurts_no_other(
        self, transporting: RedisTransporting, repeat_refused: bool
    ) -> None:
        """Half a surrogate pair, say in a tenant's name that came over HTTP: nothing that is sent beside it is lost."""
        publisher = await transporting.publisher()
        async with asyncio.timeout(WITHIN_S):
            before = asyncio.ensure_future(transporting.publish(command(1)))
            await asyncio.sleep(0)
            with pytest.raises(InvalidCommand, match="surrogates not allowed"):
                await publisher.publish("\ud800", "writes.public.\ud800", b"{}", b"{}", repeat_refused=repeat_refused)
            assert "\ud800" not in publisher._greeted, "nothing is kept of each such name"
            await before
            await transporting.publish(command(2))
            with pytest.raises(BrokerUnavailable, match="no queue takes messages for 'nobodys'"):
                await publisher.publish("nobodys", commands_key("nobodys", is_system=False), b"{}", b"{}")
            consumer = await transporting.consumer()
            assert numbers(await consumer.take(2)) == [1, 2]

    async def test_a_redis_that_was_emptied_is_noticed_and_serves_on(
        self, transporting: RedisTransporting, administrator: redis.Redis
    ) -> None:
        async with asyncio.timeout(WITHIN_S):
            consumer = await transporting.consumer()
            for number in (1, 2, 3):
                await transporting.publish(command(number))
            await consumer.take(3)
            lost = LOST.labels(transporting.lane)._value
            before = lost.get()
            administrator.flushall()
            # Each of the two that know of them says so: the publisher, and the consumer.
            await insisting(transporting, command(4))
            assert numbers(await consumer.take(1)) == [4]
            await asyncio.to_thread(wait_until, lambda: lost.get() == before + 6, "both have said so")

    async def test_a_redis_that_comes_back_with_an_older_file_is_noticed(
        self, transporting: RedisTransporting, tmp_path: Path
    ) -> None:
        """Although it has given some of the numbers out again, to others, by then."""
        server = RedisBroker(tmp_path)
        transporting.server, transporting.broker = server, BrokerSettings(url=server.url)
        server.start()
        try:
            async with asyncio.timeout(2 * WITHIN_S):
                await transporting.publish(command(1))
                kept = tmp_path / "kept"
                shutil.copytree(server.data, kept)
                for number in (2, 3, 4):
                    await transporting.publish(command(number))
                lost = LOST.labels(transporting.lane)._value
                server.kill()
                shutil.rmtree(server.data)
                shutil.copytree(kept, server.data)
                server.start()
                async with RedisWrites(
                    transporting.broker, confirm_timeout_s=10, wait_s=0, in_flight_max=10, log=None, name="another"
                ) as another:
                    for number in (5, 6, 7):
                        with pytest.raises(CommandPending):
                            await another.issue(transporting.lane, command(number), None)
                await asyncio.to_thread(wait_until, lambda: lost.get() == 3, "it has said so before its next command")
                await insisting(transporting, command(8))
                assert lost.get() == 3
                consumer = await transporting.consumer()
                assert numbers(await consumer.take(5)) == [1, 5, 6, 7, 8]
                await consumer.leave()
        finally:
            server.stop()

    async def test_what_the_lane_has_settled_and_redis_has_lost_is_noticed_by_another_process(
        self, transporting: RedisTransporting, tmp_path: Path
    ) -> None:
        """All that knew of it have ended, and only the lane's database knows its place."""
        server = RedisBroker(tmp_path)
        transporting.server, transporting.broker = server, BrokerSettings(url=server.url)
        server.start()
        lost = LOST.labels(transporting.lane)._value
        try:
            async with asyncio.timeout(2 * WITHIN_S):
                await transporting.publish(command(1))
                kept = tmp_path / "kept"
                shutil.copytree(server.data, kept)
                for number in (2, 3, 4):
                    await transporting.publish(command(number))
                first = await transporting.consumer()
                arrivals = [each.arrival for each in await first.take(4)]
                await first.leave()
                assert arrivals[-1] is not None
                place = arrivals[-1].place
                server.kill()
                server.start()
                second = await transporting.consumer(last_place=lambda: place)
                assert numbers(await second.take(4)) == [1, 2, 3, 4]
                await second.leave()
                assert lost.get() == 0, "it came back whole"
                server.kill()
                shutil.rmtree(server.data)
                shutil.copytree(kept, server.data)
                server.start()
                third = await transporting.consumer(last_place=lambda: place)
                assert numbers(await third.take(1)) == [1]
                await third.leave()
                assert lost.get() == 3
        finally:
            server.stop()

    async def test_what_is_published_and_settled_while_the_database_is_asked_is_not_lost(
        self, transporting: RedisTransporting
    ) -> None:
        lost = LOST.labels(transporting.lane)._value
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(WITHIN_S):
            await transporting.publish(command(1))
            first = await transporting.consumer()
            (taken,) = await first.take(1)
            await first.leave()
            assert taken.arrival is not None
            run = str(taken.arrival.place).partition(":")[0]

            def place() -> str:
                asyncio.run_coroutine_threadsafe(transporting.publish(command(2)), loop).result(WITHIN_S)
                return f"{run}:2"

            second = await transporting.consumer(last_place=place)
            assert numbers(await second.take(2)) == [1, 2]
            comparing = second.consumer._comparing
            assert comparing is not None
            await asyncio.to_thread(wait_until, comparing.done, "what the database says is compared")
            await second.leave()
        assert lost.get() == 0

    async def test_so_many_runs_of_redis_are_remembered(
        self, transporting: RedisTransporting, administrator: redis.Redis
    ) -> None:
        connection = await RedisConnection.open(transporting.broker, "test")
        keys = (counter_key(transporting.lane), commands_key(transporting.lane, is_system=False))
        for run in range(RUNS_MAX + 2):
            last, runs = await connection.run_script(GREET, keys, f"run{run}", 1, NUMBER_MAX, RUNS_MAX)
        await connection.close()
        assert last == 0
        assert [name for name, _ in counted_of(last, runs).runs] == [f"run{run}" for run in range(2, RUNS_MAX + 2)]

    async def test_outcomes_that_redis_does_not_read_do_not_pile_up(
        self, transporting: RedisTransporting, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(outcomes, "UNSENT_BYTES_MAX", -1)
        not_sent = NOT_SENT.labels(transporting.lane)._value
        async with asyncio.timeout(WITHIN_S):
            consumer = await transporting.consumer()
            asked = asyncio.ensure_future(transporting.ask(command(1)))
            await consumer.settle(await consumer.take(1))
            await asyncio.to_thread(wait_until, lambda: not_sent.get() == 1, "it is counted")
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)

    async def test_a_consumer_that_is_killed_leaves_its_turn_soon(
        self, transporting: RedisTransporting, administrator: redis.Redis
    ) -> None:
        async with asyncio.timeout(WITHIN_S):
            await transporting.publish(command(1))
            administrator.set(lease_key(transporting.lane), "a dead one's", px=300)
            consumer = await transporting.consumer()
            assert numbers(await consumer.take(1)) == [1]

    async def test_a_consumer_whose_connections_are_frozen_leaves_its_turn_before_its_lease_ends(
        self, transporting: RedisTransporting, administrator: redis.Redis
    ) -> None:
        """They stay open, and it lives: nothing tells Redis that it is away."""
        direct = transporting.broker.model_copy(update={"heartbeat_s": 4})
        await transporting.publish(command(1))
        async with asyncio.timeout(WITHIN_S), TcpProxy(transporting.server.port) as proxy:
            url = direct.url.replace(f":{transporting.server.port}", f":{proxy.port}")
            holder = RedisConsuming(transporting.lane, direct.model_copy(update={"url": url}))
            assert numbers(await holder.take(1)) == [1]
            transporting.broker = direct
            standby = await transporting.consumer()
            proxy.stall()
            administrator.pexpire(lease_key(transporting.lane), 600_000)
            assert numbers(await standby.take(1)) == [1]
            proxy.resume()
            await holder.leave()

    async def test_a_turn_that_is_lost_ends_the_channel(
        self, transporting: RedisTransporting, administrator: redis.Redis
    ) -> None:
        async with asyncio.timeout(WITHIN_S):
            await transporting.publish(command(1))
            consumer = await transporting.consumer()
            taken = await consumer.take(1)
            channel = consumer.channel
            administrator.set(lease_key(transporting.lane), "another's", px=300)
            await consumer.settle(taken)
            (again,) = await consumer.take(1)
            assert numbers([again]) == [1]
            assert consumer.channel > channel


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"appendonly": "no"}, "appendonly is no"),
        ({"appendfsync": "no"}, "appendfsync is no"),
        ({"appendfsync": "everysec"}, "appendfsync is everysec"),
        ({"no-appendfsync-on-rewrite": "yes"}, "no-appendfsync-on-rewrite is yes"),
        ({"maxmemory-policy": "allkeys-lru"}, "maxmemory-policy is allkeys-lru, by which it takes queues away"),
        ({"maxmemory-policy": "volatile-ttl"}, "maxmemory-policy of this Redis is volatile-ttl, by which it takes"),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else "",
)
async def test_a_redis_that_may_lose_what_it_confirms_is_refused_unless_allowed_by_name(
    tmp_path: Path, options: dict[str, str], says: str
) -> None:
    server = RedisBroker(tmp_path, options=options)
    server.start()
    try:
        waits = not says.endswith("is no") and "appendfsync" in says
        if waits and tuple(map(int, server.version.split(".")[:2])) >= (7, 2):
            connection = await RedisConnection.open(BrokerSettings(url=server.url), "test")
            assert connection.waits_for_sync
            await connection.close()
            return
        with pytest.raises(ConfigurationError, match=says):
            await RedisConnection.open(BrokerSettings(url=server.url), "test")
        allowed = BrokerSettings(url=f"{server.url}?allow_unsynced=true")
        await (await RedisConnection.open(allowed, "test")).close()
    finally:
        server.stop()


async def test_a_redis_whose_default_user_lacks_rights_is_refused(tmp_path: Path) -> None:
    """When it starts again, Redis 7.0 leaves out of its file what scripts had written."""
    server = RedisBroker(tmp_path)
    server.start()
    try:
        with redis.Redis.from_url(server.url) as client:
            client.execute_command("ACL", "SETUSER", "default", "off", "resetkeys")
        with pytest.raises(ConfigurationError, match="default user lacks rights"):
            await RedisConnection.open(BrokerSettings(url=server.url), "test")
    finally:
        server.stop()


async def until_empty(administrator: redis.Redis, lane: str) -> None:
    keys = [commands_key(lane, is_system=is_system) for is_system in (False, True)]
    await asyncio.to_thread(wait_until, lambda: not any(administrator.xlen(key) for key in keys), "nothing is left")
    assert administrator.hget(counter_key(lane), "bytes") == b"0"


@pytest.mark.faults
async def test_sentinels_name_the_master_also_the_one_that_comes_after_it(tmp_path: Path) -> None:
    """Real Sentinels. What the replica had not got yet is noticed; here it has all of it."""
    master = RedisBroker(tmp_path / "master")
    replica = RedisBroker(
        tmp_path / "replica",
        options={
            "replicaof": f"127.0.0.1 {master.port}",
            "masteruser": "administrator",
            "masterauth": "administrator",
        },
    )
    sentinel = RedisSentinel(tmp_path / "sentinel", master)
    servers = (master, replica, sentinel)
    try:
        async with AsyncExitStack() as stack, asyncio.timeout(3 * WITHIN_S):
            for server in servers:
                await asyncio.to_thread(server.start)
            transporting = RedisTransporting(master, stack)
            transporting.broker = BrokerSettings(url=sentinel.url)
            await transporting.publish(command(1))
            consumer = await transporting.consumer()
            await consumer.settle(await consumer.take(1))
            with redis.Redis.from_url(replica.url) as copy:
                await asyncio.to_thread(
                    wait_until, lambda: copy.exists(counter_key(transporting.lane)), "the replica has the counter"
                )
                await asyncio.to_thread(wait_until, sentinel.knows_replica, "the Sentinel knows of it")
                await transporting.publish(command(2))
                stream = commands_key(transporting.lane, is_system=False)
                await asyncio.to_thread(wait_until, lambda: copy.xlen(stream) == 1, "the replica has the command")
            await asyncio.to_thread(master.kill)
            await insisting(transporting, command(3))
            while numbers(taken := await consumer.take(1)) != [3]:
                await consumer.settle(taken)
            await consumer.settle(taken)
            await consumer.leave()
        assert LOST.labels(transporting.lane)._value.get() == 0
    finally:
        for server in servers:
            server.kill()
