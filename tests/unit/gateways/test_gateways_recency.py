"""`Read-After`: what answers to writes have, and what reads are refused with. tests/integration has a real replica."""

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.http.keys import READ_DATABASES
from coordinator.stores.sql.hosts_in_turns import hosts_in_turns
from tests.unit.gateways.conftest import DATABASES, Start
from tests.unit.gateways.gateway_fakes import ITEM, applied, refused


async def test_each_write_says_after_what_a_read_sees_it(start: Start) -> None:
    gateway = await start("users")
    created, _ = await gateway.call("POST", "/users", json={"name": "Ada", "email": "ada@example.org"})
    assert (created.headers["Command-Sequence"], created.headers["Read-After"]) == ("41", "users=41")
    gateway.writes.answer = refused("rejected", "email_taken")
    taken, _ = await gateway.call("POST", "/users", json={"name": "Ada", "email": "ada@example.org"})
    assert (taken.status, taken.headers["Command-Sequence"], taken.headers["Read-After"]) == (409, "42", "users=42")
    gateway.writes.answer = applied
    body = [{"type": "users.create", "args": {"name": "Ada", "email": "ada@example.org"}}] * 2
    many, _ = await gateway.call("POST", "/commands", json=body)
    assert many.headers["Read-After"] == "users=41"


NO_PLACES = (
    *("", "users", "users=", "users=-1", "users=1.5", "users=" + "9" * 16, "users=?1", "users=1;a", '"users"=1'),
    *("users=1,users=1", "items=1", "users=1, items=2", ",".join(f"a{each}=1" for each in range(800))),
)


async def test_what_is_no_place_of_a_lane_here_is_refused(start: Start) -> None:
    gateway = await start("users")
    for value in NO_PLACES:
        response, problem = await gateway.call("GET", "/users/1", headers={"Read-After": value})
        assert (response.status, problem["code"], problem["field"]) == (400, "invalid_header", "Read-After"), value


async def test_a_cache_cannot_tell_the_place_and_is_passed_by(start: Start) -> None:
    gateway = await start("items")
    response, _ = await gateway.call("GET", f"/items/{ITEM.id}", headers={"Read-After": "items=41"})
    assert (response.status, response.headers["Cache-Status"]) == (200, "write-coordinator-redis; fwd=bypass")


async def test_what_reads_no_database_is_served_by_none(start: Start) -> None:
    gateway = await start("items")
    for path in ("/healthz", "/readyz", "/openapi.json"):
        response, _ = await gateway.call("GET", path, headers={"Read-After": "items=41"})
        assert (response.status, "Served-By" in response.headers) == (200, False), path


async def test_readiness_shows_replicas_that_are_away_and_stays_ready(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = "postgresql://nobody@127.0.0.1:9,127.0.0.2:9/users?load_balance_hosts=random"
    monkeypatch.setitem(DATABASES, "users", several)
    gateway = await start("users")
    assert (await gateway.call("GET", "/readyz"))[1]["checks"]["replicas"] == "ok"
    engine = gateway.app[READ_DATABASES][0].database
    assert isinstance(engine, AsyncEngine)
    turns = hosts_in_turns(engine)
    assert turns is not None
    turns.is_away(1)
    response, body = await gateway.call("GET", "/readyz")
    assert (response.status, body["checks"]["replicas"]) == (200, "down")
