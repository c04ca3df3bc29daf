"""How a write is asked for and what became of it is told: keys, preferences, replays, failures."""

from uuid import UUID

import pytest

from coordinator.runtime.settings import GatewaySettings
from coordinator.service.errors import BrokerUnavailable, CommandPending, Overloaded
from coordinator.service.ids import command_id_for
from tests.unit.gateways.conftest import RunningGateway, Start
from tests.unit.gateways.gateway_fakes import applied, refused

ADA = {"name": "Ada", "email": "ada@example.org"}


async def test_a_key_names_the_command(users: RunningGateway) -> None:
    key = "8e03978e-40d5-43dd-bc93-6894a57f9324"
    response, _ = await users.call("POST", "/users", json=ADA, headers={"Idempotency-Key": f'"{key}"'})
    expected = command_id_for("users", key)
    assert users.writes.last.command_id == response.headers["Command-Id"] == expected != key


async def test_without_a_key_every_request_is_a_command_of_its_own(users: RunningGateway) -> None:
    first, _ = await users.call("POST", "/users", json=ADA)
    second, _ = await users.call("POST", "/users", json=ADA)
    assert UUID(first.headers["Command-Id"]).version == 7
    assert first.headers["Command-Id"] != second.headers["Command-Id"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("POST", "/users", ADA), ("PATCH", "/users/7", {"name": "Eve"}), ("DELETE", "/users/7", None)],
)
async def test_what_a_request_says_is_parsed_once(
    users: RunningGateway, monkeypatch: pytest.MonkeyPatch, method: str, path: str, body: dict[str, str] | None
) -> None:
    monkeypatch.setattr("coordinator.client.writes.validated", lambda command: pytest.fail(f"{command} is in order"))
    response, _ = await users.call(method, path, json=body)
    assert response.status in (200, 201, 204)
    assert len(users.writes.issued) == 1


async def test_a_malformed_key_issues_nothing(users: RunningGateway) -> None:
    response, body = await users.call("POST", "/users", json=ADA, headers={"Idempotency-Key": "a b"})
    assert (response.status, body["code"], body["field"]) == (400, "invalid_header", "Idempotency-Key")
    assert users.writes.issued == []


async def test_a_replayed_outcome_says_so_whatever_it_is(users: RunningGateway) -> None:
    users.writes.answer = lambda message: applied(message, replayed=True)
    created, _ = await users.call("POST", "/users", json=ADA, headers={"Idempotency-Key": "k"})
    assert (created.status, created.headers["Idempotent-Replayed"]) == (201, "true")
    users.writes.answer = refused("rejected", "email_taken", replayed=True)
    taken, _ = await users.call("POST", "/users", json=ADA, headers={"Idempotency-Key": "k"})
    assert (taken.status, taken.headers["Idempotent-Replayed"]) == (409, "true")


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        ("rejected", "idempotency_mismatch", 422),
        ("rejected", "user_not_found", 404),
        ("rejected", "version_conflict", 412),
        ("rejected", "expected_version_unsupported", 400),
        ("rejected", "insufficient_credit", 409),
        ("rejected", "a_reason_of_tomorrow", 409),
        ("expired", "deadline_expired", 504),
        ("expired", "expired", 504),
        ("failed", "invalid_arguments", 422),
        ("failed", "malformed_json", 400),
        ("failed", "unknown_command", 502),
        ("failed", "handler_crashed", 502),
    ],
)
async def test_an_outcome_that_is_not_applied_is_a_problem(
    users: RunningGateway, status: str, code: str, expected: int
) -> None:
    users.writes.answer = refused(status, code)
    response, body = await users.call("POST", "/users/7/credit", json={"amount": 1})
    assert response.status == body["status"] == expected
    assert response.content_type == "application/problem+json"
    assert ("trace_id" in body) == (expected >= 500)
    body.pop("trace_id", None)
    assert body == {
        "type": f"/problems/{code}",
        "title": code.replace("_", " ").capitalize(),
        "status": expected,
        "detail": f"because of {code}",
        "code": code,
        "instance": "/users/7/credit",
        "command_id": users.writes.last.command_id,
    }
    assert response.headers["Command-Id"] == body["command_id"]


@pytest.mark.parametrize(
    ("preference", "wait_s", "preference_applied"),
    [
        ("respond-async", 0.0, "respond-async"),
        ("respond-async, wait=3", 3.0, "respond-async, wait=3"),
        ("wait=3", 3.0, "wait=3"),
        ("wait=0", 0.0, "wait=0"),
        ("wait=100", 10.0, None),
        ("handling=lenient", 10.0, None),
    ],
)
async def test_a_preference_bounds_the_wait_and_202_tells_where_to_look(
    users: RunningGateway, preference: str, wait_s: float, preference_applied: str | None
) -> None:
    users.writes.error = lambda message: CommandPending(message.command_id or "")
    response, body = await users.call("POST", "/users", json=ADA, headers={"Prefer": preference})
    command_id = users.writes.last.command_id
    assert (response.status, body) == (202, {"command_id": command_id, "status": "pending"})
    assert response.headers["Location"] == f"/commands/{command_id}"
    assert response.headers["Command-Id"] == command_id
    assert response.headers.get("Preference-Applied") == preference_applied
    assert users.writes.last_wait_s == wait_s


@pytest.mark.parametrize(
    ("error", "code", "detail"),
    [
        (
            BrokerUnavailable("nothing answers at secret-host:5672"),
            "broker_unavailable",
            "the command could not be handed over to its lane, and is not applied",
        ),
        (Overloaded("enough"), "overloaded", "enough"),
    ],
)
async def test_a_command_not_accepted_is_503_with_retry_after(
    start: Start, error: Exception, code: str, detail: str
) -> None:
    users = await start("users", GatewaySettings(retry_after_s=3))
    users.writes.error = lambda _: error
    response, body = await users.call("POST", "/users", json=ADA)
    assert (response.status, response.headers["Retry-After"]) == (503, "3")
    assert (body["code"], body["detail"]) == (code, detail)
    assert body["command_id"] == response.headers["Command-Id"] == users.writes.last.command_id


async def test_the_callers_trace_goes_on_to_the_lane(users: RunningGateway) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    caller = f"00-{trace_id}-00f067aa0ba902b7-01"
    states = [("tracestate", "a=1,b=2"), ("tracestate", "c=3")]
    await users.call("POST", "/users", json=ADA, headers=[("traceparent", caller), *states])
    assert (users.writes.last.traceparent, users.writes.last.tracestate) == (caller, "a=1,b=2,c=3")
    element = {"type": "users.create", "args": ADA}
    await users.call("POST", "/commands", json=[element], headers={"traceparent": caller, "tracestate": "a=1"})
    assert (users.writes.last.traceparent, users.writes.last.tracestate) == (caller, "a=1")
    await users.call("POST", "/users", json=ADA, headers={"traceparent": "00-nonsense"})
    assert trace_id not in (users.writes.last.traceparent or "none")
