"""The whole system with Redis as its broker: what breaks, as with RabbitMQ, and an outage of Redis.

What works is in `test_everywhere.py`.
"""

import pytest
import redis

from coordinator.dev.servers.redis_broker import RedisBroker
from coordinator.transports.rabbitmq.rights import OPERATOR
from tests.e2e import test_outages, test_purchases, test_rest, test_tenants_together
from tests.support.system import System, wait_until

shop, buyers = test_purchases.shop, test_purchases.buyers

test_a_write_waits = test_rest.test_without_a_coordinator_a_write_waits_and_is_applied_when_one_comes
test_a_standby_takes_over = test_outages.test_a_standby_takes_over_from_a_coordinator_that_ends
test_a_stopped_coordinator = test_outages.test_a_stopped_coordinator_that_wakes_up_after_a_takeover_cannot_write
test_a_killed_gateway = test_outages.test_a_killed_gateway_does_half_of_nothing
test_a_dead_process_s_outbox = test_outages.test_what_a_dead_process_left_in_the_outbox_of_an_idle_lane_is_published
test_every_purchase_is_whole = test_purchases.test_every_purchase_is_whole_or_taken_back_whatever_fails

test_two_tenants = test_tenants_together.test_two_tenants_share_a_process_and_nothing_else


@pytest.fixture
def broker_url(redis_broker: RedisBroker) -> str:
    return redis_broker.url_of(OPERATOR)


async def test_what_redis_lost_while_everybody_was_down_is_noticed_at_the_next_start(
    system: System, redis_broker: RedisBroker
) -> None:
    system.start("users")
    await test_outages.post(f"{system.urls['users']}/users", {"name": "Ada", "email": "ada@example.org"})
    while system.processes:
        system.processes.pop().kill()
    with redis.Redis.from_url(redis_broker.url) as administrator:
        administrator.flushall()
    coordinator = system.start_coordinator("users")
    wait_until(lambda: "broker_lost_messages" in coordinator.log_tail(50), "the loss is said")


@pytest.mark.faults
async def test_an_outage_of_redis_is_answered_503_and_loses_nothing(system: System, redis_broker: RedisBroker) -> None:
    system.start("users")
    await test_outages.outlives_an_outage(system, redis_broker)


@pytest.mark.faults
async def test_a_redis_that_loses_everything_under_load_loses_nothing_that_was_told(
    system: System, redis_broker: RedisBroker
) -> None:
    """What it had confirmed and nobody had applied is lost; whoever asks again with the same key gets his outcome."""
    system.start("users")

    async def lose(_: object) -> None:
        for at in (test_outages.FEW, 3 * test_outages.FEW):
            await test_outages.settled(system, at)
            with redis.Redis.from_url(redis_broker.url) as administrator:
                administrator.flushall()

    await test_outages.credit_through(system, lose)
