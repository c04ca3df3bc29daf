"""What the project is for: contended writes, through HTTP, on all three databases; and what happens without it."""

import asyncio
import threading
from typing import Any

import aiohttp
import pytest
from sqlalchemy import text

from coordinator.stores.lane_tables import LogEntry
from tests.support.callers import HEADERS
from tests.support.databases import FreshDatabases, sql_engine
from tests.support.system import System, write_all

WRITES = 2000
CONNECTIONS = 32


async def get(url: str) -> Any:
    async with aiohttp.ClientSession(headers=HEADERS) as session, session.get(url) as response:
        assert response.status == 200
        return await response.json()


async def post(url: str, body: object) -> Any:
    async with aiohttp.ClientSession(headers=HEADERS) as session, session.post(url, json=body) as response:
        assert response.status == 201, await response.text()
        return await response.json()


def logged_sequences(url: str) -> list[int]:
    engine = sql_engine(url)
    with engine.connect() as connection:
        rows = connection.execute(text(f"SELECT sequence FROM {LogEntry.table} ORDER BY sequence")).all()
    engine.dispose()
    return [row[0] for row in rows]


async def test_concurrent_credits_of_one_user_add_up(system: System) -> None:
    system.start("users")
    url = system.urls["users"]
    await post(f"{url}/users", {"name": "Ada", "email": "ada@example.org"})
    answers = await write_all(url, "/users/1/credit", {"amount": 3}, WRITES, CONNECTIONS, "credit")
    assert {status for status, _ in answers} == {200}
    # Every answer shows another balance: each write saw all the ones before it.
    assert sorted(user["credit"] for _, user in answers) == [3 * n for n in range(1, WRITES + 1)]
    user = await get(f"{url}/users/1")
    assert (user["credit"], user["version"]) == (3 * WRITES, WRITES + 1)
    assert logged_sequences(system.environment["USERS_DATABASE_URL"]) == list(range(1, WRITES + 2))


async def test_concurrent_creations_are_numbered_without_gaps(system: System) -> None:
    system.start("payments")
    url = system.urls["payments"]
    body = {"user_id": 1, "amount": 100, "currency": "EUR"}
    answers = await write_all(url, "/payments", body, WRITES, CONNECTIONS, "payment")
    assert {status for status, _ in answers} == {201}
    assert sorted(payment["id"] for _, payment in answers) == list(range(1, WRITES + 1))
    assert logged_sequences(system.environment["PAYMENTS_DATABASE_URL"]) == list(range(1, WRITES + 1))


async def test_concurrent_reservations_sell_what_there_is_and_no_more(system: System) -> None:
    from pymongo import MongoClient

    system.start("items")
    url = system.urls["items"]
    stock = WRITES - 500
    await post(f"{url}/items", {"name": "seat", "price": 1000, "currency": "EUR", "stock": stock})
    answers = await write_all(url, "/items/1/reservations", {"quantity": 1}, WRITES, CONNECTIONS, "seat")
    sold = [answer for status, answer in answers if status == 201]
    refused = [answer for status, answer in answers if status == 409]
    assert len(sold) + len(refused) == WRITES
    assert sorted(reservation["id"] for reservation in sold) == list(range(1, stock + 1))
    assert {problem["code"] for problem in refused} == {"out_of_stock"}
    assert (await get(f"{url}/items/1"))["stock"] == 0
    client: MongoClient[dict[str, Any]] = MongoClient(system.environment["ITEMS_DATABASE_URL"])
    with client:
        log = client.get_default_database()[LogEntry.table].find({}, {"sequence": 1}).sort("sequence", 1)
        assert [entry["sequence"] for entry in log] == list(range(1, WRITES + 2))


@pytest.mark.parametrize("setting", ["USERS_DATABASE_URL", "PAYMENTS_DATABASE_URL"])
def test_the_same_without_a_lane_loses_updates(databases: FreshDatabases, setting: str) -> None:
    """The naive version: read, add, write, each connection for itself. This is what the tests above would catch."""
    url = databases.new(setting)
    engine = sql_engine(url)
    with engine.connect() as connection:
        connection.execute(text("CREATE TABLE accounts (id INTEGER PRIMARY KEY, credit BIGINT NOT NULL)"))
        connection.execute(text("INSERT INTO accounts VALUES (1, 0)"))
    engine.dispose()
    writers, each = 8, 50
    together = threading.Barrier(writers)

    def credit() -> None:
        own = sql_engine(url)
        with own.connect() as connection:
            together.wait()
            for _ in range(each):
                credit = connection.execute(text("SELECT credit FROM accounts WHERE id = 1")).scalar_one()
                connection.execute(text("UPDATE accounts SET credit = :credit WHERE id = 1"), {"credit": credit + 1})
        own.dispose()

    threads = [threading.Thread(target=credit) for _ in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with engine.connect() as connection:
        final = connection.execute(text("SELECT credit FROM accounts WHERE id = 1")).scalar_one()
    engine.dispose()
    assert final < writers * each


async def test_two_gateways_of_one_service_share_its_lane(system: System) -> None:
    """Gateways are stateless: a write through one is seen through the other, and keys are the same on both."""
    system.start("users")
    first = system.urls["users"]
    system.start_gateway("users")
    second = system.urls["users"]
    await post(f"{first}/users", {"name": "Ada", "email": "ada@example.org"})
    answers = await asyncio.gather(
        write_all(first, "/users/1/credit", {"amount": 1}, 300, 16, "same"),
        write_all(second, "/users/1/credit", {"amount": 1}, 300, 16, "same"),
    )
    assert [credit for _, credit in answers[0]] == [credit for _, credit in answers[1]]
    assert (await get(f"{second}/users/1"))["credit"] == 300
