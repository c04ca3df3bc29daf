"""500 purchases across three databases and a provider, while everything fails: each ends whole or taken back."""

import asyncio
import random
import signal
from typing import Any

import aiohttp
import psycopg
import pytest
from sqlalchemy import create_engine, make_url, text

from coordinator.client.database import open_database
from tests.support.callers import HEADERS, key_of
from tests.support.system import Client, System, wait_until

PURCHASES = 500
AT_ONCE = 24
USERS = 50
"""Each is another caller's, who may have ten purchases that go on (`RUNNING_MAX`)."""
ITEMS = 4
STOCK = 90
KILLS = 24
ENDED = {"completed", "compensated", "needs_review"}
FAULTS = {"429": 0.05, "500_before": 0.05, "500_after": 0.05, "lost_request": 0.03, "lost_answer": 0.05, "delay": 0.03}
# As by default, in less time.
WORKER = {"EFFECTS_RETRY_DELAY_S_MAX": "2", "EFFECTS_BREAKER_PAUSE_S_MAX": "1", "STRIPE_SPENT_KEY_S": "1"}
SERVICES = ("users", "items", "payments")


@pytest.fixture
def buyers() -> list[str]:
    """Their keys, by the places of their users."""
    return []


@pytest.fixture
def shop(system: System, buyers: list[str]) -> System:
    """Every kind of process, two of those that can be several."""
    system.prepare(*SERVICES)
    buyers.extend(key_of(f"buyer-{n}", {"users": system.environment["USERS_DATABASE_URL"]}) for n in range(USERS))
    system.start_sandbox()
    system.start_coordinators(*SERVICES, *SERVICES)
    for service in SERVICES:
        system.start_gateway(service)
    for _ in range(2):
        system.start_effects("payments", **WORKER)
    return system


async def post(client: Client, path: str, body: object, key: str) -> dict[str, Any]:
    status, answer = await client.write(path, body, key)
    assert status in (200, 201), answer
    return answer


async def stocked(session: aiohttp.ClientSession, shop: System, buyers: list[str]) -> None:
    items = Client(session, shop.urls["items"])
    for number, key in enumerate(buyers):
        users = Client(session, shop.urls["users"], key)
        await post(users, "/users", {"name": f"u{number}", "email": f"u{number}@example.org"}, f"u{number}")
    for number in range(ITEMS):
        item = {"name": f"i{number}", "price": 100 + number, "currency": "EUR", "stock": STOCK}
        await post(items, "/items", item, f"i{number}")


async def buy_all(
    session: aiohttp.ClientSession, shop: System, buyers: list[str], chance: random.Random
) -> list[dict[str, Any]]:
    clients = [Client(session, shop.urls["users"], key) for key in buyers]
    turns = asyncio.Semaphore(AT_ONCE)

    async def buy(number: int) -> dict[str, Any]:
        body = {
            "item_id": 1 + number % ITEMS,
            "quantity": 1 + number % 3,
            "payment_method": "pm_card_chargeDeclined" if number % 11 == 0 else "pm_card_visa",
        }
        user = number % USERS
        async with turns:
            return await post(clients[user], f"/users/{1 + user}/purchases", body, f"purchase-{number}")

    numbers = list(range(PURCHASES))
    chance.shuffle(numbers)
    return list(await asyncio.gather(*(buy(number) for number in numbers)))


async def make_trouble(session: aiohttp.ClientSession, shop: System) -> None:
    """A provider that fails, and that tells everything five times and in another order."""
    sandbox = f"{shop.urls['sandbox']}/sandbox"
    faults = {"rates": FAULTS, "delay_s": 0.3, "seed": 7}
    async with session.post(f"{sandbox}/faults", json=faults) as response:
        assert response.status == 200, await response.text()
    async with session.post(f"{sandbox}/webhooks", json={"copies": 5, "shuffle": True}) as response:
        assert response.status == 200, await response.text()


