"""Processes and servers that die: nothing is lost, doubled or reordered, and it goes on by itself."""

import asyncio
import signal
from datetime import UTC, datetime
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen
from uuid import uuid4

import aiohttp
import pytest
from sqlalchemy import text

from coordinator.dev.servers.process import Process
from coordinator.dev.servers.server import Server
from coordinator.dev.servers.server_set import ServerSet
from coordinator.registry import registry
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.stores.open import open_store
from coordinator.stores.port import Changes
from tests.support.callers import HEADERS
from tests.support.databases import sql_engine
from tests.support.servers import quorum_queues_are_noted
from tests.support.system import Client, System, wait_ready, wait_until, write_all

WRITES = 1200
FEW = 50


async def post(url: str, body: object) -> None:
    async with aiohttp.ClientSession(headers=HEADERS) as session, session.post(url, json=body) as response:
        assert response.status == 201, await response.text()


def query(url: str, statement: str) -> list[tuple[Any, ...]]:
    engine = sql_engine(url)
    with engine.connect() as connection:
        rows = [tuple(row) for row in connection.execute(text(statement)).all()]
    engine.dispose()
    return rows


async def credit_through(system: System, during: Any) -> None:
    """Credit user 1 `WRITES` times while `during` does its worst; then check that all of it counts, once, in order."""
    url = system.urls["users"]
    await post(f"{url}/users", {"name": "Ada", "email": "ada@example.org"})
    writing = asyncio.create_task(write_all(url, "/users/1/credit", {"amount": 1}, WRITES, 16, "credit"))
    await during(writing)
    answers = await writing
    assert {status for status, _ in answers} == {200}
    assert sorted(user["credit"] for _, user in answers) == list(range(1, WRITES + 1))
    database = system.environment["USERS_DATABASE_URL"]
    assert query(database, "SELECT credit, version FROM users") == [(WRITES, WRITES + 1)]
    sequences = query(database, "SELECT sequence FROM command_log ORDER BY sequence")
    assert [sequence for (sequence,) in sequences] == list(range(1, WRITES + 2))


async def settled(system: System, count: int) -> None:
    """Return once so many commands are in the log."""
    engine = sql_engine(system.environment["USERS_DATABASE_URL"])
    with engine.connect() as connection:
        async with asyncio.timeout(60):
            while (connection.execute(text("SELECT sequence FROM lane_lease")).scalar() or 0) < count:
                await asyncio.sleep(0.005)
    engine.dispose()


def sequence_of(system: System) -> int:
    rows = query(system.environment["USERS_DATABASE_URL"], "SELECT sequence FROM lane_lease")
    return int(rows[0][0]) if rows else 0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_a_standby_takes_over_from_a_coordinator_that_ends(system: System, how: signal.Signals) -> None:
    system.prepare("users")
    active = system.start_coordinator("users")
    standby = system.start_coordinator("users")
    system.start_gateway("users")

    async def end_the_active_one(writing: "asyncio.Task[Any]") -> None:
        await settled(system, FEW)
        if how == signal.SIGKILL:
            active.kill()
        else:
            await asyncio.to_thread(active.stop, signal.SIGTERM, 20)
            assert active.exit_status == 0, active.log_tail(30)
            assert '"signal":"SIGTERM"' in active.log_tail(30)
        assert not writing.done(), "the kill came too late to prove anything"

    await credit_through(system, end_the_active_one)
    assert standby.alive
    if how == signal.SIGKILL:
        system.processes.remove(active)
    assert query(system.environment["USERS_DATABASE_URL"], "SELECT epoch FROM lane_lease") == [(2,)]


@pytest.mark.faults
async def test_a_stopped_coordinator_that_wakes_up_after_a_takeover_cannot_write(system: System) -> None:
    """SIGSTOP until the broker gives it up and a standby has the lane, then SIGCONT: a zombie with a stale epoch."""
    system.prepare("users")
    active = system.start_coordinator("users")
    system.start_coordinator("users")
    system.start_gateway("users")

    async def stop_and_continue(_: "asyncio.Task[Any]") -> None:
        await settled(system, FEW)
        active.pause()
        at = sequence_of(system)
        assert at + FEW < WRITES, "the stop came too late to prove anything"
        await settled(system, at + FEW)
        active.resume()

    await credit_through(system, stop_and_continue)
    assert active.alive


async def test_a_database_outage_suspends_the_lane_and_loses_nothing(system: System, native_servers: ServerSet) -> None:
    system.start("users")

    async def kill_postgresql(_: "asyncio.Task[Any]") -> None:
        await settled(system, FEW)
        await asyncio.to_thread(native_servers.postgresql.kill)
        async with aiohttp.ClientSession(headers=HEADERS) as session:
            # Reads say so; writes are accepted and wait.
            async with session.get(f"{system.urls['users']}/users/1") as response:
                assert response.status == 503
                assert response.headers["Retry-After"]
            async with session.post(
                f"{system.urls['users']}/users/1/credit", json={"amount": 0}, headers={"Prefer": "respond-async"}
            ) as response:
                assert response.status == 202
        await asyncio.to_thread(native_servers.postgresql.start)

    url = system.urls["users"]
    await post(f"{url}/users", {"name": "Ada", "email": "ada@example.org"})
    writing = asyncio.create_task(write_all(url, "/users/1/credit", {"amount": 1}, WRITES, 16, "credit"))
    await kill_postgresql(writing)
    answers = await writing
    assert {status for status, _ in answers} == {200}
    database = system.environment["USERS_DATABASE_URL"]
    assert query(database, "SELECT credit, version FROM users") == [(WRITES, WRITES + 2)]
    sequences = query(database, "SELECT sequence FROM command_log ORDER BY sequence")
    assert [sequence for (sequence,) in sequences] == list(range(1, WRITES + 3))


