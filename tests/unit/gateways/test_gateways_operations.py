"""Commands by id, health, readiness, metrics."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import REGISTRY, Metric
from prometheus_client.registry import Collector
from structlog.testing import capture_logs

from coordinator.client.database import NoConnectionLeft
from coordinator.client.proved_places import NotProved
from coordinator.http import operations
from coordinator.runtime import repeated_line
from coordinator.service.errors import DatabaseUnavailable
from coordinator.stores.lane_tables import LogEntry
from tests.unit.gateways.conftest import RunningGateway, Start
from tests.unit.gateways.gateway_fakes import NOW

WITHIN_S = 10.0
COMMAND_ID = "0198c0de-0000-7000-8000-00000000abcd"


def settled(**changes: Any) -> LogEntry:
    values: dict[str, Any] = {
        "command_id": COMMAND_ID,
        "sequence": 12,
        "epoch": 1,
        "type": "users.create",
        "fingerprint": "f",
        "status": "applied",
        "result": '{"id":7}',
        "error_code": None,
        "error_message": None,
        "settled_at": NOW,
    }
    return LogEntry(**values | changes)


async def test_an_applied_command_is_shown_with_its_result(users: RunningGateway) -> None:
    users.log.entries[COMMAND_ID] = settled()
    response, body = await users.call("GET", f"/commands/{COMMAND_ID.upper()}")
    assert response.status == 200
    timeline = body.pop("timeline")
    assert (timeline["standing"], timeline["lane"], timeline["sequence"]) == ("applied", "users", 12)
    assert body == {
        "command_id": COMMAND_ID,
        "type": "users.create",
        "status": "applied",
        "sequence": 12,
        "result": {"id": 7},
        "error": None,
        "settled_at": "2026-01-02T03:04:05.000000Z",
    }
    assert (response.headers["Command-Id"], response.headers["Command-Sequence"]) == (COMMAND_ID, "12")


async def test_a_rejected_command_is_shown_with_its_reason(users: RunningGateway) -> None:
    users.log.entries[COMMAND_ID] = settled(
        status="rejected", result=None, error_code="email_taken", error_message="no"
    )
    response, body = await users.call("GET", f"/commands/{COMMAND_ID}")
    assert (response.status, body["result"]) == (200, None)
    assert body["error"] == {"code": "email_taken", "message": "no"}


async def test_a_command_in_flight_here_is_pending(users: RunningGateway) -> None:
    users.writes.in_flight.add(COMMAND_ID)
    response, body = await users.call("GET", f"/commands/{COMMAND_ID}")
    assert (response.status, body["command_id"], body["status"]) == (202, COMMAND_ID, "pending")
    assert (body["timeline"]["standing"], body["timeline"]["waiting_before"]) == ("queued", None)
    # That is all that this gateway can tell.
    where = "not settled yet: in the queue of lane users, or on its way there, or waiting there for its key"
    assert body["timeline"]["where"] == where
    users.log.entries[COMMAND_ID] = settled()
    response, _ = await users.call("GET", f"/commands/{COMMAND_ID}")
    assert response.status == 200


UNKNOWN_ID = "7b040637-f481-4fbe-86fe-a26763c61218"


@pytest.mark.parametrize("command_id", [UNKNOWN_ID, "7", "x" * 300, "%00", "%ff%fe", "%ed%a0%80"])
async def test_an_unknown_command_is_404(users: RunningGateway, command_id: str) -> None:
    response, body = await users.call("GET", f"/commands/{command_id}")
    assert (response.status, body["code"]) == (404, "command_not_found")


async def test_a_command_still_queued_is_said_to_be_unknown(users: RunningGateway) -> None:
    _, body = await users.call("GET", f"/commands/{COMMAND_ID}")
    assert "still queued" in body["detail"]


async def test_a_command_that_may_wait_here_is_not_said_to_be_unknown(
    users: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway has forgotten which they are; what is settled it finds all the same."""
    monkeypatch.setattr(users.writes, "pending", lambda _: None)
    response, body = await users.call("GET", f"/commands/{COMMAND_ID}")
    assert (response.status, body["code"], response.headers["Retry-After"]) == (503, "overloaded", "1")
    users.log.entries[COMMAND_ID] = settled()
    response, _ = await users.call("GET", f"/commands/{COMMAND_ID}")
    assert response.status == 200


