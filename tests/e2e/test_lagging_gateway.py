"""A gateway whose standby stands still: what would be wrong if it were old is not read there."""

import asyncio
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime

import aiohttp
import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from coordinator.dev.servers.addresses import ACCOUNT, HOST
from coordinator.dev.servers.ports import free_port
from coordinator.dev.servers.postgresql import PostgreSQL
from coordinator.dev.servers.process import Process
from coordinator.runtime.addresses import parse_address
from coordinator.stores.kinds import kind_of
from tests.support.callers import HEADERS, key_of
from tests.support.postgresql_standby import PostgreSQLStandby, primary_and_standby
from tests.support.system import System, wait_until, write_all

pytestmark = pytest.mark.doors
ADA = {"name": "Ada", "email": "ada@example.org"}
LATER = HEADERS | {"Prefer": "respond-async"}
MANY = 30.0
"""Seconds within which what is expected has come on any machine."""


@pytest.fixture
def servers() -> Iterator[tuple[PostgreSQL, PostgreSQLStandby]]:
    with primary_and_standby("users") as servers:
        yield servers


@pytest.fixture
def lagging_system(system: System, servers: tuple[PostgreSQL, PostgreSQLStandby]) -> System:
    """A coordinator, whose database has a standby that has come as far as its user 1."""
    primary, _ = servers
    system.administrators["USERS_DATABASE_URL"] = primary.url
    system.environment |= {
        "USERS_DATABASE_URL": f"postgresql://{ACCOUNT}:{ACCOUNT}@{HOST}:{primary.port}/users",
        "USERS_READER_URL": reader(primary),
    }
    system.prepare("users")
    system.start_coordinators("users")
    return system


def reader(server: PostgreSQL) -> str:
    return f"postgresql://users_reader:users_reader@{HOST}:{server.port}/users"


def catch_up(primary: PostgreSQL, standby: PostgreSQL) -> None:
    """Return once the standby shows all that there is now."""
    with psycopg.connect(primary.url) as there, psycopg.connect(standby.url, autocommit=True) as here:
        (written,) = there.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone() or ("",)
        has_all = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
        wait_until(lambda: here.execute(has_all, [written]).fetchone() == (True,), "the standby has all")


def stand_still(standby: PostgreSQL) -> None:
    """From now on the standby shows nothing new."""
    with psycopg.connect(standby.url, autocommit=True) as control:
        control.execute("SELECT pg_wal_replay_pause()")
        is_paused = "SELECT pg_get_wal_replay_pause_state()"
        wait_until(lambda: control.execute(is_paused).fetchone() == ("paused",), "the replay is paused")


@pytest.mark.parametrize("knows_primary", [True, False])
async def test_a_command_that_this_gateway_took_is_never_said_to_be_unknown(
    lagging_system: System, servers: tuple[PostgreSQL, PostgreSQLStandby], knows_primary: bool
) -> None:
    primary, standby = servers
    await asyncio.to_thread(catch_up, primary, standby)
    settings = {"USERS_PRIMARY_URL": reader(primary)} if knows_primary else {}
    process = lagging_system.start_gateway("users", USERS_READER_URL=reader(standby), **settings)
    url = lagging_system.urls["users"]
    await write_all(url, "/users", ADA, 1, 1, "ada")
    await asyncio.to_thread(stand_still, standby)
    async with aiohttp.ClientSession(headers=LATER) as session, asyncio.timeout(MANY):
        async with session.post(f"{url}/users/1/credit", json={"amount": 1}) as taken:
            assert taken.status == 202
            place = url + taken.headers["Location"]
        said = 202
        while said == 202:
            async with session.get(place) as answer:
                said, body = answer.status, await answer.json(content_type=None)
        if knows_primary:
            assert (said, body["status"]) == (200, "applied")
        else:
            assert (said, body["code"]) == (503, "read_not_recent")
            assert "secrets_read_from_replica" in process.log_tail(1000)
            assert "USERS_PRIMARY_URL" in process.log_tail(1000)


async def test_a_command_that_another_gateway_took_is_found_at_the_primary(
    lagging_system: System, servers: tuple[PostgreSQL, PostgreSQLStandby]
) -> None:
    primary, standby = servers
    await asyncio.to_thread(catch_up, primary, standby)
    lagging_system.start_gateway("users")
    other = lagging_system.urls["users"]
    lagging_system.start_gateway("users", USERS_READER_URL=reader(standby), USERS_PRIMARY_URL=reader(primary))
    await asyncio.to_thread(stand_still, standby)
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        async with session.post(f"{other}/users", json=ADA) as made:
            command_id = made.headers["Command-Id"]
        async with session.get(f"{lagging_system.urls['users']}/commands/{command_id}") as answer:
            assert (answer.status, (await answer.json())["status"]) == (200, "applied")


async def test_metrics_tell_how_far_the_standby_has_come(
    lagging_system: System, servers: tuple[PostgreSQL, PostgreSQLStandby]
) -> None:
    primary, standby = servers
    lagging_system.start_gateway("users")
    other = lagging_system.urls["users"]
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        await write_all(other, "/users", ADA, 1, 1, "ada")
        await asyncio.to_thread(catch_up, primary, standby)
        lagging_system.start_gateway("users", USERS_READER_URL=reader(standby), USERS_PRIMARY_URL=reader(primary))
        await asyncio.to_thread(stand_still, standby)
        async with session.post(f"{other}/users/1/credit", json={"amount": 1}) as credited:
            assert credited.headers["Command-Sequence"] == "2"
        assert await place(session, other, "reader") == 2
        assert await place(session, lagging_system.urls["users"], "replica") == 1


