"""Bodies of several commands that are refused: each names the element and the field at fault; none issues anything."""

import json
from typing import Any
from uuid import uuid4

import pytest

from coordinator.runtime.settings import GatewaySettings
from coordinator.service.ids import system_command_id
from tests.unit.gateways.conftest import RunningGateway, Start
from tests.unit.gateways.gateway_commands import CREATE, CREDIT, IDS, NDJSON, post

FULL = {"name": "A", "email": "a@b"}
SYSTEM_ID = system_command_id("a", "b")
"""As that of a step of somebody's purchase, which a client might take before it."""


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        (b"", 400, "missing_body", "body"),
        (b"[", 400, "malformed_json", "body"),
        (b"\xff", 400, "malformed_json", "body"),
        (b"[" * 100_000, 400, "malformed_json", "body"),
        (b'[{"type": "users.credit", "args": {"id": 7, "amount": 5}},]', 400, "malformed_json", "body"),
        (CREDIT, 422, "malformed_commands", "body"),
        (None, 422, "malformed_commands", "body"),
        ("text", 422, "malformed_commands", "body"),
        ([], 422, "malformed_commands", "body"),
        ([CREDIT, 1], 422, "malformed_command", "[1]"),
        ([CREDIT, [CREDIT]], 422, "malformed_command", "[1]"),
        ([None], 422, "malformed_command", "[0]"),
        ([CREDIT, CREDIT | {"idd": IDS[0]}], 422, "malformed_command", "[1].idd"),
        ([CREDIT | {"publisher": "p", "publisher_seq": 1}], 422, "malformed_command", "[0].publisher"),
        ([CREDIT, {"type": "users.credit"}], 422, "malformed_command", "[1].args"),
        ([CREDIT, {"args": {}}], 422, "malformed_command", "[1].type"),
        ([CREDIT | {"type": 5}], 422, "malformed_command", "[0].type"),
        ([CREDIT | {"id": 5}], 422, "malformed_command", "[0].id"),
        ([CREDIT | {"deadline": -1}], 422, "malformed_command", "[0].deadline"),
        ([CREDIT | {"deadline": "2030-01-01"}], 422, "malformed_command", "[0].deadline"),
        ([CREDIT | {"expected_version": 2**53}], 422, "malformed_command", "[0].expected_version"),
        ([CREDIT | {"expected_version": True}], 422, "malformed_command", "[0].expected_version"),
        ([CREDIT, CREDIT | {"type": "users.promote"}], 422, "unknown_command_type", "[1].type"),
        ([CREDIT | {"type": ""}], 422, "unknown_command_type", "[0].type"),
        ([CREDIT | {"type": "items.create"}], 422, "unknown_command_type", "[0].type"),
        ([CREDIT | {"type": "lane.marker", "args": {}}], 422, "unknown_command_type", "[0].type"),
        ([CREDIT, CREDIT | {"id": "seven"}], 422, "invalid_command_id", "[1].id"),
        ([CREDIT | {"id": "00000000-0000-0000-0000-000000000000"}], 422, "invalid_command_id", "[0].id"),
        ([CREDIT | {"id": "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF"}], 422, "invalid_command_id", "[0].id"),
        ([CREDIT | {"id": ""}], 422, "invalid_command_id", "[0].id"),
        ([CREDIT, CREDIT | {"id": SYSTEM_ID}], 422, "reserved_command_id", "[1].id"),
        ([CREDIT | {"id": SYSTEM_ID.upper()}], 422, "reserved_command_id", "[0].id"),
        ([CREDIT | {"id": IDS[0] + "\n"}], 422, "invalid_command_id", "[0].id"),
        ([CREDIT, CREDIT | {"args": None}], 422, "invalid_arguments", "[1].args"),
        ([CREDIT | {"args": {"id": 7}}], 422, "invalid_arguments", "[0].args.amount"),
        ([CREDIT | {"args": {"id": 7, "amount": "5"}}], 422, "invalid_arguments", "[0].args.amount"),
        ([CREDIT | {"args": {"id": 7, "amount": 5, "to": 8}}], 422, "invalid_arguments", "[0].args.to"),
        ([CREATE | {"args": FULL | {"name": "\0"}}], 422, "invalid_arguments", "[0].args.name"),
        (b'[{"type": "users.delete", "args": {"\xff": 7}}]', 400, "malformed_json", "[0].args"),
        (b'[{"type": "users.delete", "args": {"id": 1e999}}]', 422, "invalid_arguments", "[0].args.id"),
        (b'[{"type": "users.create", "args": {"name": "\\ud800", "email": "a@b"}}]', 400, "malformed_json", "body"),
    ],
)
async def test_a_malformed_body_names_what_is_at_fault_and_issues_nothing(
    users: RunningGateway, body: Any, status: int, code: str, field: str
) -> None:
    response, problem = await post(users, body)
    assert response.content_type == "application/problem+json"
    assert (response.status, problem["code"], problem.get("field")) == (status, code, field)
    assert field == "body" or f"command {field[1]} " in problem["detail"]
    assert users.writes.issued == []


