"""A peer that says nothing, on a connection that stays open: within 5 s readiness, a metric and one line say so."""

import asyncio
import json
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import text

from coordinator.dev.servers.process import Process
from coordinator.dev.servers.server import Server
from coordinator.dev.servers.server_set import ServerSet
from tests.faults.proxies import Proxies
from tests.faults.proxy import AtCommit, TcpProxy
from tests.support.databases import sql_engine
from tests.support.system import System, wait_ready, wait_until, write_all

SAID_WITHIN_S = 5.0
PROMPT = {"AMQP_HEARTBEAT_S": "60"}
"""Heartbeats are to end no connection here."""
WRITES = 3
LANES: dict[str, tuple[str, dict[str, Any]]] = {
    "users": ("/users/1/credit", {"amount": 1}),
    "items": ("/items", {"name": "seat", "price": 1000, "currency": "EUR", "stock": 1}),
    "payments": ("/payments", {"user_id": 1, "amount": 1000, "currency": "EUR"}),
}
"""A write of each lane that may be done again and again."""


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def lines(process: Process, *events: str, since: int = 0) -> list[dict[str, Any]]:
    """The lines of a process's log about these events, but for the first bytes of it."""
    log = process.log_path.read_bytes()[since:].decode()
    said = (json.loads(line) for line in log.splitlines() if line.startswith("{"))
    return [line for line in said if line["body"] in events]


def length(process: Process) -> int:
    """Bytes of its log. A machine that was slow, and whose answers were late, has been said before."""
    return process.log_path.stat().st_size


def metric(readyz: str, name: str) -> float:
    _, text = get(readyz.replace("/readyz", "/metrics"))
    return next((float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name)), 0.0)


def launched(system: System, process: Process) -> str:
    """Where a process says whether it is ready."""
    (url,) = (system._starts[name][2] for name, named in system.named.items() if named is process)
    return url


@pytest.mark.faults
async def test_a_frozen_connection_to_the_broker_is_said_though_nothing_is_to_do(
    system: System, native_servers: ServerSet
) -> None:
    port = native_servers.rabbitmq.port
    async with TcpProxy(port) as proxy:
        frozen = PROMPT | {"AMQP_URL": Proxies([(port, proxy)]).through(system.environment["AMQP_URL"])}

        def start() -> tuple[Process, Process, Process]:
            system.prepare("users", "payments")
            system.start_sandbox()
            system.start_coordinator("payments")
            lane, gateway = system.start_coordinator("users", **frozen), system.start_gateway("users", **frozen)
            return lane, gateway, system.start_effects("payments", **frozen)

        lane, gateway, effects = await asyncio.to_thread(start)
        of = {process: launched(system, process) for process in (lane, gateway, effects)}
        late = {lane: "coordinator_lane_answer_late_seconds{", effects: "coordinator_effects_answer_late_seconds{"}
        up = 'coordinator_gateway_part_up{part="broker"'

        def is_said() -> bool:
            # Nobody asks for readiness: a line and a metric come by themselves.
            return (
                all(
                    lines(process, "answer_late", since=before[process]) and metric(of[process], name) >= 3
                    for process, name in late.items()
                )
                and bool(lines(gateway, "part_down"))
                and metric(of[gateway], up) == 0
            )

        assert await asyncio.to_thread(metric, of[gateway], up) in (0, 1)
        before = {process: length(process) for process in late}
        proxy.stall()
        began_s = time.monotonic()
        await asyncio.to_thread(wait_until, is_said, "all of them say it")
        said_within_s = time.monotonic() - began_s
        for process, url in of.items():
            status, reason = await asyncio.to_thread(get, url)
            assert status == 503
            assert "RabbitMQ (connection" in reason or process is gateway, reason
        proxy.resume()
        for process, url in of.items():
            await asyncio.to_thread(wait_ready, url, process)
        await asyncio.to_thread(
            wait_until,
            lambda: all(lines(process, "answer_came", since=before[process]) for process in late),
            "they say that it came",
        )
        for process in late:
            (line,) = lines(process, "answer_late", since=before[process])
            assert line["waited_s"] < SAID_WITHIN_S
            assert not lines(process, "broker_connection_lost")
        (down,) = lines(gateway, "part_down")
        assert (down["part"], "RabbitMQ (connection" in down["reason"]) == ("broker", True)
        assert said_within_s < SAID_WITHIN_S
        await asyncio.to_thread(system.stop)


