"""What one principal may ask of a gateway, and that the others do not notice one that asks for more."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from time import sleep
from typing import Any, cast

import pytest

from coordinator.http import command_bodies, principal_limits, requests, waiting_requests
from coordinator.http.authentication import AUTHENTICATION
from coordinator.http.principal_limits import PRINCIPALS_MAX, PrincipalLimits, TooManyRequests
from coordinator.http.waiting_requests import WAITING_REQUESTS
from coordinator.runtime.settings import GatewaySettings
from coordinator.service.principal import Principal
from gateways.purchases import PURCHASES
from tests.unit.gateways.conftest import RunningGateway, Start
from tests.unit.gateways.gateway_fakes import RESULTS, FakeRows
from tests.unit.gateways.test_gateways_connections import connected, until
from tests.unit.gateways.test_gateways_handed_over import BEGUN, BUY

CREDIT = {"type": "users.credit", "args": {"id": 7, "amount": 1}}
ADA = Principal(subject="ada")


class ByName:
    """An authenticator that believes whatever name a client says: `subject`, or `tenant.subject`."""

    knows_anybody = True

    def known(self, _authorization: str, /) -> Principal | None:
        return None

    async def principal_of(self, credential: str) -> Principal:
        tenant, _, subject = credential.rpartition(".")
        return Principal(subject=subject, tenant=tenant or None, scopes=frozenset({"staff"}))

    async def problem(self) -> None:
        return None

    async def start(self) -> None:
        """It has nothing to start."""

    async def close(self) -> None:
        """It has nothing to close."""


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(principal_limits, "monotonic", clock)
    return clock


def of(name: str, **others: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}"} | others


async def limited(start: Start, **limits: int) -> RunningGateway:
    settings = {"principal_rate_max": 0, "principal_in_flight_max": 0} | limits
    return await start("users", GatewaySettings(**cast(Any, settings)), ByName())


async def read(gateway: RunningGateway, name: str = "ada") -> tuple[int, dict[str, str]]:
    response, _ = await gateway.call("GET", "/users/7", headers=of(name))
    return response.status, dict(response.headers)


async def test_more_requests_than_the_rate_are_refused_and_told_how_long(start: Start, clock: Clock) -> None:
    gateway = await limited(start, principal_rate_max=2, principal_burst_max=5)
    for _ in range(5):
        assert (await read(gateway))[0] == 200
    response, problem = await gateway.call("POST", "/users/7/credit", json={"amount": 1}, headers=of("ada"))
    assert (response.status, problem["code"]) == (429, "too_many_requests")
    assert "2 requests a second" in problem["detail"]
    assert "GATEWAY_PRINCIPAL_RATE_MAX" in problem["detail"]
    assert (response.headers["Retry-After"], response.headers["RateLimit"]) == ("1", '"requests";r=0;t=1')
    assert "Command-Id" not in response.headers
    assert gateway.writes.issued == []
    clock.now_s += 1
    assert [(await read(gateway))[0] for _ in range(3)] == [200, 200, 429]


async def test_what_is_left_is_told_once_a_second_and_always_to_whoever_has_used_half(
    start: Start, clock: Clock
) -> None:
    gateway = await limited(start, principal_rate_max=2, principal_burst_max=5)
    for name in ("ada", "bob"):
        told = [(await read(gateway, name))[1] for _ in range(5)]
        assert [headers.get("RateLimit") for headers in told] == [
            None if left == 3 else f'"requests";r={left};t=1' for left in (4, 3, 2, 1, 0)
        ]
        for headers in told:
            assert headers.get("RateLimit-Policy") == ('"requests";q=5;w=3' if "RateLimit" in headers else None)
    for left in (4, None, 4):
        clock.now_s += 1000 if left else 0
        assert (await read(gateway))[1].get("RateLimit") == (left and f'"requests";r={left};t=1')


async def test_whoever_has_half_of_its_commands_under_way_is_always_told(start: Start, clock: Clock) -> None:
    gateway = await limited(start, principal_in_flight_max=8)
    gateway.writes.gate.clear()
    async with waiting_for(gateway, FIVE):
        told = [(await read(gateway))[1].get("RateLimit") for _ in range(2)]
        gateway.writes.gate.set()
    assert told == ['"in-flight";r=3'] * 2
    told = [(await read(gateway))[1].get("RateLimit") for _ in range(2)]
    assert told[1] is None


async def test_each_principal_has_a_share_of_its_own(start: Start, clock: Clock) -> None:
    gateway = await limited(start, principal_rate_max=1, principal_burst_max=1)
    for name in ("ada", "bob", "acme.ada", "other.ada"):
        assert [(await read(gateway, name))[0] for _ in range(2)] == [200, 429]


@pytest.mark.parametrize(("size_bytes", "left"), [(4095, 19), (4096, 18), (50_000, 7)])
async def test_a_large_body_pays_for_its_bytes_though_it_is_refused(
    start: Start, clock: Clock, size_bytes: int, left: int
) -> None:
    gateway = await limited(start, principal_rate_max=1, principal_burst_max=20)
    head = b'{"amount": 1, "more": "'
    body = head + b"x" * (size_bytes - len(head) - 2) + b'"}'
    json = {"Content-Type": "application/json"}
    for path in ("/users/7/credit", "/commands"):
        response, _ = await gateway.call("POST", path, data=body, headers=of(path[1:5], **json))
        assert (response.status, response.headers["RateLimit"].partition(";")[2]) == (422, f"r={left};t=1"), path


async def test_a_body_that_is_no_command_is_refused_at_its_first_wrong_value(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not made into objects, written and read once more first, which took ten times as long."""
    gateway = await limited(start)
    monkeypatch.setattr(requests, "_object", pytest.fail)
    large = {"more": [{"a": 1.5}] * 10_000}
    for method, path in (("POST", "/users"), ("POST", "/users/7/credit"), ("PATCH", "/users/7")):
        response, problem = await gateway.call(method, path, json=large, headers=of("ada"))
        assert (response.status, problem["code"], problem["field"]) == (422, "invalid_arguments", "more"), path


