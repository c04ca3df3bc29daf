"""Once a command is handed over, no answer says or suggests that nothing was done."""

from typing import Any, cast

import msgspec
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from coordinator.http import requests
from coordinator.http.app import Gateway
from coordinator.http.hooks import HOOKS
from coordinator.http.requests import issue, path_command, read_command
from coordinator.protocol.wire import CommandMessage
from coordinator.registry import registry
from coordinator.runtime.settings import GatewaySettings
from coordinator.service.errors import BrokerUnavailable, DatabaseUnavailable, NotFound, OutcomeUnknown, Unavailable
from coordinator.service.ids import new_command_id
from coordinator.service.outcome import Outcome
from gateways.purchases import PURCHASES
from gateways.shown_users import USERS
from shared.users.commands import CreateUser
from shared.users.purchases.model import Purchase
from tests.unit.gateways.conftest import RunningGateway, Start
from tests.unit.gateways.gateway_fakes import NOW, RESULTS, FakeRows, applied, refused

ADA = {"name": "Ada", "email": "ada@example.org"}
BUY = {"item_id": 5, "quantity": 1, "payment_method": "pm_card_visa"}
BEGUN = Purchase(id=3, user_id=7, item_id=5, quantity=1, payment_method="pm_card_visa", created_at=NOW)

FAILURES = [
    DatabaseUnavailable("the reader's login fails"),
    NotFound("purchase_not_found", "the replica has it not yet"),
    Unavailable("away"),
    ZeroDivisionError(),
    TimeoutError(),
    msgspec.ValidationError("of another release"),
    UnicodeEncodeError("utf-8", "\ud800", 0, 1, "no"),
]


@pytest.fixture
async def shop(start: Start, monkeypatch: pytest.MonkeyPatch) -> RunningGateway:
    """A users gateway whose purchases can be read until `rows.error` is set."""
    return await opened(start, monkeypatch, wait_s=0.1)


async def opened(start: Start, monkeypatch: pytest.MonkeyPatch, wait_s: float) -> RunningGateway:
    monkeypatch.setitem(RESULTS, "users.open_purchase", BEGUN)
    running = await start("users", GatewaySettings(wait_s=wait_s))
    running.rows = FakeRows(BEGUN)
    running.app[PURCHASES]._purchases = cast(Any, running.rows)
    return running


@pytest.mark.parametrize("error", FAILURES, ids=repr)
async def test_a_purchase_that_was_opened_is_never_said_not_to_be(shop: RunningGateway, error: Exception) -> None:
    shop.rows.error = error
    response, body = await shop.call("POST", "/users/7/purchases", json=BUY, headers={"Prefer": "wait=5"})
    assert (response.status, response.headers["Command-Id"]) == (202, shop.writes.last.command_id)
    assert "Retry-After" not in response.headers
    if isinstance(error, DatabaseUnavailable | NotFound | TimeoutError):
        assert (body["id"], body["status"], response.headers["Location"]) == (3, "running", "/purchases/3")
    else:
        assert response.headers["Location"] == f"/commands/{shop.writes.last.command_id}"


