"""The README's session and the promises about HTTP, on the real system."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tests.support.callers import HEADERS
from tests.support.databases import sql_engine
from tests.support.system import System, wait_until


class Api:
    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def __call__(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> tuple[int, Any, Mapping[str, str]]:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self._session.request(
            method, self._url + path, json=body, headers=sent, allow_redirects=False
        ) as response:
            raw = await response.read()
            return response.status, json.loads(raw) if raw else None, response.headers


@pytest.fixture
async def users(system: System) -> Any:
    system.start("users")
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        yield Api(session, system.urls["users"])


@pytest.fixture
async def items(system: System) -> Any:
    system.start("items")
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        yield Api(session, system.urls["items"])


async def test_a_user_s_life(users: Api) -> None:
    status, ada, headers = await users("POST", "/users", {"name": "Ada", "email": "Ada@Example.org"})
    assert (status, headers["Location"], headers["ETag"]) == (201, "/users/1", '"1"')
    created_at = ada.pop("created_at")
    assert created_at.endswith("Z")
    assert ada == {"id": 1, "name": "Ada", "email": "ada@example.org", "credit": 0, "version": 1, "owner": "developer"}
    assert (await users("GET", "/users/1"))[1] == ada | {"created_at": created_at}

    status, problem, headers = await users("POST", "/users", {"name": "Eve", "email": "ada@example.org"})
    assert (status, problem["code"]) == (409, "email_taken")
    assert headers["Content-Type"].startswith("application/problem+json")

    assert (await users("POST", "/users", {"name": "Bob", "email": "bob@example.org"}))[1]["id"] == 2
    assert (await users("POST", "/users/1/credit", {"amount": 500}))[1]["credit"] == 500
    status, problem, _ = await users("POST", "/users/1/credit", {"amount": -501})
    assert (status, problem["code"]) == (409, "insufficient_credit")
    status, transfer, _ = await users("POST", "/transfers", {"from": 1, "to": 2, "amount": 200})
    assert (status, transfer["from_credit"]) == (200, 300)

    status, ada, headers = await users("PATCH", "/users/1", {"name": "Ada L."}, If_Match='"3"')
    assert (status, ada["name"], headers["ETag"]) == (200, "Ada L.", '"4"')
    status, problem, _ = await users("PATCH", "/users/1", {"name": "late"}, If_Match='"3"')
    assert (status, problem["code"]) == (412, "version_conflict")

    listed = (await users("GET", "/users?limit=1"))[1]
    assert ([user["id"] for user in listed["items"]], listed["next"]) == ([1], 1)
    listed = (await users("GET", "/users?limit=1&after=1"))[1]
    assert ([user["id"] for user in listed["items"]], listed["next"]) == ([2], None)

    assert (await users("DELETE", "/users/2"))[0] == 204
    assert (await users("GET", "/users/2"))[0] == 404
    assert (await users("DELETE", "/users/2"))[1]["code"] == "user_not_found"
    # An id is not given out again.
    assert (await users("POST", "/users", {"name": "Cy", "email": "bob@example.org"}))[1]["id"] == 3


async def test_a_repeated_request_is_answered_as_the_first(users: Api) -> None:
    await users("POST", "/users", {"name": "Ada", "email": "ada@example.org"})
    first = await users("POST", "/users/1/credit", {"amount": 5}, Idempotency_Key="k-1")
    again = await users("POST", "/users/1/credit", {"amount": 5}, Idempotency_Key="k-1")
    assert first[:2] == again[:2]
    assert "Idempotent-Replayed" not in first[2]
    assert again[2]["Idempotent-Replayed"] == "true"
    other = await users("POST", "/users/1/credit", {"amount": 6}, Idempotency_Key="k-1")
    assert (other[0], other[1]["code"]) == (422, "idempotency_mismatch")
    rejected = [await users("POST", "/users/1/credit", {"amount": -50}, Idempotency_Key="k-2") for _ in range(2)]
    assert [answer[0] for answer in rejected] == [409, 409]
    assert rejected[1][2]["Idempotent-Replayed"] == "true"
    assert (await users("GET", "/users/1"))[1]["credit"] == 5


async def test_an_asynchronous_write_is_looked_up_by_its_command(users: Api) -> None:
    await users("POST", "/users", {"name": "Ada", "email": "ada@example.org"})
    status, body, headers = await users("POST", "/users/1/credit", {"amount": 5}, Prefer="respond-async")
    assert (status, body["status"]) == (202, "pending")
    assert headers["Location"] == f"/commands/{body['command_id']}"
    async with asyncio.timeout(10):
        while True:
            status, outcome, _ = await users("GET", headers["Location"])
            if status == 200:
                break
            assert (status, outcome["status"]) == (202, "pending")
    assert (outcome["status"], outcome["sequence"], outcome["result"]["credit"]) == ("applied", 2, 5)


async def test_many_commands_in_one_request_are_applied_in_their_order_and_once(users: Api) -> None:
    commands: list[tuple[str, dict[str, Any], str]] = []
    for number in range(1, 21):
        commands += [
            ("users.create", {"name": f"User {number}", "email": f"{number}@example.org"}, "applied"),
            # Each needs the one before it: in another order it would be rejected.
            ("users.credit", {"id": number, "amount": 30}, "applied"),
            ("users.credit", {"id": number, "amount": -31}, "rejected"),
            ("users.create", {"name": "Late", "email": f"{number}@example.org"}, "rejected"),
            ("users.transfer", {"from": number, "to": max(number - 1, 1), "amount": 10}, "applied"),
        ]
    commands[4] = ("users.update", {"id": 1, "name": "First"}, "applied")
    body = [{"id": str(uuid4()), "type": kind, "args": arguments} for kind, arguments, _ in commands]
    status, outcomes, headers = await users("POST", "/commands", body)
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert [outcome["command_id"] for outcome in outcomes] == [each["id"] for each in body]
    assert [(outcome["type"], outcome["status"]) for outcome in outcomes] == [(kind, end) for kind, _, end in commands]
    assert [outcome["sequence"] for outcome in outcomes] == list(range(1, 101))
    assert not any(outcome["replayed"] for outcome in outcomes)
    assert {outcome["error"]["code"] for outcome in outcomes if outcome["error"]} == {
        "email_taken",
        "insufficient_credit",
    }
    assert [outcome["result"]["id"] for outcome in outcomes[::5]] == list(range(1, 21)), "rejected ones use no id up"
    assert (await users("GET", "/users/1"))[1]["credit"] == 40
    assert (await users("GET", "/users/20"))[1]["credit"] == 20

    again = (await users("POST", "/commands", body))[1]
    assert again == [outcome | {"replayed": True} for outcome in outcomes]
    assert (await users("GET", "/users/1"))[1]["credit"] == 40

    key = {"Idempotency_Key": "import-7"}
    credit = [{"type": "users.credit", "args": {"id": 20, "amount": 1}}] * 2
    first, repeated = [(await users("POST", "/commands", credit, **key))[1] for _ in range(2)]
    assert [outcome["sequence"] for outcome in first] == [101, 102]
    assert repeated == [outcome | {"replayed": True} for outcome in first]
    alone = await users("GET", f"/commands/{first[1]['command_id']}")
    assert (alone[0], alone[1]["sequence"]) == (200, 102)
    assert (await users("GET", "/users/20"))[1]["credit"] == 22


async def test_without_a_coordinator_a_write_waits_and_is_applied_when_one_comes(system: System) -> None:
    system.start("users")
    coordinator = system.processes[0]
    coordinator.kill()
    system.processes.remove(coordinator)
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        users = Api(session, system.urls["users"])
        status, body, headers = await users(
            "POST", "/users", {"name": "Ada", "email": "ada@example.org"}, Prefer="wait=0"
        )
        assert (status, body["status"]) == (202, "pending")
        system.start_coordinator("users")
        async with asyncio.timeout(20):
            while (await users("GET", headers["Location"]))[0] != 200:
                await asyncio.sleep(0.02)
        assert (await users("GET", "/users/1"))[1]["name"] == "Ada"


async def test_an_item_has_a_price_of_more_than_32_bits(items: Api) -> None:
    """MongoDB's driver returns such an integer as one of its own class."""
    body = {"name": "yacht", "price": 3_000_000_000, "currency": "EUR", "stock": 10}
    assert (await items("POST", "/items", body))[0] == 201
    assert (await items("POST", "/items/1/reservations", {"quantity": 4}))[0] == 201
    status, item, _ = await items("PATCH", "/items/1", {"price": 3_000_000_001}, If_Match='"2"')
    assert (status, item["price"], item["stock"]) == (200, 3_000_000_001, 6)
    status, listed, _ = await items("GET", "/items")
    assert (status, [row["price"] for row in listed["items"]]) == (200, [3_000_000_001])


