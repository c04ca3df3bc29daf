"""Several commands in one request: each has its own id and its own outcome."""

import asyncio
import json
from typing import Any
from uuid import UUID, uuid4

import pytest
from structlog.testing import capture_logs

from coordinator.http.slices import TURN_COMMANDS
from coordinator.protocol.fingerprints import UNKEYED
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.settings import GatewaySettings
from coordinator.service.errors import BrokerUnavailable, CommandPending, OutcomeUnknown, Overloaded
from coordinator.service.ids import command_id_for
from coordinator.service.outcome import Outcome
from tests.unit.gateways.conftest import RunningGateway, Start
from tests.unit.gateways.gateway_commands import CREATE, CREDIT, DELETE, IDS, MIXED, NDJSON, post
from tests.unit.gateways.gateway_fakes import applied, refused


def issued(gateway: RunningGateway) -> list[CommandMessage]:
    return [message for _, message, _ in gateway.writes.issued]


@pytest.mark.parametrize("content_type", ["application/json", NDJSON, "Application/JSON; charset=utf-8"])
async def test_each_command_has_its_outcome_in_the_order_and_form_of_the_request(
    users: RunningGateway, content_type: str
) -> None:
    def answer(message: CommandMessage) -> Outcome:
        return (refused("rejected", "user_not_found") if message.type == "users.transfer" else applied)(message)

    users.writes.answer = answer
    body = [each | {"id": command_id} for each, command_id in zip(MIXED, IDS, strict=True)]
    if "charset" in content_type:
        response, outcomes = await post(users, json.dumps(body).encode(), content_type)
    else:
        response, outcomes = await post(users, body, content_type)
    assert (response.status, response.content_type) == (200, content_type.lower().partition(";")[0])
    assert [outcome["command_id"] for outcome in outcomes] == IDS
    assert [outcome["type"] for outcome in outcomes] == [each["type"] for each in MIXED]
    assert [outcome["status"] for outcome in outcomes] == ["applied", "applied", "rejected", "applied"]
    assert outcomes[1] == {
        "command_id": IDS[1],
        "type": "users.credit",
        "status": "applied",
        "sequence": 41,
        "result": (await users.call("GET", "/users/7"))[1],
        "error": None,
        "replayed": False,
    }
    assert outcomes[2]["error"] == {"code": "user_not_found", "message": "because of user_not_found"}
    assert outcomes[3]["result"] is None
    # They belong to one command, and here are several.
    assert not {"Command-Id", "Command-Sequence", "Location"} & set(response.headers)


async def test_a_replayed_outcome_says_so(users: RunningGateway) -> None:
    users.writes.answer = lambda message: applied(message, replayed=message.type == "users.credit")
    _, outcomes = await post(users, [CREATE, CREDIT])
    assert [outcome["replayed"] for outcome in outcomes] == [False, True]


async def test_commands_come_to_the_writes_in_order_and_many_in_one_turn_of_the_loop(users: RunningGateway) -> None:
    users.writes.gate.clear()
    ids = [str(uuid4()) for _ in range(300)]
    request = asyncio.create_task(post(users, [CREDIT | {"id": command_id} for command_id in ids]))
    async with asyncio.timeout(5):
        await users.writes.entered.wait()
    # This test goes on in the turn after the one in which the first was issued.
    in_one_turn = len(users.writes.issued)
    users.writes.gate.set()
    _, outcomes = await request
    assert in_one_turn == TURN_COMMANDS
    assert [message.command_id for message in issued(users)] == ids
    assert [outcome["command_id"] for outcome in outcomes] == ids