def test_an_idle_lane_says_that_its_database_refuses_it(system: System) -> None:
    system.prepare("users")
    coordinator, readyz = system.launch_coordinator("users", {})
    wait_ready(readyz, coordinator)
    role = urlsplit(system.environment["USERS_DATABASE_URL"]).username
    engine = sql_engine(system.owner("users"))

    def login(right: str) -> None:
        with engine.begin() as connection:
            connection.execute(text(f'ALTER ROLE "{role}" {right}'))
            connection.execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = :role"), {"role": role}
            )

    login("NOLOGIN")
    try:
        wait_until(lambda: get(readyz)[0] == 503, "it says so", coordinator, SAID_WITHIN_S)
        assert "is not permitted to log in" in get(readyz)[1]
        assert metric(readyz, "coordinator_lane_suspensions_total") > 0
        assert len(lines(coordinator, "lane_suspended")) == 1
    finally:
        login("LOGIN")
        engine.dispose()
    wait_until(lambda: get(readyz)[0] == 200, "it is well again", coordinator, SAID_WITHIN_S)


@pytest.fixture(params=LANES)
def lane(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def server_of(lane: str, servers: ServerSet) -> Server:
    return {"users": servers.postgresql, "items": servers.mongodb, "payments": servers.mysql}[lane]


async def test_a_commit_that_hangs_is_said_and_what_it_held_up_is_applied_once(
    system: System, native_servers: ServerSet, lane: str
) -> None:
    port, setting = server_of(lane, native_servers).port, f"{lane.upper()}_DATABASE_URL"
    path, body = LANES[lane]
    async with TcpProxy(port) as proxy:

        def start() -> tuple[Process, Process]:
            system.prepare(lane)
            url = Proxies([(port, proxy)]).through(system.environment[setting])
            return system.start_coordinator(lane, **{setting: url}), system.start_gateway(lane)

        coordinator, _ = await asyncio.to_thread(start)
        readyz, gateway = launched(system, coordinator), system.urls[lane]
        if lane == "users":
            await write_all(gateway, "/users", {"name": "Ada", "email": "ada@example.org"}, 1, 1, "ada")
        await write_all(gateway, path, body, 1, 1, "first")
        before = length(coordinator)
        strike = asyncio.create_task(proxy.strike_at_commit(AtCommit.HOLD_ANSWER, 20))
        await asyncio.sleep(0)  # lets it begin
        writing = asyncio.create_task(write_all(gateway, path, body, WRITES, WRITES, "held"))
        assert await strike, "no commit was seen"

        def is_said() -> bool:
            return (
                bool(lines(coordinator, "answer_late", since=before))
                and metric(readyz, "coordinator_lane_answer_late_seconds{") >= 3
                and "the database (commit)" in get(readyz)[1]
                and get(readyz)[0] == 503
            )

        began_s = time.monotonic()
        await asyncio.to_thread(wait_until, is_said, "it says that a commit hangs")
        assert time.monotonic() - began_s < SAID_WITHIN_S
        # Whoever waits may have found in the log that it is committed, though the lane was not told.
        proxy.resume()
        await asyncio.to_thread(wait_ready, readyz, coordinator)
        answers = await writing
        statuses = {status for status, _ in answers}
        assert len(statuses) == 1
        assert statuses < {200, 201}
        if lane == "users":
            assert sorted(user["credit"] for _, user in answers) == [2, 3, 4]
        else:
            assert sorted(row["id"] for _, row in answers) == [2, 3, 4]
        await asyncio.to_thread(
            wait_until, lambda: bool(lines(coordinator, "answer_came", since=before)), "it says that it came"
        )
        said = lines(coordinator, "answer_late", "answer_came", "lane_taken_over", since=before)
        assert [line["body"] for line in said] == ["answer_late", "answer_came"]
        assert len(lines(coordinator, "lane_taken_over")) == 1
        (line, _) = said
        assert line["awaited"] == "the database (commit)"
        assert line["waited_s"] < SAID_WITHIN_S
        await asyncio.to_thread(system.stop)
