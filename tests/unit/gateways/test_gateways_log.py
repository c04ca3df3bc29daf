"""One line a request, with what is needed to follow it."""

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from coordinator.http.request_log import _is_told
from coordinator.service.errors import CommandPending
from tests.unit.gateways.conftest import RunningGateway
from tests.unit.gateways.gateway_fakes import refused

ADA = {"name": "Ada", "email": "ada@example.org"}
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN_ID = "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"


async def lines_of(gateway: RunningGateway, *call: Any, **options: Any) -> list[Any]:
    """What one request logs. The line is written after the response: another request waits for it."""
    with capture_logs() as lines:
        await gateway.call(*call, **options)
        async with asyncio.timeout(5):
            while not any(line["event"] == "request" for line in lines):
                await gateway.call("GET", "/healthz")
    return [line for line in lines if line.get("http.route") != "/healthz"]


async def test_a_write_is_one_line_from_arrival_to_response(users: RunningGateway) -> None:
    (line,) = await lines_of(
        users, "PATCH", "/users/7", json=ADA, headers={"traceparent": TRACEPARENT, "Idempotency-Key": "k"}
    )
    assert (line["event"], line["log_level"]) == ("request", "info")
    assert line["service"] == "users"
    assert (line["http.request.method"], line["http.route"]) == ("PATCH", "/users/{id}")
    assert line["http.response.status_code"] == 200
    assert line["personal"] == {"url.path": "/users/7", "client.address": "127.0.0.1"}
    assert (line["trace_id"], line["span_id"], line["sequence"]) == (TRACE_ID, SPAN_ID, 41)
    assert line["command_id"] == users.writes.last.command_id
    assert list(line["stages"]) == ["validate", "publish", "apply", "reply"]
    assert line["http.response.body.size"] > 0
    # The last stage ends behind the duration: on a busy machine later than it should.
    assert 0 < sum(line["stages"].values()) <= line["duration_ms"] + 100
    assert not {"error", "error.type"} & set(line)


async def test_a_read_has_no_stages_and_no_command(users: RunningGateway) -> None:
    (line,) = await lines_of(users, "GET", "/users/7")
    assert (line["stages"], line["command_id"], line["sequence"]) == ({}, None, None)


async def test_a_refused_write_says_why(users: RunningGateway) -> None:
    users.writes.answer = refused("rejected", "email_taken")
    (line,) = await lines_of(users, "POST", "/users", json=ADA)
    assert (line["http.response.status_code"], line["error.type"]) == (409, "email_taken")
    # Its text may repeat what was sent.
    assert "error" not in line
    assert line["personal"]["error"] == "CommandRejected: because of email_taken"


async def test_a_pending_write_has_its_command(users: RunningGateway) -> None:
    users.writes.error = lambda message: CommandPending(message.command_id or "")
    (line,) = await lines_of(users, "POST", "/users", json=ADA)
    assert (line["http.response.status_code"], line["command_id"]) == (202, users.writes.last.command_id)


async def test_an_unmatched_path_has_no_route_of_its_own(users: RunningGateway) -> None:
    (line,) = await lines_of(users, "GET", "/wp-admin")
    assert (line["http.response.status_code"], line["http.route"]) == (404, "unmatched")


async def test_a_defect_is_logged_with_its_traceback(users: RunningGateway) -> None:
    users.rows.error = ZeroDivisionError("seven")
    defect, line = await lines_of(users, "GET", "/users/7", headers={"traceparent": TRACEPARENT})
    assert (defect["event"], defect["log_level"], defect["exc_info"]) == ("internal_error", "error", True)
    assert (line["http.response.status_code"], line["trace_id"]) == (500, TRACE_ID)
    assert (line["error.type"], line["error"]) == ("ZeroDivisionError", "ZeroDivisionError: seven")


async def test_polls_are_told_when_their_status_changes(users: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.http.request_log._last_status", {})
    with capture_logs() as lines:
        for _ in range(3):
            await users.call("GET", "/healthz")
        await users.call("POST", "/healthz")
        async with asyncio.timeout(5):
            while not any(line.get("http.response.status_code") == 405 for line in lines):
                await users.call("GET", "/metrics")
    told = [
        (line["http.request.method"], line["log_level"]) for line in lines if line["personal"]["url.path"] == "/healthz"
    ]
    assert told == [("GET", "info"), ("GET", "debug"), ("GET", "debug"), ("POST", "info")]


def test_another_status_than_the_last_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.http.request_log._last_status", {})
    statuses = [200, 200, 503, 503, 200]
    assert [_is_told("users", "/readyz", "GET", each) for each in statuses] == [True, False, True, False, True]
    assert _is_told("items", "/readyz", "GET", 200), "each service has its own"