async def test_the_answer_has_the_order_of_the_request_and_not_that_of_the_outcomes(
    users: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits_s = iter([0.03, 0.02, 0.01, 0.0])

    async def issue(lane: str, message: CommandMessage, wait_s: float | None) -> Outcome:
        await asyncio.sleep(next(waits_s))
        return applied(message)

    monkeypatch.setattr(users.writes, "issue", issue)
    _, outcomes = await post(users, [each | {"id": IDS[at]} for at, each in enumerate(MIXED)])
    assert [outcome["command_id"] for outcome in outcomes] == IDS


@pytest.mark.parametrize(
    ("service", "command"),
    [
        ("users", CREATE),
        ("items", {"type": "items.reserve", "args": {"id": 5, "quantity": 2}}),
        ("payments", {"type": "payments.open", "args": {"user_id": 7, "amount": 100, "currency": "EUR"}}),
    ],
)
async def test_every_gateway_takes_the_commands_of_its_lane(start: Start, service: str, command: Any) -> None:
    gateway = await start(service)
    response, [outcome] = await post(gateway, [command])
    assert (response.status, outcome["status"]) == (200, "applied")
    [(lane, message, _)] = gateway.writes.issued
    assert (lane, message.type, json.loads(message.arguments)) == (service, command["type"], command["args"])


async def test_a_command_carries_what_it_was_given(users: RunningGateway) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    full = CREDIT | {"id": IDS[0].upper(), "deadline": 1_900_000_000_000, "expected_version": 3}
    empty = CREDIT | {"id": None, "deadline": None, "expected_version": None}
    await post(users, [full, empty], traceparent=f"00-{trace_id}-00f067aa0ba902b7-01")
    first, second = issued(users)
    assert (first.command_id, first.deadline_ms, first.expected_version) == (IDS[0], 1_900_000_000_000, 3)
    assert (second.deadline_ms, second.expected_version) == (None, None)
    assert (first.traceparent or "").startswith(f"00-{trace_id}-")


async def test_a_command_is_the_same_one_alone_or_among_others(users: RunningGateway) -> None:
    body = b'[{"type":"users.credit", "args": { "amount": 5, "id":7 }}]'
    await post(users, body)
    await users.call("POST", "/users/7/credit", json={"amount": 5})
    many, one = issued(users)
    assert many.arguments == one.arguments
    assert UNKEYED.of(many) == UNKEYED.of(one)


async def test_without_an_id_or_a_key_every_command_is_a_new_one(users: RunningGateway) -> None:
    _, outcomes = await post(users, [CREDIT, CREDIT | {"id": IDS[0]}, CREDIT])
    ids = [message.command_id for message in issued(users)]
    assert [outcome["command_id"] for outcome in outcomes] == ids
    assert ids[1] == IDS[0]
    assert len(set(ids)) == 3
    assert [UUID(ids[0]).version, UUID(ids[2]).version] == [7, 7]


async def test_a_key_stands_for_an_id_of_each_position_that_has_none(users: RunningGateway) -> None:
    body = [CREDIT, CREDIT | {"id": IDS[0]}, CREDIT]
    for _ in range(2):
        await post(users, body, Idempotency_Key="import-1")
    await post(users, body, Idempotency_Key="import-2")
    await users.call("POST", "/users", json=CREATE["args"], headers={"Idempotency-Key": "import-1"})
    ids = [message.command_id for message in issued(users)]
    assert ids[:3] == ids[3:6]
    assert ids[1] == ids[7] == IDS[0]
    assert ids[0] == command_id_for("users", "import-1\n0")
    assert len({ids[0], ids[2], ids[6], ids[8], ids[9]}) == 5


@pytest.mark.parametrize(
    ("preference", "wait_s", "preference_applied"),
    [("", 10.0, None), ("wait=3", 3.0, "wait=3"), ("wait=100", 10.0, None), ("respond-async", 0.0, "respond-async")],
)
async def test_a_command_that_is_not_settled_in_time_is_pending_and_the_others_are_not(
    users: RunningGateway, preference: str, wait_s: float, preference_applied: str | None
) -> None:
    def only_creates_are_settled(message: CommandMessage) -> Outcome:
        if message.type != "users.create":
            raise CommandPending(message.command_id or "")
        return applied(message)

    users.writes.answer = only_creates_are_settled
    response, outcomes = await post(users, [CREATE, CREDIT | {"id": IDS[0]}], Prefer=preference)
    assert response.status == 200
    assert outcomes[0]["status"] == "applied"
    assert outcomes[1] == {
        "command_id": IDS[0],
        "type": "users.credit",
        "status": "pending",
        "location": f"/commands/{IDS[0]}",
    }
    assert response.headers.get("Preference-Applied") == preference_applied
    assert [wait for _, _, wait in users.writes.issued] == [wait_s, wait_s]


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (
            BrokerUnavailable("nothing answers at secret-host:5672"),
            "broker_unavailable",
            "the command could not be handed over to its lane, and is not applied",
        ),
        (Overloaded("enough"), "overloaded", "enough"),
    ],
)
async def test_a_command_that_is_not_handed_over_says_so_among_others(
    users: RunningGateway, error: Exception, code: str, text: str
) -> None:
    def only_creates_are_taken(message: CommandMessage) -> Outcome:
        if message.type != "users.create":
            raise error
        return applied(message)

    users.writes.answer = only_creates_are_taken
    response, outcomes = await post(users, [CREDIT | {"id": IDS[0]}, CREATE], NDJSON)
    assert response.status == 200
    assert outcomes[0] == {
        "command_id": IDS[0],
        "type": "users.credit",
        "status": "unavailable",
        "error": {"code": code, "message": text},
    }
    assert outcomes[1]["status"] == "applied"


