"""The server of a lane's database dies, and its standby is promoted: of a synchronous one nothing is lost, and what an
asynchronous one lacks the lane says."""

import asyncio
import re
from collections.abc import Iterator
from typing import Final, LiteralString

import psycopg
import pytest
from click.testing import CliRunner

from coordinator.cli import cli
from coordinator.dev.servers.addresses import ACCOUNT, HOST
from coordinator.dev.servers.postgresql import PostgreSQL
from tests.cluster.load import USER, judge, under_load
from tests.support.postgresql_standby import PostgreSQLStandby, cut_off, primary_and_standby, waits_for_standby
from tests.support.system import System, wait_until, write_all

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]
ADA = {"name": "Ada", "email": "ada@example.org"}
NOTICED_AFTER_S = 3.0
"""So long nobody promotes the standby: who watches over a server does not believe its first silence."""
SILENCE_S_MAX = 7.0
LOSS: Final = re.compile(r"ends at sequence (\d+), and (\d+) was acknowledged")


@pytest.fixture
def servers() -> Iterator[tuple[PostgreSQL, PostgreSQLStandby]]:
    with primary_and_standby("users") as (primary, standby):
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
    await asyncio.to_thread(waits_for_standby, primary, True)
    url = replicated_system.urls["users"]
    await write_all(url, "/users", ADA, 1, 1, "ada")
    async with under_load(url) as load:
        await asyncio.to_thread(primary.kill)
        await asyncio.sleep(NOTICED_AFTER_S)
        await asyncio.to_thread(promote, standby)
        await load.wait_for_answers(1000)
    judge(load, f"the primary dies, its standby is promoted after {NOTICED_AFTER_S:.0f} s", SILENCE_S_MAX, capsys)
    assert credit_of_ada(standby) == len(load.answered_at_s)


async def test_what_an_asynchronous_standby_lacks_blocks_the_lane_until_an_operator_accepts_it(
    replicated_system: System, servers: tuple[PostgreSQL, PostgreSQLStandby], capsys: pytest.CaptureFixture[str]
) -> None:
    """And no number is given twice: neither a place in the lane's order nor an id."""
    primary, standby = servers
    async with under_load(replicated_system.urls["users"], USER) as load:
        await asyncio.to_thread(cut_off, standby)
        await load.wait_for_answers(200)
        before = max(sequence for own in load.sequences for sequence in own)
        await asyncio.to_thread(primary.kill)
        await asyncio.to_thread(promote, standby)
        await asyncio.to_thread(wait_until, lambda: bool(told_losses(replicated_system)), "the lane says what is lost")
        ((ends_at, acknowledged),) = told_losses(replicated_system)
        assert ends_at < before <= acknowledged
        assert sequence_of(standby) == ends_at
        answered = len(load.answered_at_s)
        accept = ["accept-loss", "users", "--at", str(ends_at), "--up-to", str(acknowledged)]
        # In a thread: it runs an event loop of its own.
        accepted = await asyncio.to_thread(CliRunner().invoke, cli, accept, env=replicated_system.environment)
        assert accepted.exit_code == 0, accepted.output
        await load.wait_for_answers(500)
    with capsys.disabled():
        lost = acknowledged - ends_at
        print(f"\n{load.report(f'an asynchronous standby that lacks {lost} commits is promoted, and that accepted')}")
    load.check_numbers()
    sequences = sorted(sequence for own in load.sequences for sequence in own)
    assert not [sequence for sequence in sequences[answered:] if sequence <= acknowledged]
    assert users_of(standby) == sequence_of(standby) - lost


def told_losses(system: System) -> set[tuple[int, int]]:
    """By the errors of all coordinators: where the database ends, and what was acknowledged."""
    lines = [line for process in system.processes for line in process.log_tail(200).splitlines() if '"ERROR"' in line]
    found = (LOSS.search(line) for line in lines)
    return {(int(each[1]), int(each[2])) for each in found if each is not None}


def promote(standby: PostgreSQL) -> None:
    with psycopg.connect(standby.url, autocommit=True) as connection:
        assert connection.execute("SELECT pg_promote(true, 60)").fetchone() == (True,)


def sequence_of(server: PostgreSQL) -> int:
    return _number(server, "SELECT sequence FROM lane_lease")


def users_of(server: PostgreSQL) -> int:
    return _number(server, "SELECT count(*) FROM users")


def credit_of_ada(server: PostgreSQL) -> int:
    return _number(server, "SELECT credit FROM users WHERE id = 1")


def _number(server: PostgreSQL, query: LiteralString) -> int:
    with psycopg.connect(server.url) as connection:
        (number,) = connection.execute(query).fetchone() or (-1,)
    return int(number)
