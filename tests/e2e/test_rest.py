"""Promises about HTTP on the real system, beside those that hold in whatever way it runs (`test_everywhere.py`)."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

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
