"""Gateways of two releases: a client that says which version its arguments have is answered alike by both."""

import json
from typing import Any

import pytest
from structlog.testing import capture_logs

from coordinator.http import gateway_of
from coordinator.protocol.fingerprints import UNKEYED
from coordinator.protocol.wire import CommandMessage
from coordinator.service.service import Service
from tests.support.releases import Note, new, old
from tests.unit.gateways.conftest import RunningGateway, Start
from tests.unit.gateways.gateway_fakes import RESULTS

PATH = "/notes/commands/add"
SPACED = b'{ "text" : "a" }'


@pytest.fixture(autouse=True)
def result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RESULTS, "notes.add", Note(id=1, title="a"))


async def sent_through(start: Start, service: Service, body: bytes, **headers: str) -> CommandMessage:
    gateway = await start(gateway_of(service))
    response, answer = await post(gateway, PATH, body, **headers)
    assert response.status == 200, answer
    return gateway.writes.last


async def post(gateway: RunningGateway, path: str, body: bytes, **headers: str) -> tuple[Any, Any]:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return await gateway.call("POST", path, data=body, headers={"Content-Type": "application/json"} | given)


async def test_a_gateway_publishes_the_version_that_it_knows(start: Start) -> None:
    message = await sent_through(start, new, b'{"title": "a"}')
    assert (message.command_version, message.arguments) == (2, b'{"title":"a","priority":0}')
    message = await sent_through(start, old, SPACED)
    assert (message.command_version, message.arguments) == (None, b'{"text":"a","is_urgent":false}')


async def test_a_client_that_says_its_version_repeats_it_through_a_newer_gateway(start: Start) -> None:
    headers = {"Command_Version": "1", "Idempotency_Key": "order-1"}
    first = await sent_through(start, old, SPACED, **headers)
    again = await sent_through(start, new, SPACED, **headers)
    assert (first.command_id, UNKEYED.of(first)) == (again.command_id, UNKEYED.of(again))
    assert first.command_version is again.command_version is None, "the first goes without saying"
    assert json.loads(again.arguments) == {"text": "a"}, "as it was sent, without what an upgrade or a default adds"
    third = await sent_through(start, new, b'{"title": "a"}', Command_Version="2")
    assert (third.command_version, json.loads(third.arguments)) == (2, {"title": "a"})


async def test_older_arguments_that_do_not_fit_are_refused_before_anything_is_issued(start: Start) -> None:
    gateway = await start(gateway_of(new))
    for body, status, code in (
        (b'{"title": "a"}', 422, "upgrade_failed"),
        (b'{"text": 7}', 422, "invalid_arguments"),
        (b'{"text": "a", "text": "b"}', 400, "malformed_json"),
    ):
        response, problem = await post(gateway, PATH, body, Command_Version="1")
        assert (response.status, problem["code"]) == (status, code), body
    assert gateway.writes.issued == []


async def test_a_client_of_before_that_says_no_version_is_told_which_are_taken(start: Start) -> None:
    gateway = await start(gateway_of(new))
    response, problem = await post(gateway, PATH, SPACED)
    assert (response.status, problem["code"], problem["field"]) == (422, "invalid_arguments", "text")
    taken = "of notes.add, since no `{}` is given; versions 1 to 2 are taken here"
    assert taken.format("Command-Version") in problem["detail"]
    commands = [{"type": "notes.add", "args": {"text": "a"}}]
    response, problem = await gateway.call("POST", "/commands", json=commands)
    assert (response.status, problem["field"]) == (422, "[0].args.text")
    assert "(as version 2 " + taken.format("command_version") in problem["detail"]
    gateway = await start(gateway_of(old))
    response, problem = await post(gateway, PATH, b'{"title": "a"}')
    assert (response.status, "version" in problem["detail"]) == (422, False), "it has only one"


async def test_what_an_upgrade_raises_is_in_the_log_and_not_in_the_answer(
    start: Start,
) -> None:
    """Its text may hold anything: here it would be the name of a key that is missing."""
    gateway = await start(gateway_of(new))
    command = {"type": "notes.add", "args": {"title": "a"}, "command_version": 1}
    with capture_logs() as lines:
        answers = [
            await post(gateway, PATH, b'{"title": "a"}', Command_Version="1"),
            await gateway.call("POST", "/commands", json=[command]),
        ]
    said = [line["error"] for line in lines if "error" in line]
    for (response, problem), field in zip(answers, (None, "[0].args"), strict=True):
        assert (response.status, problem["code"], problem.get("field")) == (422, "upgrade_failed", field)
        assert "KeyError" not in json.dumps(problem)
        assert problem["detail"].endswith("operators find the reason in the log, under this `trace_id`")
        assert len(problem["trace_id"]) == 32
    assert [text.partition(": ")[2] for text in said if "KeyError: 'text'" in text] == [
        "the upgrade of notes.add from version 1 raises KeyError: 'text'",
        "command 0 (the first is 0): the upgrade of notes.add from version 1 raises KeyError: 'text'",
    ]


async def test_a_gateway_refuses_a_version_that_it_does_not_know(start: Start) -> None:
    gateway = await start(gateway_of(old))
    response, problem = await post(gateway, PATH, b'{"title": "a"}', Command_Version="2")
    assert (response.status, problem["code"], problem["field"]) == (400, "unknown_command_version", "Command-Version")
    assert problem["detail"] == "version 2 of notes.add is not known here: version 1 is"
    command = {"type": "notes.add", "args": {"title": "a"}, "command_version": 2}
    response, problem = await gateway.call("POST", "/commands", json=[command])
    assert (response.status, problem["code"], problem["field"]) == (
        422,
        "unknown_command_version",
        "[0].command_version",
    )
    assert gateway.writes.issued == []


@pytest.mark.parametrize("value", ["0", "01", "-1", "1.0", "", "x", "9007199254740992", "1, 2", "٢"])
async def test_a_header_that_is_no_version_is_refused(start: Start, value: str) -> None:
    gateway = await start(gateway_of(new))
    response, problem = await post(gateway, PATH, b'{"title": "a"}', Command_Version=value)
    assert (response.status, problem["code"], problem["field"]) == (400, "invalid_header", "Command-Version")


async def test_commands_of_one_body_have_their_own_versions(start: Start) -> None:
    gateway = await start(gateway_of(new))
    commands = [
        {"type": "notes.add", "args": {"text": "a"}, "command_version": 1},
        {"type": "notes.add", "args": {"title": "b"}, "command_version": 2},
        {"type": "notes.add", "args": {"title": "c"}},
    ]
    response, _ = await gateway.call("POST", "/commands", json=commands)
    assert response.status == 200
    messages = [message for _, message, _ in gateway.writes.issued]
    assert [(message.command_version, json.loads(message.arguments)) for message in messages] == [
        (None, {"text": "a"}),
        (2, {"title": "b"}),
        (2, {"title": "c", "priority": 0}),
    ]
    response, problem = await gateway.call("POST", "/commands", json=commands, headers={"Command-Version": "1"})
    assert (response.status, problem["code"], problem["field"]) == (400, "invalid_header", "Command-Version")