async def test_each_command_of_a_request_counts_and_is_paid_later(start: Start, clock: Clock) -> None:
    gateway = await limited(start, principal_rate_max=2, principal_burst_max=5)
    response, answers = await gateway.call("POST", "/commands", json=[CREDIT] * 10, headers=of("ada"))
    assert (response.status, len(answers)) == (200, 10)
    response, problem = await gateway.call("POST", "/commands", json=[CREDIT], headers=of("ada"))
    assert (response.status, problem["code"], response.headers["Retry-After"]) == (429, "too_many_requests", "3")
    assert response.headers["RateLimit"] == '"requests";r=0;t=3'
    clock.now_s += 3
    assert [(await read(gateway))[0] for _ in range(2)] == [200, 429]
    # What was read before a fault counts, though nothing is issued; what comes behind it was not read.
    clock.now_s += 1000
    for faulty, expected in (
        (0, [422, 422, 422, 422, 422, 429]),
        (1, [422] * 5 + [429]),
        (9, [422, 429]),
    ):
        clock.now_s += 1000
        for status in expected:
            body = [CREDIT] * faulty + [{}] + [CREDIT] * 9
            response, _ = await gateway.call("POST", "/commands", json=body, headers=of("ada"))
            assert response.status == status


async def test_others_are_served_while_the_commands_of_one_request_are_read(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the class of a command takes to check each of them."""
    gateway = await limited(start)
    answered: list[int] = []
    reading: list[asyncio.Task[None]] = []

    async def another() -> None:
        answered.append((await read(gateway, "bob"))[0])

    def slowly(*_: object) -> None:
        if not reading:
            reading.append(asyncio.create_task(another()))
        steps.append(len(answered))
        sleep(0.006)

    steps: list[int] = []
    monkeypatch.setattr(command_bodies, "check_storable", slowly)
    response, _ = await gateway.call("POST", "/commands", json=[CREDIT] * 200, headers=of("ada"))
    assert (response.status, answered, steps[-1]) == (200, [200], 1)


async def test_no_body_is_asked_for_or_read_that_will_be_refused(start: Start, clock: Clock) -> None:
    gateway = await limited(start, principal_rate_max=1, principal_burst_max=1)
    await read(gateway)
    head = b"POST /users HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ada\r\nContent-Type: application/json\r\n"
    for expect in (b"", b"Expect: 100-continue\r\n"):
        async with asyncio.timeout(15), connected(gateway.port) as client:
            clock.now_s += 0.001
            client.send(head + b"Content-Length: 50\r\n" + expect + b"\r\n")
            assert await client.status() == 429


async def test_one_that_goes_on_waits_for_its_next_refusal_and_holds_up_nobody(
    start: Start, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting_requests, "HELD_S", 60.0)
    gateway = await limited(start, principal_rate_max=1, principal_burst_max=1, connections_max=8)
    waiting = gateway.app[WAITING_REQUESTS]
    await read(gateway)
    assert (await read(gateway))[0] == 429
    held = [asyncio.create_task(read(gateway)) for _ in range(2)]
    await until(lambda: waiting.held == 2)
    # A quarter of all connections is held.
    assert (await read(gateway))[0] == 429
    assert (await read(gateway, "bob"))[0] == 200
    # Its client does not need the answer any more.
    for each in held:
        each.cancel()
    await until(lambda: waiting.held == 0)
    # One that waits as it was told, and is refused again, is told so at once.
    clock.now_s += 1
    assert [(await read(gateway))[0] for _ in range(2)] == [200, 429]


async def test_a_refusal_is_held_back_for_a_while_only(
    start: Start, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting_requests, "HELD_S", 0.01)
    gateway = await limited(start, principal_rate_max=1, principal_burst_max=1)
    assert [(await read(gateway))[0] for _ in range(4)] == [200, 429, 429, 429]


@asynccontextmanager
async def waiting_for(gateway: RunningGateway, *requests: tuple[str, Any], name: str = "ada") -> AsyncIterator[None]:
    """Requests that do not end by themselves, while the gate is closed; it is open after them."""
    waiting = gateway.app[WAITING_REQUESTS]
    before = waiting.number
    headers = of(name, Prefer="wait=10")
    calls = [asyncio.create_task(gateway.call("POST", path, json=body, headers=headers)) for path, body in requests]
    try:
        await until(lambda: waiting.number == before + len(requests))
        yield
    finally:
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        gateway.writes.gate.set()
        await until(lambda: waiting.number <= before)


ONE = ("/users/7/credit", {"amount": 1})
FIVE = ("/commands", [CREDIT] * 5)


async def test_more_commands_under_way_than_a_principal_may_have_are_refused(start: Start, clock: Clock) -> None:
    gateway = await limited(start, principal_in_flight_max=6)
    gateway.writes.gate.clear()
    async with waiting_for(gateway, FIVE, ONE):
        issued = len(gateway.writes.issued)
        for path, body in (ONE, FIVE):
            response, problem = await gateway.call("POST", path, json=body, headers=of("ada"))
            assert (response.status, problem["code"]) == (429, "too_many_requests")
            assert "6 commands of this client are under way" in problem["detail"]
            assert "GATEWAY_PRINCIPAL_IN_FLIGHT_MAX" in problem["detail"]
            assert response.headers["Retry-After"] == "1"
            assert response.headers["RateLimit-Policy"] == '"in-flight";q=6;qu="concurrent-requests"'
            assert response.headers["RateLimit"] == '"in-flight";r=0'
            assert "Command-Id" not in response.headers
        assert len(gateway.writes.issued) == issued
        # It may read, and others may write.
        assert (await read(gateway))[0] == 200
        bob = gateway.app[AUTHENTICATION].limits.share_of(Principal(subject="bob"))
        assert bob is not None
        bob.check_room(1000)
    clock.now_s += 1
    response, _ = await gateway.call("POST", FIVE[0], json=FIVE[1], headers=of("ada"))
    assert (response.status, response.headers["RateLimit"]) == (200, '"in-flight";r=6')


async def test_a_request_alone_may_have_more_commands_than_that(start: Start) -> None:
    gateway = await limited(start, principal_in_flight_max=2)
    gateway.writes.gate.clear()
    async with waiting_for(gateway, FIVE):
        response, _ = await gateway.call("POST", ONE[0], json=ONE[1], headers=of("ada"))
        assert (response.status, response.headers["RateLimit"]) == (429, '"in-flight";r=0')


async def test_one_principal_cannot_take_all_places_of_those_that_wait(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of all connections, whether for outcomes or for the ends of purchases."""
    monkeypatch.setitem(RESULTS, "users.open_purchase", BEGUN)
    gateway = await limited(start, principal_in_flight_max=1000, connections_max=8)
    gateway.app[PURCHASES]._purchases = cast(Any, FakeRows(BEGUN))
    async with AsyncExitStack() as stack:
        purchase = ("/users/7/purchases", BUY)
        await stack.enter_async_context(waiting_for(gateway, purchase, purchase))
        gateway.writes.gate.clear()
        await stack.enter_async_context(waiting_for(gateway, ONE, ONE))
        response, problem = await gateway.call("POST", ONE[0], json=ONE[1], headers=of("ada"))
        assert (response.status, problem["code"]) == (429, "too_many_requests")
        assert "GATEWAY_CONNECTIONS_MAX" in problem["detail"]
        await stack.enter_async_context(waiting_for(gateway, ONE, name="bob"))
        gateway.writes.gate.set()


async def test_what_is_open_to_all_and_gateways_that_ask_nobody_have_no_limits(start: Start) -> None:
    gateway = await limited(start, principal_rate_max=1, principal_burst_max=1)
    for _ in range(3):
        response, _ = await gateway.call("GET", "/healthz", headers=of("ada"))
        assert response.status == 200
        assert "RateLimit" not in response.headers
    everybodys = await start("users", GatewaySettings(principal_rate_max=1, principal_burst_max=1))
    for _ in range(3):
        response, _ = await everybodys.call("GET", "/users/7", headers=of("ada"))
        assert response.status == 200
        assert "RateLimit-Policy" not in response.headers


async def test_a_credential_that_does_not_count_takes_nothing_of_anybodys(start: Start) -> None:
    gateway = await limited(start, principal_rate_max=1, principal_burst_max=1)
    for _ in range(3):
        response, _ = await gateway.call("GET", "/users/7")
        assert response.status == 401
        assert "RateLimit" not in response.headers
    assert (await read(gateway))[0] == 200


async def test_without_limits_nobody_is_counted(start: Start) -> None:
    gateway = await limited(start)
    gateway.writes.gate.clear()
    async with waiting_for(gateway, FIVE, ONE, ONE):
        status, headers = await read(gateway)
        assert status == 200
        assert "RateLimit-Policy" not in headers
    assert not gateway.app[AUTHENTICATION].limits._shares


def filled(others: int) -> PrincipalLimits:
    """Limits of one request each, after Ada and so many others have asked."""
    limits = PrincipalLimits(GatewaySettings(principal_rate_max=1, principal_burst_max=1))
    for name in ("ada", *map(str, range(others))):
        share = limits.share_of(Principal(subject=name))
        assert share is not None
        share.take_request()
    return limits


def is_known(limits: PrincipalLimits, principal: Principal) -> bool:
    """Whether it is remembered that it has nothing left."""
    share = limits.share_of(principal)
    assert share is not None
    try:
        share.take_request()
    except TooManyRequests:
        return True
    return False


def test_as_many_principals_are_remembered_as_may_be(clock: Clock) -> None:
    for others, known in ((PRINCIPALS_MAX - 2, True), (PRINCIPALS_MAX - 1, True), (PRINCIPALS_MAX, False)):
        limits = filled(others)
        assert len(limits._shares) == min(others + 1, PRINCIPALS_MAX)
        assert is_known(limits, ADA) is known


def test_whoever_was_quiet_for_longest_is_forgotten_and_nobody_who_waits(clock: Clock) -> None:
    limits = filled(PRINCIPALS_MAX - 1)
    share = limits.share_of(Principal(subject="0"))
    assert share is not None
    share.waiting += 1
    assert is_known(limits, ADA)
    for number in range(PRINCIPALS_MAX - 2):
        limits.share_of(Principal(subject=f"new {number}"))
    assert is_known(limits, ADA)
    # The one that waits is now the one that was quiet for longest.
    limits.share_of(Principal(subject="another"))
    assert limits.share_of(Principal(subject="0")) is share
    assert not is_known(limits, Principal(subject="1"))
    assert len(limits._shares) == PRINCIPALS_MAX