async def test_an_unknown_type_is_answered_with_those_there_are(payments: RunningGateway) -> None:
    _, problem = await post(payments, [CREDIT])
    assert "'users.credit'" in problem["detail"]
    assert problem["detail"].endswith("there are: payments.open, payments.capture, payments.reverse, payments.refund")


@pytest.mark.parametrize("body", [b"%s\n\n  \r\n%s", b"\n%s\r\n%s\r\n", b"%s\n%s"])
async def test_blank_lines_and_the_ends_of_lines_do_not_matter(users: RunningGateway, body: bytes) -> None:
    response, outcomes = await post(users, body % ((json.dumps(CREDIT).encode(),) * 2), NDJSON)
    assert (response.status, len(outcomes)) == (200, 2)


@pytest.mark.parametrize(
    ("lines", "status", "code", "field"),
    [
        (b"%s\n\n{\n%s", 400, "malformed_json", "[1]"),
        (b"%s\n[%s]", 422, "malformed_command", "[1]"),
        (b"%s %s", 400, "malformed_json", "[0]"),
        (b"%s,\n%s", 400, "malformed_json", "[0]"),
        (b"%s\n\xff\n%s", 400, "malformed_json", "[1]"),
        (b"%s\n" + b"[" * 100_000 + b"%s", 422, "malformed_command", "[1]"),
    ],
)
async def test_a_bad_line_is_named(users: RunningGateway, lines: bytes, status: int, code: str, field: str) -> None:
    response, problem = await post(users, lines % ((json.dumps(CREDIT).encode(),) * 2), NDJSON)
    assert (response.status, problem["code"], problem["field"]) == (status, code, field)
    assert users.writes.issued == []


async def test_a_body_of_blank_lines_has_no_command(users: RunningGateway) -> None:
    response, problem = await post(users, b"\n \r\n", NDJSON)
    assert (response.status, problem["code"], problem["field"]) == (422, "malformed_commands", "body")


@pytest.mark.parametrize("content_type", ["application/json", NDJSON])
async def test_too_many_commands_are_413_and_told_what_to_do(start: Start, content_type: str) -> None:
    users = await start("users", GatewaySettings(commands_max=3))
    assert (await post(users, [CREDIT] * 3, content_type))[0].status == 200
    users.writes.issued.clear()
    response, problem = await post(users, [CREDIT] * 4, content_type)
    assert (response.status, problem["code"], problem["field"]) == (413, "too_many_commands", "body")
    assert all(part in problem["detail"] for part in ("4 commands", "GATEWAY_COMMANDS_MAX", "several requests"))
    assert users.writes.issued == []


async def test_a_body_that_is_too_large_is_told_what_to_do(start: Start) -> None:
    users = await start("users", GatewaySettings(body_bytes_max=400))

    async def pieces() -> Any:
        for _ in range(5):
            yield b" " * 100

    for body in ([CREDIT] * 10, pieces()):
        data = body if not isinstance(body, list) else json.dumps(body).encode()
        response, problem = await users.call(
            "POST", "/commands", data=data, headers={"Content-Type": "application/json"}
        )
        assert (response.status, problem["code"]) == (413, "body_too_large")
        assert all(part in problem["detail"] for part in ("400 bytes", "GATEWAY_BODY_BYTES_MAX", "several requests"))
    assert users.writes.issued == []


async def test_a_thousand_commands_of_a_usual_size_fit_in_a_body(users: RunningGateway) -> None:
    args = {"name": "A name of forty characters, more or less", "email": "of.forty.characters.too@mail.example.org"}
    response, outcomes = await post(users, [CREATE | {"id": str(uuid4()), "args": args} for _ in range(1000)])
    assert (response.status, len(outcomes)) == (200, 1000)


@pytest.mark.parametrize("content_type", ["text/plain", "", "application/merge-patch+json", "application/ndjson"])
async def test_another_content_type_is_415(users: RunningGateway, content_type: str) -> None:
    response, problem = await post(users, json.dumps([CREDIT]).encode(), content_type)
    assert (response.status, problem["code"]) == (415, "unsupported_content_type")
    assert all(known in problem["detail"] for known in ("application/json", NDJSON))
    assert users.writes.issued == []


@pytest.mark.parametrize(
    ("headers", "field"), [({"If_Match": '"3"'}, "If-Match"), ({"Idempotency_Key": "a b"}, "Idempotency-Key")]
)
async def test_a_header_that_would_mean_nothing_is_refused(users: RunningGateway, headers: Any, field: str) -> None:
    response, problem = await post(users, [CREDIT], **headers)
    assert (response.status, problem["code"], problem["field"]) == (400, "invalid_header", field)
    assert users.writes.issued == []


async def test_a_query_is_refused_and_so_is_another_method(users: RunningGateway) -> None:
    response, problem = await users.call("POST", "/commands?dry_run=1", json=[CREDIT])
    assert (response.status, problem["field"]) == (400, "dry_run")
    response, _ = await users.call("GET", "/commands")
    assert (response.status, response.headers["Allow"]) == (405, "POST")
    assert users.writes.issued == []
