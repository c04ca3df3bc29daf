"""Some services in one process, others behind a broker: purchases cross both, whatever is killed."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy import text

from coordinator.lane.high_water import Mark, encode_mark
from coordinator.runtime.settings import BrokerSettings
from coordinator.transports.rabbitmq.amqp import AmqpConnection
from coordinator.transports.rabbitmq.topology import mark_queue_name
from tests.e2e.test_monolith import ENDED, check_money, fetched
from tests.support.callers import HEADERS, key_of
from tests.support.databases import sql_engine
from tests.support.monolith import SERVICES, Monolith
from tests.support.system import Client, System, wait_until

BUYERS = 8
PURCHASES = 6
"""Of each buyer, at once: one principal may have ten that go on."""
ITEMS = 4
STOCK = 1000


class Mixed:
    """Users on PostgreSQL behind RabbitMQ; items and payments in one process, on files."""

    def __init__(self, system: System, monolith: Monolith, keys: Sequence[str]) -> None:
        self.keys = keys
        self.system = system
        self.monolith = monolith
        self._users = sql_engine(system.owner("users"))

    def rows(self, service: str, query: str) -> Sequence[Any]:
        if service != "users":
            return self.monolith.rows(service, query)
        with self._users.connect() as connection:
            return connection.execute(text(query)).fetchall()

    def have_ended(self, purchases: int) -> bool:
        found = self.rows("users", "SELECT status, count(*) FROM purchases GROUP BY status")
        ended: dict[str, int] = dict(map(tuple, found))
        waiting = [self.rows(service, "SELECT count(*) FROM outbox")[0][0] for service in SERVICES]
        return sum(ended.get(status, 0) for status in ENDED) == purchases and waiting == [0, 0, 0]

    def close(self) -> None:
        self._users.dispose()


@pytest.fixture
def mixed(system: System, tmp_path: Path) -> Iterator[Mixed]:
    system.prepare("users", "items", "payments")
    owner = {"users": system.environment["USERS_DATABASE_URL"]}
    keys = [key_of(f"buyer-{number}", owner) for number in range(BUYERS)]
    system.start_coordinator("users")
    system.start_gateway("users")
    monolith = Monolith(
        tmp_path,
        DEV_ELSEWHERE="users",
        AMQP_URL=system.administrators["AMQP_URL"],
        ACCESS_KEYS_REFRESH_S="0.2",
    )
    made = Mixed(system, monolith, keys)
    yield made
    made.close()
    if monolith.process is not None:
        monolith.process.kill()


async def stocked(session: aiohttp.ClientSession, mixed: Mixed) -> None:
    items = Client(session, mixed.monolith.url)
    for number in range(ITEMS):
        item = {"name": f"i{number}", "price": 100 + number, "currency": "EUR", "stock": STOCK}
        status, answer = await items.write("/items", item, f"i{number}")
        assert status == 201, answer


@pytest.mark.timeout(180)
async def test_purchases_cross_both_and_kill_9_loses_nothing(mixed: Mixed) -> None:
    monolith, system = mixed.monolith, mixed.system
    await asyncio.to_thread(monolith.start)
    await asyncio.to_thread(monolith.admit_caller)
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        await stocked(session, mixed)
        buyers = [Client(session, system.urls["users"], key) for key in mixed.keys]

        async def buy(buyer: int, number: int) -> None:
            order = {
                "item_id": 1 + number % ITEMS,
                "quantity": 1 + number % 3,
                "payment_method": "pm_card_chargeDeclined" if (buyer + number) % 7 == 6 else "pm_card_visa",
            }
            status, answer = await buyers[buyer].write(f"/users/{buyer + 1}/purchases", order, f"{buyer}-{number}")
            assert status == 201, answer

        for buyer, client in enumerate(buyers):
            user = {"name": f"u{buyer}", "email": f"u{buyer}@example.org"}
            status, answer = await client.write("/users", user, f"u{buyer}")
            assert (status, answer["id"]) == (201, buyer + 1)
        await buy(0, 0)
        await asyncio.to_thread(wait_until, lambda: mixed.have_ended(1), "the first purchase has crossed both")
        buying = [
            asyncio.create_task(buy(buyer, number))
            for buyer in range(BUYERS)
            for number in range(PURCHASES)
            if (buyer, number) != (0, 0)
        ]
        await buying[len(buying) // 2]
        assert monolith.process is not None
        monolith.process.kill()
        await asyncio.gather(*buying)
    # Their users are not in that process, and go on; what they have asked of items and payments waits with the broker.
    await asyncio.to_thread(monolith.start)
    await asyncio.to_thread(
        wait_until, lambda: mixed.have_ended(BUYERS * PURCHASES), "every purchase has ended", monolith.process, 60.0
    )
    ready = fetched(f"{monolith.url}/readyz")
    assert ready["checks"]["services elsewhere"] == "ok"
    charges = fetched(f"{monolith.urls['sandbox']}/sandbox/charges")["charges"]
    assert await asyncio.to_thread(monolith.stop) == 0
    check_money(mixed.rows, charges, ITEMS * STOCK)


@pytest.mark.timeout(120)
async def test_a_lane_asks_what_the_broker_remembers_before_anybody_elsewhere_has_asked_for_something(
    mixed: Mixed,
) -> None:
    """Its database was another one then."""
    monolith, amqp_url = mixed.monolith, mixed.system.administrators["AMQP_URL"]
    connection = await AmqpConnection.open(BrokerSettings(url=amqp_url), "test")
    channel = await connection.channel()
    await channel.declare_mark("items")
    channel.raw.basic_publish("", mark_queue_name("items"), encode_mark(Mark(sequence=1000, epoch=7)))
    await channel.close()
    await connection.end()
    await asyncio.to_thread(monolith.start)
    log = monolith.folder / "monolith-1.log"
    await asyncio.to_thread(
        wait_until, lambda: "and 1000 was acknowledged" in log.read_text(), "the lane has stopped", monolith.process
    )
