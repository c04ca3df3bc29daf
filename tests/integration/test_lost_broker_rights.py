"""A gateway whose account at its broker is taken away, or a right of it, says so to whoever asks, without hosts."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import redis

from coordinator.accounts.broker_names import broker_names
from coordinator.dev.servers.redis_broker import RedisBroker
from coordinator.dev.servers.server_set import ServerSet
from coordinator.registry import Registry
from coordinator.runtime.settings import BrokerSettings
from coordinator.service.errors import BrokerUnavailable, CommandPending
from coordinator.service.outside_calls import effects_key
from coordinator.transports.rabbitmq.amqp import AmqpConnection
from coordinator.transports.rabbitmq.definitions import rights_of
from coordinator.transports.rabbitmq.rights import broker_accounts
from coordinator.transports.rabbitmq.writes import RabbitWrites
from coordinator.transports.redis.connection import RedisConnection
from coordinator.transports.redis.effects.scripts import RETURN
from coordinator.transports.redis.keys import commands_key, counter_key, later_key, system_stream_key
from coordinator.transports.redis.rights import redis_accounts
from coordinator.transports.redis.scripts import ADOPT, GREET, NUMBER_MAX, RUNS_MAX
from coordinator.transports.redis.writes import RedisWrites
from gateways.app import APP
from tests.support.accounts import as_account
from tests.support.rabbitmqctl import Rights, close_connections, delete_users, evaluate, set_users
from tests.support.redis_transport import RedisConsuming, made_queue
from tests.support.servers import Environment
from tests.support.system import wait_until
from tests.support.transport_contract import command

pytestmark = pytest.mark.doors

LANE = "users"
GATEWAY = "users_gateway"
NAME = "gateway.users"
WITHIN_S = 20.0
NO_ACCOUNT = "the broker refuses this process's account"
NO_RIGHT = "the broker refuses a right of this process's account"


async def until(writes: RedisWrites | RabbitWrites, problem: str | None) -> None:
    await asyncio.to_thread(wait_until, lambda: writes.problem == problem, f"it says {problem!r}", None, WITHIN_S)
    assert writes.connected is (problem is None)


class OnRedis:
    """A gateway's connections, and who gives and takes its rights."""

    def __init__(self, server: RedisBroker) -> None:
        self.server = server
        self._admin = redis.Redis.from_url(server.url)
        (self._account,) = (each for each in redis_accounts(broker_names(Registry(APP))) if each.name == GATEWAY)

    def give_all(self) -> None:
        self.set("reset", "on", f">{GATEWAY}", *self._account.rules.split())

    def set(self, *rules: str) -> None:
        self._admin.execute_command("ACL", "SETUSER", GATEWAY, *rules)  # type: ignore[no-untyped-call]

    def end_connections(self) -> None:
        for client in self._admin.client_list():
            if client["user"] == GATEWAY:
                self._admin.client_kill_filter(_id=client["id"])

    def waiting(self) -> int:
        return self._admin.xlen(commands_key(LANE, is_system=False))

    def without(self, key: str) -> tuple[str, ...]:
        return ("resetkeys", *(each for each in self._account.keys if each != f"~{key}"))

    @asynccontextmanager
    async def writes(self) -> AsyncIterator[RedisWrites]:
        await made_queue(BrokerSettings(url=self.server.url), LANE)
        self.give_all()
        settings = BrokerSettings(url=self.server.url_of(GATEWAY))
        writes = RedisWrites(settings, confirm_timeout_s=5, wait_s=0.01, in_flight_max=99, log=None, name=NAME)
        try:
            async with writes:
                yield writes
        finally:
            self.give_all()
            self._admin.close()