async def test_a_purchase_is_found_when_the_database_answers_again(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read that fails once is no reason to stop waiting."""
    shop = await opened(start, monkeypatch, wait_s=20.0)
    ended = msgspec.structs.replace(BEGUN, status="completed")
    seen: list[Exception | Purchase] = [
        DatabaseUnavailable("away"),
        NotFound("purchase_not_found", "not yet"),
        BEGUN,
        ended,
    ]

    async def get(_: int) -> Purchase:
        next_seen = seen.pop(0)
        if isinstance(next_seen, Exception):
            raise next_seen
        return next_seen

    monkeypatch.setattr(shop.rows, "get", get)
    shop.writes.answer = lambda message: applied(message, replayed=True)
    shop.app[PURCHASES]._purchases = cast(Any, shop.rows)
    response, body = await shop.call("POST", "/users/7/purchases", json=BUY, headers={"Prefer": "wait=20"})
    assert (response.status, body["status"]) == (201, "completed")
    assert response.headers["Idempotent-Replayed"] == "true"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/users", ADA),
        ("PATCH", "/users/7", {"name": "B"}),
        ("DELETE", "/users/7", None),
        ("POST", "/users/7/credit", {"amount": 1}),
        ("POST", "/transfers", {"from": 7, "to": 8, "amount": 1}),
        ("POST", "/users/7/purchases", BUY),
    ],
)
@pytest.mark.parametrize("result", [b'{"of":"another release"}', b"[", b'"\xff"', b"[" * 5000])
async def test_a_result_that_cannot_be_read_is_of_a_command_that_is_applied(
    users: RunningGateway, method: str, path: str, body: Any, result: bytes
) -> None:
    def answer(message: CommandMessage) -> Outcome:
        return Outcome(
            command_id=message.command_id, type=message.type, status="applied", sequence=4, result=msgspec.Raw(result)
        )

    users.writes.answer = answer
    with capture_logs() as lines:
        response, told = await users.call(method, path, json=body)
    command_id = users.writes.last.command_id
    assert (response.status, told["command_id"], response.headers["Location"]) == (
        202,
        command_id,
        f"/commands/{command_id}",
    )
    assert any("OutcomeUnreadable" in str(line.get("error")) for line in lines)


@pytest.mark.parametrize("error", FAILURES, ids=repr)
async def test_whatever_a_route_does_after_its_command_it_was_applied(start: Start, error: Exception) -> None:
    async def create_and_fail(request: Any) -> Any:
        command = await read_command(request, CreateUser)
        await issue(request, request.app[USERS].create_user, command)
        raise error

    inner = registry().gateway("users")
    gateway = Gateway(name="users", routes=[web.post("/odd", create_and_fail)], attach=inner.attach)
    running = await start(gateway)
    response, body = await running.call("POST", "/odd", json=ADA)
    assert (response.status, body["command_id"]) == (202, running.writes.last.command_id)


@pytest.mark.parametrize("with_body", [True, False])
async def test_a_route_that_gives_an_argument_that_there_is_not_is_its_author_s_fault(
    start: Start, *, with_body: bool
) -> None:
    """As after a new version, in which the argument has another name: no client can help it."""

    async def create(request: Any) -> Any:
        path = {"identity": request.match_info["id"]}
        command = (
            await read_command(request, CreateUser, path) if with_body else path_command(request, CreateUser, path)
        )
        return await issue(request, request.app[USERS].create_user, command)

    inner = registry().gateway("users")
    gateway = Gateway(name="users", routes=[web.post("/odd/{id}", create)], attach=inner.attach)
    running = await start(gateway)
    with capture_logs() as lines:
        response, body = await running.call("POST", "/odd/7", json=ADA if with_body else None)
    assert (response.status, body["code"]) == (500, "internal_error")
    assert [line["exc_info"] for line in lines if line["event"] == "internal_error"] == [True]
    with pytest.raises(TypeError, match="this route gives CreateUser the argument 'identity', which it does not have"):
        requests._check_path(CreateUser, {"identity": "7"})


async def test_the_outcome_itself_is_answered_as_it_is(users: RunningGateway) -> None:
    for status, code, expected in (("rejected", "email_taken", 409), ("failed", "handler_crashed", 502)):
        users.writes.answer = refused(status, code)
        assert (await users.call("POST", "/users", json=ADA))[0].status == expected


async def test_a_hook_that_fails_after_the_outcome_changes_nothing(start: Start) -> None:
    users = await start("users")

    async def fail(*_: Any) -> None:
        raise ZeroDivisionError

    hooks = users.app[HOOKS]
    hooks.after_outcome(fail)
    hooks.on_response(fail)
    response, _ = await users.call("POST", "/users", json=ADA)
    assert response.status == 201


class TestACommandThatWasSentAndNotConfirmed:
    """It may be applied or not: the answer says so, and how to repeat it."""

    async def test_is_503_and_does_not_ask_for_a_repetition(self, users: RunningGateway) -> None:
        users.writes.error = lambda _: OutcomeUnknown("no confirm within 5 s: it may be applied yet")
        response, problem = await users.call("POST", "/users", json=ADA)
        assert (response.status, problem["code"]) == (503, "outcome_unknown")
        assert problem["command_id"] == response.headers["Command-Id"] == users.writes.last.command_id
        assert "Retry-After" not in response.headers
        assert "Command-Id" in problem["detail"]
        assert "may be applied" in problem["detail"]

    @pytest.mark.parametrize("name", ["Idempotency-Key", "Command-Id"])
    async def test_may_be_repeated_if_the_request_names_it(self, users: RunningGateway, name: str) -> None:
        users.writes.error = lambda _: OutcomeUnknown("no confirm")
        headers = {name: new_command_id()}
        response, _ = await users.call("POST", "/users", json=ADA, headers=headers)
        assert (response.status, response.headers["Retry-After"]) == (503, "1")

    async def test_is_the_same_command_when_it_is_repeated_with_its_id(self, users: RunningGateway) -> None:
        users.writes.error = lambda _: OutcomeUnknown("no confirm")
        _, problem = await users.call("POST", "/users", json=ADA)
        first = users.writes.last
        users.writes.error = None
        headers = {"Command-Id": problem["command_id"].upper()}
        response, _ = await users.call("POST", "/users", json=ADA, headers=headers)
        assert response.status == 201
        assert (users.writes.last.command_id, users.writes.last.arguments) == (first.command_id, first.arguments)

    async def test_is_another_than_one_that_was_not_sent(self, users: RunningGateway) -> None:
        users.writes.error = lambda _: BrokerUnavailable("cannot be reached")
        response, problem = await users.call("POST", "/users", json=ADA)
        assert (response.headers["Retry-After"], problem["code"]) == ("1", "broker_unavailable")


@pytest.mark.parametrize(
    "value", ["", "x", "01890a5d-ac96-774b-bcce-b302099a805", "01890a5d-ac96-874b-bcce-b302099a8057", "[]"]
)
async def test_a_command_id_that_is_none_or_the_system_s_is_refused(users: RunningGateway, value: str) -> None:
    response, body = await users.call("POST", "/users", json=ADA, headers={"Command-Id": value})
    assert (response.status, body["code"], body["field"]) == (400, "invalid_header", "Command-Id")
    assert users.writes.issued == []


async def test_a_command_has_one_name(users: RunningGateway) -> None:
    headers = {"Command-Id": new_command_id(), "Idempotency-Key": "k"}
    response, body = await users.call("POST", "/users", json=ADA, headers=headers)
    assert (response.status, body["field"]) == (400, "Command-Id")
    response, body = await users.call("POST", "/commands", json=[], headers={"Command-Id": new_command_id()})
    assert (response.status, body["field"]) == (400, "Command-Id")
