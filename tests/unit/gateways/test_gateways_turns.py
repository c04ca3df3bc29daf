"""Large bodies of one client are read one after the other: nobody else waits for more than one of them."""

import asyncio
import json
from contextlib import AsyncExitStack
from time import sleep

import pytest

from coordinator.access.authenticator import NotAuthentic
from coordinator.http import command_bodies, requests
from coordinator.http.authentication import AUTHENTICATION
from coordinator.http.body_turns import BodyTurns
from coordinator.http.principal_limits import PrincipalShare
from coordinator.http.request_log import in_flight_of
from coordinator.http.waiting_requests import WAITING_REQUESTS
from coordinator.runtime.settings import GatewaySettings
from coordinator.service.commands import parse
from coordinator.service.principal import Principal
from tests.unit.gateways.conftest import RunningGateway, Start
from tests.unit.gateways.test_gateways_connections import connected, until
from tests.unit.gateways.test_gateways_limits import ADA, CREDIT, ByName, Clock, clock, limited, of

__all__ = ["clock"]

BODIES = 8
LARGE = {"amount": 1, "more": "x" * 10_000}


class Steps:
    """How often something is done within one step of the loop, in which everybody who waits is served once."""

    def __init__(self) -> None:
        self.most = 0
        self._now = 0

    async def count(self) -> None:
        while True:
            self._now = 0
            await asyncio.sleep(0)

    def done(self) -> None:
        self._now += 1
        self.most = max(self.most, self._now)


def share_of(gateway: RunningGateway, principal: Principal = ADA) -> PrincipalShare:
    share = gateway.app[AUTHENTICATION].limits.share_of(principal)
    assert share is not None
    return share


def head(path: str, size_bytes: int) -> bytes:
    fields = f"Host: a\r\nAuthorization: Bearer ada\r\nContent-Type: application/json\r\nContent-Length: {size_bytes}"
    return f"POST {path} HTTP/1.1\r\n{fields}\r\n\r\n".encode()


async def end_together(gateway: RunningGateway, path: str, body: bytes, number: int = BODIES) -> list[int]:
    """The statuses of requests whose bodies lack a byte each until all are there."""
    async with asyncio.timeout(15), AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(gateway.port)) for _ in range(number)]
        for client in clients:
            client.send(head(path, len(body)) + body[:-1])
        await until(lambda: in_flight_of("users").number == number)
        for client in clients:
            client.send(body[-1:])
        return [await client.status() for client in clients]


@pytest.mark.parametrize("is_asked", [True, False], ids=["of a principal", "of nobody known"])
async def test_the_commands_of_one_request_of_a_client_are_read_at_a_time(
    start: Start, monkeypatch: pytest.MonkeyPatch, is_asked: bool
) -> None:
    """Each of them in slices: of all together others would wait for as many slices at each of their steps."""
    gateway = await (limited(start, principal_in_flight_max=1000) if is_asked else start("users"))
    steps = Steps()

    def slowly(*_: object) -> None:
        steps.done()
        sleep(0.006)

    monkeypatch.setattr(command_bodies, "check_storable", slowly)
    counting = asyncio.create_task(steps.count())
    statuses = await end_together(gateway, "/commands", json.dumps([CREDIT] * 5).encode())
    counting.cancel()
    assert (statuses, steps.most) == ([200] * BODIES, 1)