async def test_the_log_may_be_away(users: RunningGateway) -> None:
    users.log.error = DatabaseUnavailable("away")
    response, _ = await users.call("GET", f"/commands/{COMMAND_ID}")
    assert (response.status, response.headers["Retry-After"]) == (503, "1")


async def test_a_command_that_a_failover_might_lose_is_pending_or_not_known_yet(users: RunningGateway) -> None:
    users.log.error = NotProved("ask again")
    response, body = await users.call("GET", f"/commands/{COMMAND_ID}")
    assert (response.status, body["code"]) == (503, "database_unavailable")
    users.writes.in_flight.add(COMMAND_ID)
    response, body = await users.call("GET", f"/commands/{COMMAND_ID}")
    assert (response.status, body["status"]) == (202, "pending")


async def test_a_process_that_lives_is_healthy_whatever_is_away(users: RunningGateway) -> None:
    users.writes.connected = users.database_is_up = False
    response, _ = await users.call("GET", "/healthz")
    assert response.status == 200


async def test_a_gateway_is_ready_without_its_cache(items: RunningGateway) -> None:
    response, body = await items.call("GET", "/readyz")
    assert (response.status, body) == (
        200,
        {"status": "ready", "checks": {"broker": "ok", "database": "ok", "cache": "ok"}},
    )
    items.cache.is_up = False
    response, body = await items.call("GET", "/readyz")
    assert (response.status, body["status"], body["checks"]["cache"]) == (200, "ready", "down")
    assert body["reasons"] == {"cache": "Redis does not answer"}


@pytest.mark.parametrize("part", ["broker", "database"])
async def test_a_gateway_is_not_ready_without_its_broker_or_database(users: RunningGateway, part: str) -> None:
    users.writes.connected = part != "broker"
    users.database_is_up = part != "database"
    with capture_logs() as lines:
        response, body = await users.call("GET", "/readyz")
    assert "secret-host" not in str(body)
    (down,) = (line for line in lines if line["event"] == "part_down")
    assert (down["part"], down["reason"]) == (
        part,
        users.writes.unready_reason if part == "broker" else "the database does not answer",
    )
    assert (response.status, body["code"], response.headers["Retry-After"]) == (503, "not_ready", "1")
    assert [name for name, state in body["checks"].items() if state == "down"] == [part] == list(body["reasons"])


async def test_a_part_that_goes_and_comes_is_one_line_each_and_a_metric(users: RunningGateway) -> None:
    up = {"service": "users", "part": "database"}
    with capture_logs() as lines:
        for is_up in (True, False, False, True, True):
            users.database_is_up = is_up
            await users.call("GET", "/readyz")
            assert REGISTRY.get_sample_value("coordinator_gateway_part_up", up) == is_up
    assert [(line["event"], line["part"]) for line in lines if line["event"].startswith("part_")] == [
        ("part_down", "database"),
        ("part_up", "database"),
    ]


