"""Requests that wait: however many there are, others are served."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any, cast

import msgspec
import pytest

from coordinator.client.recency import NeededRecency
from coordinator.http import middleware
from coordinator.http.waiting_requests import WAITING_REQUESTS, WaitingRequests
from coordinator.runtime.settings import GatewaySettings
from coordinator.service.errors import Overloaded
from gateways.purchases import PURCHASES
from tests.unit.gateways.conftest import RunningGateway, Start
from tests.unit.gateways.gateway_fakes import RESULTS, FakeRows
from tests.unit.gateways.test_gateways_connections import connected, until
from tests.unit.gateways.test_gateways_handed_over import BEGUN, BUY
from tests.unit.gateways.test_gateways_limits import ByName, of

CONNECTIONS_MAX = 8
COURTESIES_MAX, OUTCOMES_MAX, CONFIRMS_MAX = 4, 6, 7
ASYNC = {"Prefer": "respond-async"}
COMMAND = "/commands/0198c0de-0000-7000-8000-000000000001"


@pytest.fixture
async def shop(start: Start, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RunningGateway]:
    """A users gateway whose purchases do not end."""
    monkeypatch.setitem(RESULTS, "users.open_purchase", BEGUN)
    running = await start("users", GatewaySettings(connections_max=CONNECTIONS_MAX))
    running.runner.app[PURCHASES]._purchases = cast(Any, FakeRows(BEGUN))
    yield running
    running.writes.gate.set()


@asynccontextmanager
async def calling(shop: RunningGateway, number: int, path: str, **options: Any) -> AsyncIterator[None]:
    """So many requests that do not end by themselves."""
    waiting = shop.runner.app[WAITING_REQUESTS]
    before = waiting.number
    calls = [asyncio.create_task(shop.call("POST", path, **options)) for _ in range(number)]
    try:
        await until(lambda: waiting.number == before + number)
        yield
    finally:
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


def waiting_for_purchases(shop: RunningGateway) -> Any:
    return calling(shop, COURTESIES_MAX, "/users/7/purchases", json=BUY, headers={"Prefer": "wait=10"})


def waiting_for_outcomes(shop: RunningGateway) -> Any:
    """The lane is suspended."""
    shop.writes.gate.clear()
    return calling(shop, OUTCOMES_MAX, "/users/7/credit", json={"amount": 1})


async def test_those_who_wait_for_purchases_keep_nobody_from_writing_or_reading(shop: RunningGateway) -> None:
    async with waiting_for_purchases(shop):
        response, body = await shop.call("POST", "/users/7/purchases", json=BUY, headers={"Prefer": "wait=10"})
        assert (response.status, response.headers["Location"]) == (202, "/purchases/3")
        assert (body["id"], body["status"]) == (3, "running")
        assert "Preference-Applied" not in response.headers
        for _ in range(3):
            response, _ = await shop.call("POST", "/users/7/credit", json={"amount": 1})
            assert response.status == 200
            response, _ = await shop.call("GET", "/users/7")
            assert response.status == 200


async def test_those_who_wait_for_outcomes_keep_nobody_from_reading(shop: RunningGateway) -> None:
    async with waiting_for_outcomes(shop):
        issued = len(shop.writes.issued)
        for path, sent in (
            ("/users/7/credit", {"amount": 1}),
            ("/commands", [{"type": "users.credit", "args": {"id": 7, "amount": 1}}]),
        ):
            response, body = await shop.call("POST", path, json=sent)
            assert (response.status, body["code"], response.headers["Retry-After"]) == (503, "overloaded", "1")
            assert "Command-Id" not in response.headers
        assert len(shop.writes.issued) == issued
        response, _ = await shop.call("GET", "/users/7")
        assert response.status == 200


async def test_those_who_do_not_wait_for_outcomes_may_be_more(shop: RunningGateway) -> None:
    async with (
        waiting_for_outcomes(shop),
        calling(shop, CONFIRMS_MAX - OUTCOMES_MAX, "/users/7/credit", json={"amount": 1}, headers=ASYNC),
    ):
        response, body = await shop.call("POST", "/users/7/credit", json={"amount": 1}, headers=ASYNC)
        assert (response.status, body["code"]) == (503, "overloaded")


async def test_a_purchase_is_not_waited_for_when_its_client_is_gone(shop: RunningGateway) -> None:
    """However many come and leave, they wait no longer than they are there."""
    body = msgspec.json.encode(BUY)
    head = b"POST /users/7/purchases HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nPrefer: wait=10\r\n"
    waiting = shop.runner.app[WAITING_REQUESTS]
    async with connected(shop.port) as client:
        client.send(head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        await until(lambda: waiting.number == 1)
    async with asyncio.timeout(5):
        await until(lambda: waiting.number == 0)


async def test_those_who_wait_to_read_keep_nobody_from_writing(shop: RunningGateway) -> None:
    waiting = shop.runner.app[WAITING_REQUESTS]
    with ExitStack() as stack:
        may_wait = [stack.enter_context(waiting.for_recent_read()) for _ in range(CONNECTIONS_MAX)]
        assert may_wait == [True] * COURTESIES_MAX + [False] * (CONNECTIONS_MAX - COURTESIES_MAX)
        response, _ = await shop.call("POST", "/users/7/credit", json={"amount": 1})
        assert response.status == 200


async def test_reads_of_strangers_leave_room_for_those_of_whom_the_gateway_knows(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms: list[NeededRecency] = []
    monkeypatch.setattr(middleware, "need_recency", rooms.append)
    gateway = await start("items", GatewaySettings(connections_max=CONNECTIONS_MAX), ByName())
    for path, headers in (("/items/1", {}), (COMMAND, of("ada")), (COMMAND, of("bob"))):
        await gateway.call("GET", path, headers={"Read-After": "items=1"} | headers)
    strangers, adas, bobs = (each._room for each in rooms)
    with ExitStack() as stack:
        for room, number in ((strangers, 2), (adas, 2), (bobs, 0)):
            may_wait = [stack.enter_context(room()) for _ in range(CONNECTIONS_MAX)]
            assert may_wait.count(True) == number


@pytest.mark.parametrize("connections_max", [1, 2, 3, 1000])
def test_there_is_room_for_one_and_each_leaves_room_for_the_next(connections_max: int) -> None:
    waiting = WaitingRequests(connections_max, 1)
    limits = (waiting._courtesies_max, waiting._outcomes_max, waiting._confirms_max)
    assert limits[0] >= 1
    assert sorted(limits) == list(limits)
    assert limits[2] <= connections_max


def test_requests_of_many_commands_leave_room_for_those_of_one() -> None:
    waiting = WaitingRequests(1000, 2000)
    with ExitStack() as stack:
        stack.enter_context(waiting.for_outcome(10.0, 1000))
        for wait_s, commands in ((10.0, 1000), (0.0, 1000), (10.0, 2)):
            with pytest.raises(Overloaded, match="1000 commands are under way"):
                stack.enter_context(waiting.for_outcome(wait_s, commands))
        for _ in range(500):
            stack.enter_context(waiting.for_outcome(10.0))
        with pytest.raises(Overloaded, match="a share of GATEWAY_IN_FLIGHT_MAX"):
            stack.enter_context(waiting.for_outcome(10.0))
        for _ in range(250):
            stack.enter_context(waiting.for_outcome(0.0))
        with pytest.raises(Overloaded):
            stack.enter_context(waiting.for_outcome(0.0))
    with waiting.for_outcome(10.0), waiting.for_outcome(10.0, 1000):
        """All that ended has left its room."""


@pytest.mark.parametrize("in_flight_max", [1, 2, 3, 1000])
def test_a_request_of_as_many_commands_as_there_may_be_is_taken(in_flight_max: int) -> None:
    waiting = WaitingRequests(1000, in_flight_max)
    with waiting.for_outcome(10.0, in_flight_max), ExitStack() as stack, pytest.raises(Overloaded):
        stack.enter_context(waiting.for_outcome(10.0))


async def test_a_request_of_many_commands_for_which_there_is_no_room_is_refused_whole(shop: RunningGateway) -> None:
    with shop.runner.app[WAITING_REQUESTS].for_outcome(10.0, 3999):
        commands = [{"type": "users.credit", "args": {"id": 7, "amount": 1}}] * 2
        response, body = await shop.call("POST", "/commands", json=commands)
        assert (response.status, body["code"]) == (503, "overloaded")
        assert "outcomes" not in body