@pytest.mark.parametrize(
    "lost",
    [
        lambda _: ("-evalsha",),
        lambda _: ("-hmget",),
        lambda _: ("-hset",),
        lambda _: ("-xadd",),
        lambda gateway: gateway.without("writes.public.*"),
        lambda gateway: gateway.without("writes.counter.*"),
    ],
    ids=["evalsha", "hmget", "hset", "xadd", "streams", "counters"],
)
async def test_a_right_to_add_is_missed_at_the_next_command_of_which_nothing_is_added(
    redis_broker: RedisBroker, lost: Callable[[OnRedis], tuple[str, ...]]
) -> None:
    gateway = OnRedis(redis_broker)
    async with gateway.writes() as writes:
        with pytest.raises(CommandPending):
            await writes.issue(LANE, command(1), None)
        before = gateway.waiting()
        gateway.set(*lost(gateway))
        for number in (2, 3):
            with pytest.raises(BrokerUnavailable):
                await writes.issue(LANE, command(number), None)
        await until(writes, NO_RIGHT)
        assert "refuses a right to user users_gateway" in writes.unready_reason
        assert gateway.waiting() == before
        # It does not take more than a look to see that it lasts.
        await asyncio.sleep(1.5)
        assert writes.problem == NO_RIGHT
        gateway.give_all()
        await until(writes, None)
        with pytest.raises(CommandPending):
            await writes.issue(LANE, command(4), None)
        assert gateway.waiting() == before + 1


@pytest.mark.parametrize(
    ("lost", "problem"),
    [
        (("-info",), NO_RIGHT),
        (("-script|load",), NO_RIGHT),
        (("-config|get",), NO_RIGHT),
        (("-acl|dryrun",), NO_RIGHT),
        (("-subscribe",), NO_RIGHT),
        (("resetchannels",), NO_RIGHT),
        (("off",), NO_ACCOUNT),
        (("resetpass", ">another"), NO_ACCOUNT),
    ],
)
async def test_what_a_connection_needs_is_missed_once_redis_ends_it(
    redis_broker: RedisBroker, lost: tuple[str, ...], problem: str
) -> None:
    gateway = OnRedis(redis_broker)
    async with gateway.writes() as writes:
        gateway.set(*lost)
        gateway.end_connections()
        await until(writes, problem)
        gateway.give_all()
        await until(writes, None)


async def test_effects_that_are_due_are_not_added_again_and_again_where_they_cannot_be_taken_out(
    redis_broker: RedisBroker,
) -> None:
    key = effects_key("payments")
    stream, later, counter = system_stream_key(key), later_key("payments"), counter_key(key)
    with redis.Redis.from_url(redis_broker.url) as admin:
        connection = await RedisConnection.open(BrokerSettings(url=redis_broker.url), "administrator")
        keys = (counter, stream)
        await connection.run_script(GREET, keys, connection.run, 1, NUMBER_MAX, RUNS_MAX)
        run = connection.run
        await connection.close()
        sha = admin.script_load(RETURN.text)
        admin.zadd(later, {b"{}\n{}": 1})
        before = admin.xlen(stream)
        for lost in ("-zrem", "-hset", "-xadd"):
            admin.execute_command("ACL", "SETUSER", "payments_effects", lost)
            with redis.Redis.from_url(redis_broker.url_of("payments_effects")) as worker:
                for _ in range(2):
                    with pytest.raises(redis.ResponseError):
                        worker.evalsha(sha, 3, later, stream, counter, run, 10, NUMBER_MAX)
            admin.execute_command("ACL", "SETUSER", "payments_effects", lost.replace("-", "+"))
            assert (admin.xlen(stream), admin.zcard(later)) == (before, 1), lost
        admin.delete(later)


async def test_a_lane_that_may_not_add_takes_no_entry_out_to_give_it_a_number(redis_broker: RedisBroker) -> None:
    streams = commands_key(LANE, is_system=False), commands_key(LANE, is_system=True)
    with redis.Redis.from_url(redis_broker.url) as admin:
        await made_queue(BrokerSettings(url=redis_broker.url), LANE)
        admin.xadd(streams[0], {"head": "{}", "body": "{}"}, id=f"{NUMBER_MAX + 7}-0")
        admin.execute_command("ACL", "SETUSER", "users_lane", "-xadd")
        sha, before = admin.script_load(ADOPT.text), admin.xlen(streams[0])
        with redis.Redis.from_url(redis_broker.url_of("users_lane")) as lane, pytest.raises(redis.ResponseError):
            lane.evalsha(sha, 3, counter_key(LANE), *streams, NUMBER_MAX, 0)
        assert admin.xlen(streams[0]) == before
        admin.execute_command("ACL", "SETUSER", "users_lane", "+xadd")
        with redis.Redis.from_url(redis_broker.url_of("users_lane")) as lane:
            lane.evalsha(sha, 3, counter_key(LANE), *streams, NUMBER_MAX, 0)
        assert admin.xlen(streams[0]) == before
        admin.delete(*streams, counter_key(LANE))


