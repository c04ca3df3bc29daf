"""What the users of Redis may do: each process its work, and no more."""

import asyncio
from datetime import UTC, datetime

import pytest
import redis
from click.testing import CliRunner

from coordinator.accounts.broker_names import broker_names
from coordinator.cli import cli
from coordinator.dev.servers.redis_broker import RedisBroker
from coordinator.operate.redis_broker import connected_to_redis
from coordinator.registry import Registry
from coordinator.runtime.settings import BrokerSettings
from coordinator.service.outside_calls import effects_key
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.transports.redis.effects.transport import RedisEffects
from coordinator.transports.redis.rights import redis_accounts
from coordinator.transports.redis.writes import RedisWrites
from gateways.app import APP
from tests.support.effect_contract import CallResult, Working
from tests.support.redis_transport import RedisConsuming
from tests.support.transport_contract import WITHIN_S, command, numbers

LANE = "payments"


def as_account(server: RedisBroker, account: str) -> BrokerSettings:
    return BrokerSettings(url=server.url_of(account))


def writes_of(server: RedisBroker, account: str, name: str) -> RedisWrites:
    broker = as_account(server, account)
    return RedisWrites(broker, confirm_timeout_s=10, wait_s=10, in_flight_max=10, log=None, name=name)


async def test_each_process_can_do_its_work(redis_broker: RedisBroker) -> None:
    lane = RedisConsuming(LANE, as_account(redis_broker, "payments_lane"), has_effects=True)
    gateway = writes_of(redis_broker, "payments_gateway", "gateway.payments")
    operator = writes_of(redis_broker, "operator", "operator")
    try:
        async with asyncio.timeout(2 * WITHIN_S):
            await lane.until_consuming()
            worker = Working(RedisEffects(LANE, as_account(redis_broker, "payments_effects"), 5))
            async with gateway, operator:
                asked = asyncio.ensure_future(gateway.issue(LANE, command(1), None))
                ordered = asyncio.ensure_future(operator.issue(LANE, command(2, origin="system"), None))
                taken = await lane.take(2)
                effect = OutboxEntry(
                    id=1,
                    lane=effects_key(LANE),
                    command_id=command(3).command_id or "",
                    type="payments.call",
                    arguments=b"{}",
                    created_at=datetime.now(UTC),
                )
                lane.consumer.publish_emitted([effect])
                await lane.settle(taken)
                assert {(await asked).status, (await ordered).status} == {"applied"}
                assert await gateway.waiting(LANE) is not None
            (delivery,) = await worker.take(1)
            await worker.put_back(delivery)
            worker.transport.acknowledge([delivery])
            (again,) = await worker.take(1)
            await worker.transport.bring(CallResult(number=1), command(4).command_id or "", LANE, None)
            worker.transport.acknowledge([again])
            assert numbers(await lane.take(1)) == [4]
            with connected_to_redis(as_account(redis_broker, "operator")) as seen:
                depth, effects = seen.lane_depth(LANE), seen.effects_depth(LANE)
                assert depth is not None
                assert depth.consumers == 1
                assert effects is not None
                assert effects.consumers == 1
                seen.mark(LANE)
            await worker.end()
            await lane.leave()
            standby = RedisConsuming(LANE, as_account(redis_broker, "payments_lane"), has_effects=True)
            assert numbers(await standby.take(1)) == [4]
            await standby.leave()
    finally:
        await asyncio.to_thread(lane.consumer.stop, 5.0)


@pytest.mark.parametrize(
    ("account", "words"),
    [
        ("users_gateway", ("XADD", "writes.system.users", "*", "a", "b")),
        ("users_gateway", ("SET", "writes.lease.users", "mine")),
        ("users_gateway", ("HSET", "writes.kept.users", "mark", "{}")),
        ("users_gateway", ("XADD", "writes.effects.payments", "*", "a", "b")),
        ("users_gateway", ("SUBSCRIBE", "replies.gateway.items.1")),
        ("users_gateway", ("XDEL", "writes.public.users", "1-0")),
        ("users_lane", ("XREAD", "STREAMS", "writes.public.items", "0")),
        ("users_lane", ("SET", "writes.lease.items", "mine")),
        ("users_lane", ("SUBSCRIBE", "replies.gateway.users.1")),
        ("payments_effects", ("XADD", "writes.public.users", "*", "a", "b")),
        ("operator", ("XADD", "writes.public.users", "*", "a", "b")),
        ("operator", ("HSET", "writes.kept.users", "mark", "{}")),
        *((account, ("FLUSHALL",)) for account in ("users_gateway", "users_lane", "payments_effects", "operator")),
    ],
)
def test_nobody_can_do_the_work_of_another(redis_broker: RedisBroker, account: str, words: tuple[str, ...]) -> None:
    with (
        redis.Redis.from_url(redis_broker.url_of(account)) as client,
        pytest.raises(redis.exceptions.NoPermissionError),
    ):
        client.execute_command(*words)


def test_the_lines_that_are_printed_make_these_users(redis_broker: RedisBroker) -> None:
    env = {"BROKER_URL": redis_broker.url, "AMQP_URL": None}
    printed = CliRunner().invoke(cli, ["broker-accounts"], env=env)
    assert printed.exit_code == 0, printed.output
    lines = [line for line in printed.stdout.splitlines() if not line.startswith("#")]
    assert [line.split()[2] for line in lines] == [each.name for each in redis_accounts(broker_names(Registry(APP)))]
    with redis.Redis.from_url(redis_broker.url) as client:
        for line in lines:
            name = f"printed_{line.split()[2]}"
            client.execute_command(*line.split()[:2], name, *line.split()[3:])
            assert client.acl_deluser(name) == 1