async def keep_killing(
    session: aiohttp.ClientSession, shop: System, chance: random.Random, stop: asyncio.Event
) -> list[str]:
    """SIGKILL a process of any kind, and start another in its place."""
    killed: list[str] = []
    while not stop.is_set() and len(killed) < KILLS:
        name = chance.choice(list(shop.named))
        process = shop.named[name]
        await asyncio.to_thread(process.stop, signal.SIGKILL, 10.0)
        killed.append(name)
        await asyncio.to_thread(shop.replace, name)
        if name.startswith("sandbox"):
            await make_trouble(session, shop)
        try:
            async with asyncio.timeout(chance.uniform(0.1, 0.6)):
                await stop.wait()
        except TimeoutError:
            continue
    return killed


def totals(shop: System) -> dict[str, Any]:
    """What the three databases hold."""
    with psycopg.connect(shop.environment["USERS_DATABASE_URL"]) as users:
        states: dict[str, int] = dict(
            users.execute("SELECT status, count(*) FROM purchases GROUP BY status").fetchall()
        )
        completed = users.execute("SELECT coalesce(sum(amount), 0), count(*) FROM purchases WHERE status = 'completed'")
        amount, count = completed.fetchone() or (0, 0)
        noted = users.execute("SELECT coalesce(sum(amount), 0), coalesce(sum(purchases), 0) FROM purchase_totals")
        noted_amount, noted_count = noted.fetchone() or (0, 0)
        waiting = users.execute("SELECT count(*) FROM outbox").fetchone()
        steps = users.execute("SELECT count(*) FROM saga_steps WHERE status = 'waiting'").fetchone()
    url = make_url(shop.environment["PAYMENTS_DATABASE_URL"]).set(drivername="mysql+pymysql")
    engine = create_engine(url)
    with engine.connect() as payments:
        kept = payments.execute(text("SELECT coalesce(sum(captured - refunded), 0) FROM payments")).scalar()
        actions = payments.execute(text("SELECT count(*) FROM payments WHERE pending_action IS NOT NULL")).scalar()
        by_state = payments.execute(text("SELECT status, count(*) FROM payments GROUP BY status")).all()
        waiting_there = payments.execute(text("SELECT count(*) FROM outbox")).scalar()
    engine.dispose()
    return {
        "states": states,
        "amount": int(amount),
        "count": int(count),
        "noted": (int(noted_amount), int(noted_count)),
        "kept": int(kept or 0),
        "actions": actions,
        "payments": dict(by_state),
        "outbox": ((waiting or (0,))[0], waiting_there),
        "steps": (steps or (0,))[0],
    }


@pytest.mark.faults
@pytest.mark.timeout(240)
async def test_every_purchase_is_whole_or_taken_back_whatever_fails(shop: System, buyers: list[str]) -> None:
    chance = random.Random(20261124)
    async with aiohttp.ClientSession(headers=HEADERS, connector=aiohttp.TCPConnector(limit=AT_ONCE)) as session:
        await stocked(session, shop, buyers)
        await make_trouble(session, shop)
        stop = asyncio.Event()
        killing = asyncio.create_task(keep_killing(session, shop, chance, stop))
        opened = await buy_all(session, shop, buyers, chance)
        stop.set()
        killed = await killing
        assert sorted(purchase["id"] for purchase in opened) == list(range(1, PURCHASES + 1))
        assert killed

        def is_at_rest() -> bool:
            found = totals(shop)
            ended = sum(found["states"].get(state, 0) for state in ENDED)
            return ended == PURCHASES and found["outbox"] == (0, 0) and not found["actions"]

        await asyncio.to_thread(wait_until, is_at_rest, "every purchase has ended and nothing waits", None, 120.0)
        async with session.get(f"{shop.urls['sandbox']}/sandbox/charges") as response:
            charges = (await response.json())["charges"]
    found = totals(shop)
    database: Any = open_database(shop.environment["ITEMS_DATABASE_URL"])
    items = [item async for item in database["items"].find()]
    reservations = [reservation async for reservation in database["reservations"].find()]
    await database.client.close()
    assert set(found["states"]) <= {"completed", "compensated"}, found
    assert found["states"]["completed"] > 50, found
    assert found["noted"] == (found["amount"], found["count"])
    assert found["kept"] == found["amount"]
    assert sum(charge["captured"] - charge["refunded"] for charge in charges) == found["amount"]
    assert not [charge for charge in charges if charge["status"] == "requires_capture"]
    assert found["steps"] == 0
    assert sum(item["stock"] for item in items) + sum(each["quantity"] for each in reservations) == ITEMS * STOCK
