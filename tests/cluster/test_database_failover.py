"""The server of a lane's database dies, and its synchronous standby is promoted: nothing is lost, and clients wait."""

import asyncio
from collections.abc import Iterator

import psycopg
import pytest

from coordinator.dev.servers.addresses import ACCOUNT, HOST
from coordinator.dev.servers.postgresql import PostgreSQL
from tests.cluster.load import judge, under_load
from tests.support.postgresql_standby import PostgreSQLStandby, primary_and_standby, waits_for_standby
from tests.support.system import System, write_all

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]
ADA = {"name": "Ada", "email": "ada@example.org"}
NOTICED_AFTER_S = 3.0
"""So long nobody promotes the standby: who watches over a server does not believe its first silence."""
SILENCE_S_MAX = 7.0


@pytest.fixture
def servers() -> Iterator[tuple[PostgreSQL, PostgreSQLStandby]]:
    with primary_and_standby("users") as (primary, standby):
        waits_for_standby(primary, True)
        yield primary, standby


@pytest.fixture
def replicated_system(system: System, servers: tuple[PostgreSQL, PostgreSQLStandby]) -> System:
    """Two coordinators and a gateway, which know both servers."""
    hosts = ",".join(f"{HOST}:{server.port}" for server in servers)
    system.administrators["USERS_DATABASE_URL"] = servers[0].url
    system.environment |= {
        "USERS_DATABASE_URL": f"postgresql://{ACCOUNT}:{ACCOUNT}@{hosts}/users?target_session_attrs=read-write",
        "USERS_READER_URL": f"postgresql://users_reader:users_reader@{hosts}/users",
    }
    system.prepare("users")
    system.start_coordinators("users", "users")
    system.start_gateway("users")
    return system


async def test_a_primary_that_dies_costs_its_clients_a_wait_and_nothing_else(
    replicated_system: System,
    servers: tuple[PostgreSQL, PostgreSQLStandby],
    capsys: pytest.CaptureFixture[str],
) -> None:
    primary, standby = servers
    url = replicated_system.urls["users"]
    await write_all(url, "/users", ADA, 1, 1, "ada")
    async with under_load(url) as load:
        await asyncio.to_thread(primary.kill)
        await asyncio.sleep(NOTICED_AFTER_S)
        await asyncio.to_thread(promote, standby)
        await load.wait_for_answers(1000)
    judge(load, f"the primary dies, its standby is promoted after {NOTICED_AFTER_S:.0f} s", SILENCE_S_MAX, capsys)
    assert credit_of_ada(standby) == len(load.answered_at_s)


def promote(standby: PostgreSQL) -> None:
    with psycopg.connect(standby.url, autocommit=True) as connection:
        assert connection.execute("SELECT pg_promote(true, 60)").fetchone() == (True,)


def credit_of_ada(server: PostgreSQL) -> int:
    with psycopg.connect(server.url) as connection:
        (credit,) = connection.execute("SELECT credit FROM users WHERE id = 1").fetchone() or (-1,)
    return int(credit)