async def test_an_item_is_served_from_the_cache_and_never_stale(items: Api) -> None:
    body = {"name": "pen", "price": 150, "currency": "EUR", "stock": 10}
    assert (await items("POST", "/items", body))[0] == 201
    status, item, headers = await items("GET", "/items/1")
    assert (status, item["stock"]) == (200, 10)
    assert "hit" in headers["Cache-Status"], "the lane fills the cache before it answers"
    reservations = [await items("POST", "/items/1/reservations", {"quantity": 4}) for _ in range(3)]
    assert [answer[0] for answer in reservations] == [201, 201, 409]
    assert reservations[1][1] == {"id": 2, "item_id": 1, "quantity": 4}
    _, item, headers = await items("GET", "/items/1")
    assert (item["stock"], item["version"]) == (2, 3)
    assert "hit" in headers["Cache-Status"]
    assert (await items("DELETE", "/items/1/reservations/1"))[0] == 204
    assert (await items("DELETE", "/items/1/reservations/1"))[1]["code"] == "reservation_not_found"
    assert (await items("GET", "/items/1"))[1]["stock"] == 6
    status, item, _ = await items("PATCH", "/items/1", {"price": 200}, If_Match='"4"')
    assert (status, item["price"]) == (200, 200)
    assert (await items("PATCH", "/items/1", {"price": 1}, If_Match='"4"'))[0] == 412


