"""Some services in one process, others behind a broker: purchases cross both, whatever is killed."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pika
import pytest
from sqlalchemy import text

from coordinator.lane.high_water import Mark, decode_mark, encode_mark
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


@pytest.mark.timeout(180)
@pytest.mark.parametrize("coordinators_settled", [0, 3])
async def test_a_coordinator_with_another_database_learns_from_the_broker_that_the_lane_went_on_in_one_process(
    mixed: Mixed, coordinators_settled: int
) -> None:
    """Its database has come less far, or further; before, the broker knew only how far coordinators had come."""
    monolith, system = mixed.monolith, mixed.system
    if coordinators_settled:
        system.start_coordinator("items")
        system.start_gateway("items")
        async with aiohttp.ClientSession(headers=HEADERS) as session:
            await added(session, system.urls["items"], coordinators_settled)
        await asyncio.to_thread(system.stop)
        with system.broker() as channel:
            channel.queue_delete(mark_queue_name("items"))
        system.start_coordinator("users")
    await asyncio.to_thread(monolith.start)
    await asyncio.to_thread(monolith.admit_caller)
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        await added(session, monolith.url, 1)

    def kept() -> int:
        with system.broker() as channel:
            channel.queue_declare(mark_queue_name("items"), passive=True)
            _, _, body = channel.basic_get(mark_queue_name("items"))
            return 0 if body is None else decode_mark(body).sequence

    await asyncio.to_thread(wait_until, lambda: kept() > 0, "the broker knows how far it has come", monolith.process)
    assert await asyncio.to_thread(monolith.stop) == 0
    process, _ = system.launch_coordinator("items", {})
    with system.broker() as channel:
        properties = pika.BasicProperties(message_id=str(uuid4()), type="items.ghost")
        channel.basic_publish("writes", "items", b"{}", properties)
    further = "is not the one in which its commands were applied"
    words = further if coordinators_settled else "lost acknowledged commands"
    await asyncio.to_thread(wait_until, lambda: words in process.log_tail(60), "it has stopped", process)


async def added(session: aiohttp.ClientSession, url: str, items: int) -> None:
    for number in range(items):
        item = {"name": f"i{number}", "price": 100, "currency": "EUR", "stock": 1}
        status, answer = await Client(session, url).write("/items", item, f"added-{number}")
        assert status == 201, answer