@pytest.mark.faults
async def test_a_broker_outage_is_answered_503_and_loses_nothing(system: System, native_servers: ServerSet) -> None:
    system.start("users")
    wait_until(lambda: quorum_queues_are_noted(native_servers.rabbitmq), "the queue survives")
    await outlives_an_outage(system, native_servers.rabbitmq)


async def outlives_an_outage(system: System, broker: Server) -> None:
    """The broker is killed under load, and comes back."""

    async def kill_broker(_: "asyncio.Task[Any]") -> None:
        await settled(system, FEW)
        await asyncio.to_thread(broker.kill)
        async with aiohttp.ClientSession(headers=HEADERS) as session, asyncio.timeout(30):
            while True:
                async with session.post(f"{system.urls['users']}/users/1/credit", json={"amount": 1000}) as response:
                    problem = await response.json(content_type=None)
                    if problem["code"] == "broker_unavailable" and "confirm" not in problem["detail"]:
                        assert response.status == 503
                        assert response.headers["Retry-After"]
                        break
            # Reads do not queue.
            async with session.get(f"{system.urls['users']}/users/1") as response:
                assert response.status == 200
        await asyncio.to_thread(broker.start)

    await credit_through(system, kill_broker)


async def test_a_killed_gateway_does_half_of_nothing(system: System) -> None:
    system.start("users")
    gateway: Process = system.processes[-1]
    url = system.urls["users"]
    await post(f"{url}/users", {"name": "Ada", "email": "ada@example.org"})
    writing = asyncio.gather(
        *(write_all(url, "/users/1/credit", {"amount": 1}, 400, 16, "credit") for _ in range(1)), return_exceptions=True
    )
    await settled(system, 100)
    gateway.kill()
    system.processes.remove(gateway)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    # The client that was cut off asks again, elsewhere, with the same keys.
    system.start_gateway("users")
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        client = Client(session, system.urls["users"])
        answers = await asyncio.gather(
            *(client.write("/users/1/credit", {"amount": 1}, f"credit-{n}") for n in range(400))
        )
    assert {status for status, _ in answers} == {200}
    assert sorted(user["credit"] for _, user in answers) == list(range(1, 401))


def test_what_a_dead_process_left_in_the_outbox_of_an_idle_lane_is_published(system: System) -> None:
    """It had committed, and died before the broker had it; nothing else is ever delivered to its lane."""
    system.prepare("users", "payments")
    url = system.environment["USERS_DATABASE_URL"]
    store = open_store(url, registry().service("users"))
    at = datetime(2026, 1, 1, tzinfo=UTC)
    arguments = b'{"user_id": 1, "amount": 5, "currency": "EUR"}'
    left = [
        OutboxEntry(
            id=number,
            lane="payments",
            command_id=str(uuid4()),
            type="payments.open",
            arguments=arguments,
            created_at=at,
        )
        for number in range(1, 4)
    ]
    store.begin().commit(store.take_over("one that died", at), 0, Changes([], [], [left]))
    store.close()
    for lane in ("payments", "users", "users"):
        system.start_coordinator(lane, LANE_OUTBOX_WATCH_S="0.3", LANE_OUTBOX_MAX="2")
    payments = system.environment["PAYMENTS_DATABASE_URL"]
    wait_until(lambda: query(url, "SELECT id FROM outbox") == [], "an empty outbox")
    wait_until(lambda: len(query(payments, "SELECT id FROM payments")) == 3, "three payments")
    assert [row[0] for row in query(payments, "SELECT command_id FROM command_log ORDER BY sequence")] == [
        entry.command_id for entry in left
    ]


@pytest.mark.parametrize("has_settled", [False, True])
async def test_a_database_that_becomes_another_lane_s_suspends_the_lane_until_its_own_is_back(
    system: System, has_settled: bool
) -> None:
    """As where databases are renamed beneath lanes that run. An idle lane says so, too; no loss is spoken of."""
    system.prepare("users")
    process, ready = system.launch_coordinator("users", {})
    wait_ready(ready, process)
    system.start_gateway("users")
    users = {"name": "Ada", "email": "ada@example.org"}
    if has_settled:
        await post(f"{system.urls['users']}/users", users)
    rename_lane(system, "other")
    wait_until(lambda: "is that of lane other" in said_by(ready), "it says whose the database is", process)
    assert "accept-loss" not in process.log_tail(100)
    rename_lane(system, "users")
    wait_ready(ready, process)
    await post(f"{system.urls['users']}/users", users | {"email": "bob@example.org"})
    assert sequence_of(system) == 1 + has_settled


def rename_lane(system: System, name: str) -> None:
    engine = sql_engine(system.environment["USERS_DATABASE_URL"])
    with engine.connect() as connection:
        connection.execute(text("UPDATE lane_lease SET lane = :name"), {"name": name})
    engine.dispose()


def said_by(ready: str) -> str:
    """What /readyz says where it is not ready."""
    try:
        with urlopen(ready, timeout=5):
            return ""
    except HTTPError as error:
        return error.read().decode()