async def test_one_large_body_of_a_client_is_read_at_a_time(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = await limited(start, principal_in_flight_max=1000)
    steps = Steps()

    def counted(*given: object) -> object:
        steps.done()
        return parse(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(requests, "parse", counted)
    counting = asyncio.create_task(steps.count())
    statuses = await end_together(gateway, "/users/7/credit", json.dumps(LARGE).encode())
    counting.cancel()
    assert (statuses, steps.most) == ([422] * BODIES, 1)


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [("/commands", [CREDIT] * 30, 200), ("/users/7/credit", {"amount": 1, "more": "x" * 150_000}, 422)],
)
async def test_what_comes_while_its_client_owes_is_refused_unread(
    start: Start, clock: Clock, path: str, body: object, expected: int
) -> None:
    """All were let in when their heads came. As many are read as if they had come one after the other."""
    gateway = await limited(start, principal_rate_max=1, principal_burst_max=20)
    statuses = await end_together(gateway, path, json.dumps(body).encode(), 4)
    assert sorted(statuses) == [expected, 429, 429, 429]
    assert len(gateway.writes.issued) == (30 if expected == 200 else 0)
    # A debt is paid in time, and then it may send as much again.
    clock.now_s += 1000
    assert await end_together(gateway, path, json.dumps(body).encode(), 1) == [expected]


async def test_whose_credential_ends_while_his_body_waits_for_its_turn_is_refused(start: Start) -> None:
    class Revocable(ByName):
        is_revoked = False

        async def principal_of(self, credential: str) -> Principal:
            if self.is_revoked:
                raise NotAuthentic("it is revoked")
            return await super().principal_of(credential)

    known = Revocable()
    gateway = await start("users", GatewaySettings(), known)
    share = share_of(gateway)
    async with share.turns.one():
        call = asyncio.create_task(gateway.call("POST", "/commands", json=[CREDIT], headers=of("ada")))
        await until(lambda: share.turns.number == 2)
        known.is_revoked = True
    response, problem = await call
    assert (response.status, problem["code"], gateway.writes.issued) == (401, "unauthenticated", [])
    assert "RateLimit" not in response.headers


async def test_whoever_comes_between_two_turns_has_waited_too() -> None:
    turns, waited = BodyTurns(9), list[bool]()

    async def read(steps: int) -> None:
        async with turns.one() as has_waited:
            waited.append(has_waited)
            for _ in range(steps):
                await asyncio.sleep(0)

    async def come_between() -> None:
        # The first one's turn has ended, and the next one's has not begun.
        while turns.number > 1:  # noqa: ASYNC110  # each step of the loop counts
            await asyncio.sleep(0)
        assert waited == [False]
        await read(0)

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        for each in (read(3), read(9), come_between()):
            group.create_task(each)
    assert waited == [False, True, True]


async def test_bodies_that_wait_for_a_turn_are_limited(start: Start) -> None:
    gateway = await limited(start, principal_in_flight_max=1000, connections_max=4)
    share = share_of(gateway)
    async with share.turns.one():
        call = asyncio.create_task(gateway.call("POST", "/commands", json=[CREDIT], headers=of("ada")))
        await until(lambda: share.turns.number == 2)
        assert share.is_busy, "nobody forgets it"
        response, problem = await gateway.call("POST", "/commands", json=[CREDIT], headers=of("ada"))
        assert (response.status, problem["code"]) == (429, "too_many_requests")
        response, _ = await gateway.call("POST", "/commands", json=[CREDIT], headers=of("bob"))
        assert response.status == 200
    assert ((await call)[0].status, share.turns.number) == (200, 0)


async def test_without_limits_too_each_client_has_turns_of_its_own(start: Start) -> None:
    gateway = await limited(start, connections_max=3)
    waiting = gateway.app[WAITING_REQUESTS]
    async with waiting.turns_of(ADA).one(), asyncio.timeout(10):
        for number in range(9):
            response, _ = await gateway.call("POST", "/commands", json=[CREDIT], headers=of(f"bob{number}"))
            assert response.status == 200
        call = asyncio.create_task(gateway.call("POST", "/commands", json=[CREDIT], headers=of("ada")))
        # Ada's are not forgotten meanwhile.
        await until(lambda: waiting.turns_of(ADA).number == 2)
    assert (await call)[0].status == 200


async def test_bodies_of_nobody_known_that_wait_for_a_turn_are_limited(start: Start) -> None:
    gateway = await start("users", GatewaySettings(connections_max=1))
    async with gateway.app[WAITING_REQUESTS].turns.one():
        response, problem = await gateway.call("POST", "/commands", json=[CREDIT])
        assert (response.status, problem["code"]) == (503, "overloaded")
    assert (await gateway.call("POST", "/commands", json=[CREDIT]))[0].status == 200