async def test_payments_are_listed_by_user(system: System) -> None:
    system.start("payments")
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        payments = Api(session, system.urls["payments"])
        for user_id in (1, 2, 1):
            status, payment, headers = await payments(
                "POST", "/payments", {"user_id": user_id, "amount": 1000, "currency": "EUR"}
            )
            assert (status, payment["status"]) == (201, "pending")
        assert headers["Location"] == "/payments/3"
        assert (await payments("GET", "/payments/3"))[1] == payment
        listed = (await payments("GET", "/payments?user_id=1"))[1]
        assert [row["id"] for row in listed["items"]] == [1, 3]


@pytest.mark.parametrize(("service", "table"), [("users", "users"), ("payments", "payments")])
def test_the_gateways_role_can_read_and_cannot_write(system: System, service: str, table: str) -> None:
    system.prepare(service)
    engine = sql_engine(system.environment[f"{service.upper()}_READER_URL"])
    with engine.connect() as connection:
        # The lease says whose the database is.
        for readable, rows in ((table, 0), ("command_log", 0), ("lane_lease", 1)):
            assert connection.execute(text(f"SELECT count(*) FROM {readable}")).scalar() == rows
        for statement in (
            f"DELETE FROM {table}",
            f"UPDATE {table} SET version = 1",
            f"INSERT INTO {table} (id) VALUES (1)",
            f"CREATE TABLE {table}_2 (id INTEGER)",
            "UPDATE lane_lease SET epoch = 0",
            "DELETE FROM command_log",
        ):
            with pytest.raises(DBAPIError, match=r"(?i)denied|must be owner"):
                connection.execute(text(statement))
    engine.dispose()


async def test_every_request_is_one_log_line_with_its_stages(system: System) -> None:
    system.start("users")
    gateway = system.processes[-1]
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        users = Api(session, system.urls["users"])
        await users(
            "POST",
            "/users",
            {"name": "Ada", "email": "ada@example.org"},
            traceparent=f"00-{trace}-00f067aa0ba902b7-01",
        )
        metrics = session.get(f"{system.urls['users']}/metrics")
        async with metrics as response:
            assert "coordinator_gateway_requests_total" in await response.text()

    def lines() -> list[dict[str, Any]]:
        logged = [json.loads(line) for line in gateway.log_path.read_text().splitlines() if line.startswith("{")]
        return [line for line in logged if line.get("body") == "request" and line.get("http.route") == "/users"]

    wait_until(lambda: len(lines()) == 1, "the request is logged")
    line = lines()[0]
    assert line["trace_id"] == trace
    assert line["sequence"] == 1
    assert line["command_id"]
    assert set(line["stages"]) == {"validate", "publish", "apply", "reply"}
    assert all(spent >= 0 for spent in line["stages"].values())