async def test_another_reason_why_a_part_is_down_is_said_and_those_that_alternate_once_a_minute(
    users: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second may be one that waits for an operator; and the last line tells the one that lasts."""
    users.writes.connected = False
    reasons = ["the broker is not connected", "the broker takes no messages: a memory or disk alarm"]
    with capture_logs() as lines:
        for reason in (*reasons, reasons[1], *reasons, *reasons):
            users.writes.why, users.writes.unready_reason = reason, f"at secret-host: {reason}"
            _, body = await users.call("GET", "/readyz")
            assert body["reasons"] == {"broker": reason}
        users.writes.why, users.writes.unready_reason = reasons[0], f"at secret-host: {reasons[0]}"
        await users.call("GET", "/readyz")
        monkeypatch.setattr(repeated_line, "REPEATED_LINE_S", 0)
        await users.call("GET", "/readyz")
        await users.call("GET", "/readyz")
        users.writes.connected = True
        await users.call("GET", "/readyz")
    assert [(line["event"], line.get("reason")) for line in lines if line["event"].startswith("part_")] == [
        *(("part_down", f"at secret-host: {reason}") for reason in (*reasons, reasons[0])),
        ("part_up", None),
    ]


async def test_a_part_that_goes_again_for_the_same_reason_is_said_again(users: RunningGateway) -> None:
    with capture_logs() as lines:
        for is_up in (False, True, False, True):
            users.writes.connected = is_up
            await users.call("GET", "/readyz")
    assert [line["event"] for line in lines if line["event"].startswith("part_")] == ["part_down", "part_up"] * 2


async def test_a_database_that_answers_and_has_no_connection_left_is_not_said_to_be_silent(
    users: RunningGateway,
) -> None:
    async def full() -> str | None:
        raise NoConnectionLeft("the database has no connection left for the gateway")

    users.app[operations.CHECKS][1] = operations.Check("database", full)
    response, body = await users.call("GET", "/readyz")
    assert response.status == 503
    assert body["reasons"] == {"database": "the database has no connection left for the gateway"}


async def test_those_who_ask_at_a_time_share_a_look(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand who ask would otherwise make a part that answers each in turn look like one that does not answer."""
    monkeypatch.setattr("coordinator.http.looks.SHARED_S", 60.0)
    # The gateway's own looks would be counted too.
    monkeypatch.setattr(operations, "WATCH_EVERY_S", 3600.0)
    users = await start("users")
    looks, answer, all_ask = users.app[operations.LOOKS], asyncio.Event(), asyncio.Event()
    look, asking, asked = looks.look, 0, 0

    async def counted(app: web.Application) -> dict[str, str]:
        nonlocal asking
        asking += 1
        if asking == 20:
            all_ask.set()
        return await look(app)

    async def slow() -> str | None:
        nonlocal asked
        asked += 1
        await answer.wait()
        return None

    monkeypatch.setattr(looks, "look", counted)
    users.app[operations.CHECKS][1] = operations.Check("database", slow)
    calls = [asyncio.create_task(users.call("GET", "/readyz")) for _ in range(20)]
    await all_ask.wait()
    # Whoever is gone takes it from nobody else.
    calls.pop(0).cancel()
    answer.set()
    statuses = [(await each)[0].status for each in calls]
    assert (statuses, asked) == ([200] * 19, 1)
    assert (await users.call("GET", "/readyz"))[0].status == 200
    assert asked == 2, "one that is over is not shared"


async def test_strangers_who_ask_again_and_again_wait_for_the_next_look(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.http.looks.APART_S", 0.3)
    monkeypatch.setattr(operations, "WATCH_EVERY_S", 3600.0)
    users = await start("users")
    is_up, asked = True, 0

    async def quick() -> str | None:
        nonlocal asked
        asked += 1
        return None if is_up else "the database is away"

    async def ask() -> None:
        assert (await users.call("GET", "/readyz"))[0].status == (200 if is_up else 503)

    users.app[operations.CHECKS][1] = operations.Check("database", quick)
    began_s = asyncio.get_running_loop().time()
    for _ in range(3):
        await ask()
    await asyncio.gather(*(ask() for _ in range(10)))
    assert asked == 4, "each of ten had one of his own"
    assert asyncio.get_running_loop().time() - began_s >= 3 * 0.3
    # What is told is never older than the question.
    is_up = False
    await ask()


async def test_a_look_that_began_a_while_ago_is_not_shared(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.http.looks.SHARED_S", 0.0)
    monkeypatch.setattr(operations, "WATCH_EVERY_S", 3600.0)
    users = await start("users")
    asked, both = 0, asyncio.Event()

    async def slow() -> str | None:
        nonlocal asked
        asked += 1
        if asked == 2:
            both.set()
        await both.wait()
        return None

    users.app[operations.CHECKS][1] = operations.Check("database", slow)
    answers = await asyncio.gather(*(users.call("GET", "/readyz") for _ in range(2)))
    assert [response.status for response, _ in answers] == [200, 200]


async def test_a_part_that_goes_and_comes_is_said_though_nobody_asks(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "WATCH_EVERY_S", 0.01)
    up = {"service": "users", "part": "broker"}

    async def until_metric_says(is_up: bool) -> None:
        async with asyncio.timeout(WITHIN_S):
            while REGISTRY.get_sample_value("coordinator_gateway_part_up", up) != is_up:  # noqa: ASYNC110  # no event
                await asyncio.sleep(0.005)

    with capture_logs() as lines:
        users = await start("users")
        for is_up in (True, False, True):
            users.writes.connected = is_up
            await until_metric_says(is_up)
    said = [(line["event"], line["part"]) for line in lines if line["event"].startswith("part_")]
    assert said == [("part_down", "broker"), ("part_up", "broker")]


async def test_a_defect_of_a_check_is_said_once_and_does_not_end_the_looks(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "WATCH_EVERY_S", 0.01)
    asked, often = 0, asyncio.Event()

    async def defect() -> str | None:
        nonlocal asked
        asked += 1
        if asked == 3:
            often.set()
        raise ZeroDivisionError

    with capture_logs() as lines:
        users = await start("users")
        users.app[operations.CHECKS].append(operations.Check("defect", defect))
        async with asyncio.timeout(WITHIN_S):
            await often.wait()
    assert [line["event"] for line in lines].count("internal_error") == 1


class Slow(Collector):
    """Has no metrics, which takes the event loop for a while; counts how often it was asked."""

    def __init__(self) -> None:
        self.times = 0

    def collect(self) -> Iterator[Metric]:
        self.times += 1
        time.sleep(0.01)
        yield from ()

    def describe(self) -> Iterator[Metric]:
        yield from ()


async def test_those_who_ask_for_metrics_at_a_time_share_them(users: RunningGateway) -> None:
    """Whoever asks needs no credential: so many would take the time of all others."""
    slow = Slow()
    REGISTRY.register(slow)
    try:
        answers = await asyncio.gather(*(users.call("GET", "/metrics") for _ in range(30)))
    finally:
        REGISTRY.unregister(slow)
    assert {response.status for response, _ in answers} == {200}
    assert slow.times < 20


async def test_metrics_count_by_route_and_not_by_path(payments: RunningGateway) -> None:
    await payments.call("GET", "/payments/9")
    await payments.call("GET", "/payments/99")
    await payments.call("PROPFIND", "/nowhere")
    payment = {"user_id": 7, "amount": 100, "currency": "EUR"}
    await payments.call("POST", "/payments", json=payment)
    response, body = await payments.call("GET", "/metrics")
    text = body.decode()
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    labels = 'method="GET",route="/payments/{id}",service="payments"'
    assert f'coordinator_gateway_requests_total{{{labels},status="200"}}' in text
    assert f'coordinator_gateway_requests_total{{{labels},status="404"}}' in text
    assert 'method="other",route="unmatched",service="payments",status="404"' in text
    assert 'coordinator_gateway_request_seconds_count{route="/payments/{id}",service="payments"}' in text
    for stage in ("validate", "publish", "apply", "reply"):
        assert f'coordinator_gateway_stage_seconds_count{{service="payments",stage="{stage}"}}' in text
    assert 'coordinator_gateway_in_flight{service="payments"} 1.0' in text
    assert "/payments/99" not in text
