"""The gateway that is made from a service, with its lane, on each kind of database."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.e2e.test_rest import Api
from tests.support.databases import FreshDatabases
from tests.support.seats import seats
from tests.support.system import System, wait_ready


@pytest.fixture(
    params=["USERS_DATABASE_URL", "PAYMENTS_DATABASE_URL", "ITEMS_DATABASE_URL"], ids=["PostgreSQL", "MySQL", "MongoDB"]
)
async def api(request: pytest.FixtureRequest, system: System, databases: FreshDatabases) -> AsyncIterator[Api]:
    system.prepare_other("tests.support.seats:seats", seats, databases.new(request.param))
    started = [system.launch_coordinator("seats", {}), system.launch_gateway("seats", {})]
    for process, url in started:
        wait_ready(url, process)
    async with aiohttp.ClientSession() as session:
        yield Api(session, system.urls["seats"])


async def test_a_service_alone_is_served(api: Api) -> None:
    for number in (1, 2, 7):
        status, seat, headers = await api("POST", "/seats/commands/add", {"id": number, "code": f"A{number}"})
        assert (status, seat) == (200, {"id": number, "version": 1, "code": f"A{number}", "holder": None})
        assert (headers["ETag"], headers["Content-Location"]) == ('"1"', f"/seats/seats/{number}")
    assert (await api("GET", headers["Location"]))[1]["result"] == seat, "the command is at its Location"
    assert (await api("GET", headers["Content-Location"]))[1] == seat

    booking = {"id": 7, "holder": "Ada"}
    first = await api("POST", "/seats/commands/book", booking, Idempotency_Key="order-1")
    again = await api("POST", "/seats/commands/book", booking, Idempotency_Key="order-1")
    assert first[:2] == again[:2] == (200, seat | {"holder": "Ada", "version": 2})
    assert again[2]["Idempotent-Replayed"] == "true"
    status, problem, _ = await api("POST", "/seats/commands/book", {"id": 7, "holder": "Bob"})
    assert (status, problem["code"]) == (409, "taken")
    status, problem, _ = await api("POST", "/seats/commands/book", {"id": 9, "holder": "Bob"})
    assert (status, problem["code"]) == (404, "seat_not_found")

    status, problem, _ = await api("POST", "/seats/commands/book", {"id": 1, "holder": "Bob"}, If_Match='"3"')
    assert (status, problem["code"]) == (412, "version_conflict")
    assert (await api("POST", "/seats/commands/book", {"id": 1, "holder": "Bob"}, If_Match='"1"'))[0] == 200
    status, problem, _ = await api("POST", "/seats/commands/add", {"id": 8, "code": "A8"}, If_Match='"1"')
    assert (status, problem["code"]) == (400, "expected_version_unsupported")

    status, shown, headers = await api("GET", "/seats/seats/7")
    assert (status, shown, headers["ETag"]) == (200, seat | {"holder": "Ada", "version": 2}, '"2"')
    assert (await api("GET", "/seats/seats/7", If_None_Match='"2"'))[0] == 304
    for key in ("8", "07", "-7", "9223372036854775808", "9" * 1000, "%00", "7%00", "%FF", "7%2F", "7 ", "{}", "'"):
        status, problem, headers = await api("GET", f"/seats/seats/{key}")
        assert (status, problem["code"]) == (404, "row_not_found"), key
        assert headers["Content-Type"].startswith("application/problem+json")

    listed = (await api("GET", "/seats/seats?limit=2"))[1]
    assert ([row["id"] for row in listed["items"]], listed["next"]) == ([1, 2], 2)
    listed = (await api("GET", f"/seats/seats?limit=2&after={listed['next']}"))[1]
    assert (listed["items"], listed["next"]) == ([shown], None)

    outcomes = (await api("POST", "/commands", [{"type": "seats.book", "args": {"id": 2, "holder": "Cy"}}]))[1]
    assert [outcome["status"] for outcome in outcomes] == ["applied"]


async def test_pages_of_other_sites_are_kept_out_where_nobody_is_asked_who_he_is(api: Api) -> None:
    seat = {"id": 1, "code": "A1"}
    for headers in ({"Host": "elsewhere.example"}, {"Origin": "https://elsewhere.example"}, {"Origin": "null"}):
        status, problem, _ = await api("POST", "/seats/commands/add", seat, **headers)
        assert (status, problem["code"]) == (403, "forbidden"), headers
    assert (await api("GET", "/seats/seats", Host="elsewhere.example"))[0] == 403
    assert (await api("GET", "/seats/seats"))[1]["items"] == []


async def test_clients_at_once_sell_a_seat_once(api: Api) -> None:
    await api("POST", "/seats/commands/add", {"id": 1, "code": "A1"})
    answers = await asyncio.gather(
        *(api("POST", "/seats/commands/book", {"id": 1, "holder": f"client {number}"}) for number in range(50))
    )
    statuses = [status for status, _, _ in answers]
    assert (statuses.count(200), statuses.count(409)) == (1, 49)
    (sold,) = (body for status, body, _ in answers if status == 200)
    assert (await api("GET", "/seats/seats/1"))[1] == sold
