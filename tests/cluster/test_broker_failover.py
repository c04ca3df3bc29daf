"""A Redis that is the broker dies under load, and its Sentinel has the replica go on: nothing acknowledged is lost."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from coordinator.dev.servers.addresses import ADMINISTRATOR, HOST
from coordinator.dev.servers.redis_broker import RedisBroker
from coordinator.transports.rabbitmq.rights import OPERATOR
from coordinator.transports.redis.rights import redis_accounts
from tests.cluster.load import USER, under_load
from tests.support.accounts import names_of_tests
from tests.support.databases import sql_engine
from tests.support.redis_sentinel import NAME, RedisSentinel
from tests.support.system import System, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]
SILENCE_S_MAX = 20.0
"""A command that the replica had not got is asked for again once the gateway has waited 10 s for its outcome."""


class Brokers(NamedTuple):
    master: RedisBroker
    replica: RedisBroker
    sentinel: RedisSentinel


@pytest.fixture
def brokers(tmp_path: Path) -> Iterator[Brokers]:
    accounts = redis_accounts(names_of_tests())
    master = RedisBroker(tmp_path / "master", accounts=accounts)
    follows = {
        "replicaof": f"{HOST} {master.port}",
        "masteruser": ADMINISTRATOR,
        "masterauth": ADMINISTRATOR,
    }
    replica = RedisBroker(tmp_path / "replica", options=follows, accounts=accounts)
    brokers = Brokers(master, replica, RedisSentinel(tmp_path / "sentinel", master))
    try:
        for server in brokers:
            server.start()
        yield brokers
    finally:
        for server in brokers:
            server.kill()


@pytest.fixture
def broker_url(brokers: Brokers) -> str:
    return brokers.master.url_of(OPERATOR)


@pytest.fixture
def watched_system(system: System, brokers: Brokers) -> System:
    """Two coordinators and a gateway, which ask the Sentinel."""
    system.prepare("users")
    system.broker_url = f"redis+sentinel://{OPERATOR}:{OPERATOR}@{HOST}:{brokers.sentinel.port}/{NAME}"
    system.start_coordinators("users", "users")
    system.start_gateway("users")
    wait_until(brokers.sentinel.knows_replica, "the Sentinel knows of the replica")
    return system


async def test_a_master_that_dies_costs_its_clients_a_wait_and_no_write(
    watched_system: System, brokers: Brokers, capsys: pytest.CaptureFixture[str]
) -> None:
    async with under_load(watched_system.urls["users"], USER) as load:
        await asyncio.to_thread(brokers.master.kill)
        await load.wait_for_answers(500)
    what = "the master of Redis dies, its Sentinel has the replica go on"
    with capsys.disabled():
        print(f"\n{load.report(what)}")
    load.check_order()
    load.check_numbers()
    assert load.silence_s <= SILENCE_S_MAX, load.report(what)
    assert users_of(watched_system) == len(load.answered_at_s)


def users_of(system: System) -> int:
    engine = sql_engine(system.owner("users"))
    with engine.connect() as connection:
        count = connection.exec_driver_sql("SELECT count(*) FROM users").scalar_one()
    engine.dispose()
    return int(count)