async def place(session: aiohttp.ClientSession, url: str, server: str) -> float:
    """What a gateway shows behind a look at its database."""
    async with session.get(f"{url}/readyz") as ready:
        assert ready.status == 200
    async with session.get(f"{url}/metrics") as metrics:
        families = text_string_to_metric_families(await metrics.text())
    labels = {"service": "users", "server": server}
    name = "coordinator_gateway_reader_sequence"
    return next(
        each.value for family in families for each in family.samples if (each.name, each.labels) == (name, labels)
    )


async def test_a_revoked_key_does_not_count_however_far_the_standby_lags(
    lagging_system: System, servers: tuple[PostgreSQL, PostgreSQLStandby]
) -> None:
    primary, standby = servers
    lanes = {"users": lagging_system.owner("users")}
    eve = {"Authorization": f"Bearer {await asyncio.to_thread(key_of, 'eve', lanes)}"}
    await asyncio.to_thread(catch_up, primary, standby)
    lagging_system.start_gateway("users", USERS_READER_URL=reader(standby), USERS_PRIMARY_URL=reader(primary))
    await asyncio.to_thread(stand_still, standby)
    async with aiohttp.ClientSession(headers=eve) as session, asyncio.timeout(MANY):
        path = f"{lagging_system.urls['users']}/users"
        async with session.get(path) as answer:
            assert answer.status == 200
        await asyncio.to_thread(revoke, lanes["users"], eve["Authorization"].split("_")[1])
        said = 200
        while said == 200:
            async with session.get(path) as answer:
                said = answer.status
        assert said == 401


def revoke(url: str, key_id: str) -> None:
    address = parse_address(url)
    with closing(kind_of(address).open_api_keys(address, "users")) as keys:
        keys.revoke(key_id, datetime.now(UTC), "tests")


@pytest.mark.parametrize("wrong", ["its password", "another lane's database"])
def test_a_primary_that_is_none_of_this_lane_is_refused_at_the_start(
    lagging_system: System, servers: tuple[PostgreSQL, PostgreSQLStandby], wrong: str
) -> None:
    primary, _ = servers
    lagging_system.prepare("payments")
    others = lagging_system.environment["PAYMENTS_READER_URL"]
    given = reader(primary).replace(":users_reader@", ":wrong@") if wrong == "its password" else others
    process, _ = lagging_system.launch_gateway("users", {"USERS_PRIMARY_URL": given})
    process.wait(MANY)
    assert process.exit_status == 2
    assert "USERS_PRIMARY_URL" in process.log_tail(20)


async def test_a_primary_that_only_follows_is_not_believed_until_it_leads(
    lagging_system: System, servers: tuple[PostgreSQL, PostgreSQLStandby]
) -> None:
    primary, standby = servers
    eve = await asyncio.to_thread(key_of, "eve", {"users": lagging_system.owner("users")})
    await asyncio.to_thread(catch_up, primary, standby)
    given = {"USERS_PRIMARY_URL": reader(standby), "USERS_READER_URL": reader(standby)}
    process, ready = lagging_system.launch_gateway("users", given)
    known = {"Authorization": f"Bearer {eve}"}
    path = ready.replace("/readyz", "/users")
    async with aiohttp.ClientSession() as session, asyncio.timeout(MANY):
        said = await unauthenticated(session, ready, process)
        assert said["primary"].startswith("the server only reads, as one does that follows another one")
        assert "set the address of the server to which the lane writes" in process.log_tail(1000)
        async with session.get(path, headers=known) as answer:
            assert (answer.status, (await answer.json())["code"]) == (503, "authentication_unavailable")
        await asyncio.to_thread(promote, standby)
        status = 503
        while status != 200:
            async with session.get(ready) as answer:
                status = answer.status
        async with session.get(path, headers=known) as answer:
            assert answer.status == 200


async def unauthenticated(session: aiohttp.ClientSession, ready: str, process: Process) -> dict[str, str]:
    """Why a gateway is not ready, once it says that it can tell nobody who he is."""
    said: dict[str, str] = {}
    while "authentication" not in said:
        assert process.alive
        with suppress(aiohttp.ClientConnectionError):
            async with session.get(ready) as answer:
                said = (await answer.json()).get("reasons", {})
                assert answer.status == 503
    return said


def promote(standby: PostgreSQLStandby) -> None:
    with psycopg.connect(standby.url, autocommit=True) as control:
        assert control.execute("SELECT pg_promote(true, 60)").fetchone() == (True,)


async def test_a_gateway_that_has_never_read_keys_is_not_ready(
    lagging_system: System, servers: tuple[PostgreSQL, PostgreSQLStandby]
) -> None:
    away = f"postgresql://users_reader:users_reader@{HOST}:{free_port()}/users"
    process, ready = lagging_system.launch_gateway("users", {"USERS_PRIMARY_URL": away})
    async with aiohttp.ClientSession() as session, asyncio.timeout(MANY):
        said = await unauthenticated(session, ready, process)
    assert said["primary"] == "the primary does not answer"