@pytest.mark.parametrize("content_type", ["application/json", NDJSON])
async def test_when_none_is_handed_over_it_is_503_with_the_ids_to_repeat(start: Start, content_type: str) -> None:
    users = await start("users", GatewaySettings(retry_after_s=3))
    users.writes.error = lambda _: BrokerUnavailable("nothing answers at secret-host:5672")
    response, problem = await post(users, [CREDIT, CREDIT], content_type)
    assert (response.status, response.headers["Retry-After"]) == (503, "3")
    assert (response.content_type, problem["code"]) == ("application/problem+json", "broker_unavailable")
    assert "could not be handed over" in problem["detail"]
    assert "secret-host" not in problem["detail"]
    assert [(each["command_id"], each["status"]) for each in problem["outcomes"]] == [
        (message.command_id, "unavailable") for message in issued(users)
    ]


async def test_pending_alone_is_not_unavailable(users: RunningGateway) -> None:
    users.writes.error = lambda message: CommandPending(message.command_id or "")
    response, outcomes = await post(users, [CREDIT, CREDIT])
    assert (response.status, [each["status"] for each in outcomes]) == (200, ["pending", "pending"])


async def test_a_defect_of_one_command_hides_no_outcome_of_the_others(
    users: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled: list[str] = []

    async def issue(lane: str, message: CommandMessage, wait_s: float | None) -> Outcome:
        if message.type == "users.create":
            raise ZeroDivisionError
        await asyncio.sleep(0.02)
        settled.append(message.type or "")
        return applied(message)

    monkeypatch.setattr(users.writes, "issue", issue)
    response, outcomes = await post(users, [CREATE, CREDIT])
    assert (response.status, settled) == (200, ["users.credit"])
    assert [(each["status"], (each["error"] or {}).get("code")) for each in outcomes] == [
        ("unavailable", "internal_error"),
        ("applied", None),
    ]
    response, problem = await post(users, [CREATE])
    assert (response.status, problem["code"]) == (503, "internal_error")
    assert "Retry-After" not in response.headers


async def test_of_commands_that_may_be_applied_none_is_said_to_be_nothing(users: RunningGateway) -> None:
    errors = iter([BrokerUnavailable("away"), OutcomeUnknown("no confirm")] * 2)
    users.writes.error = lambda _: next(errors)
    response, problem = await post(users, [CREATE, CREDIT])
    assert (response.status, problem["code"]) == (503, "outcome_unknown")
    assert "Retry-After" not in response.headers
    assert [each["error"]["code"] for each in problem["outcomes"]] == ["broker_unavailable", "outcome_unknown"]
    response, _ = await post(users, [CREATE, CREDIT], Idempotency_Key="k")
    assert (response.status, response.headers["Retry-After"]) == (503, "1")


async def test_a_request_of_several_commands_is_one_line_and_counted(users: RunningGateway) -> None:
    async def metrics() -> str:
        return str((await users.call("GET", "/metrics"))[1].decode())

    def counted(text: str, status: str) -> float:
        name = f'coordinator_gateway_commands_total{{service="users",status="{status}"}} '
        return sum(float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name))

    def answer(message: CommandMessage) -> Outcome:
        return (refused("rejected", "user_not_found") if message.type == "users.delete" else applied)(message)

    before = await metrics()
    users.writes.answer = answer
    with capture_logs() as lines:
        await post(users, [CREATE, DELETE, CREDIT])
        # The line is written after the response: that of another request comes after it.
        after = await metrics()
    [line] = [line for line in lines if line.get("http.route") == "/commands"]
    assert (line["event"], line["http.route"], line["http.response.status_code"], line["log_level"]) == (
        "request",
        "/commands",
        200,
        "info",
    )
    assert (line["commands"], line["statuses"]) == (3, {"applied": 2, "rejected": 1})
    assert (line["command_id"], line["sequence"]) == (None, None)
    assert list(line["stages"]) == ["validate", "publish", "apply", "reply"]
    assert all(spent >= 0 for spent in line["stages"].values())
    assert counted(after, "applied") - counted(before, "applied") == 2
    assert counted(after, "rejected") - counted(before, "rejected") == 1


async def test_the_stages_are_those_of_the_slowest_command(users: RunningGateway) -> None:
    with capture_logs() as lines:
        users.writes.gate.clear()
        request = asyncio.create_task(post(users, [CREDIT] * 3))
        async with asyncio.timeout(5):
            await users.writes.entered.wait()
        await asyncio.sleep(0.05)
        users.writes.gate.set()
        await request
        await users.call("GET", "/healthz")
    [line] = [line for line in lines if line.get("http.route") == "/commands"]
    assert line["stages"]["publish"] < 50 <= line["stages"]["apply"] + line["stages"]["publish"]
    assert sum(line["stages"].values()) <= line["duration_ms"] + 1