@pytest.mark.parametrize(
    ("lost", "words"), [("xdel", "to take out what is settled"), ("publish", "sends no outcomes: it refuses a right")]
)
async def test_a_lane_says_that_it_may_not_take_out_what_is_settled_or_send_outcomes(
    redis_broker: RedisBroker, lost: str, words: str
) -> None:
    gateway = OnRedis(redis_broker)
    with redis.Redis.from_url(redis_broker.url) as admin:
        async with gateway.writes() as writes:
            lane = RedisConsuming(LANE, BrokerSettings(url=redis_broker.url_of("users_lane")))
            try:
                await lane.until_consuming()
                # Another test may have left some.
                before = gateway.waiting()
                with pytest.raises(CommandPending):
                    await writes.issue(LANE, command(1), None)
                taken = await lane.take(1)
                admin.execute_command("ACL", "SETUSER", "users_lane", f"-{lost}")
                await lane.settle(taken)
                await asyncio.to_thread(
                    wait_until, lambda: words in (lane.consumer.unready_reason or ""), words, None, WITHIN_S
                )
                admin.execute_command("ACL", "SETUSER", "users_lane", f"+{lost}")
                await asyncio.to_thread(
                    wait_until, lambda: lane.consumer.unready_reason is None, "it is ready", None, WITHIN_S
                )
                assert gateway.waiting() == before
            finally:
                admin.execute_command("ACL", "SETUSER", "users_lane", f"+{lost}")
                await asyncio.to_thread(lane.consumer.stop, 5.0)


async def test_so_it_is_on_rabbitmq(
    native_servers: ServerSet, server_environment: Environment, administrators: Environment
) -> None:
    name = "users_gateway_poor"
    connection = await AmqpConnection.open(BrokerSettings(url=administrators["AMQP_URL"]), "makes exchanges")
    await (await connection.channel()).declare_exchanges()
    await connection.close()
    (account,) = (each for each in broker_accounts(broker_names(Registry(APP))) if each.name == GATEWAY)
    rights = rights_of(account)
    everything: Rights = (rights["configure"], rights["write"], rights["read"])
    set_users(native_servers.rabbitmq, {name: everything})

    async def let(given: Rights | None) -> None:
        change = (
            f'clear_permissions(<<"{name}">>, <<"/">>, <<"test">>)'
            if given is None
            else f'set_permissions(<<"{name}">>, <<"/">>, {", ".join(map(_binary, given))}, <<"test">>)'
        )
        await asyncio.to_thread(evaluate, native_servers.rabbitmq, f"rabbit_auth_backend_internal:{change}.")
        await asyncio.to_thread(close_connections, native_servers.rabbitmq, 1, 1)

    settings = BrokerSettings(url=as_account(server_environment["AMQP_URL"], name))
    try:
        async with RabbitWrites(
            settings, confirm_timeout_s=5, wait_s=0.01, in_flight_max=99, log=None, name=NAME
        ) as writes:
            configure, write, read = everything
            for poor in ((configure, "^$", read), ("^$", write, read), (configure, write, "^$")):
                await let(poor)
                await until(writes, NO_RIGHT)
                await let(everything)
                await until(writes, None)
            await let(None)
            await until(writes, f"{NO_ACCOUNT} in its vhost")
            delete_users(native_servers.rabbitmq, [name])
            await until(writes, NO_ACCOUNT)
    finally:
        delete_users(native_servers.rabbitmq, [name])


def _binary(text: str) -> str:
    escaped = text.replace("\\", "\\\\")
    return f'<<"{escaped}">>'
