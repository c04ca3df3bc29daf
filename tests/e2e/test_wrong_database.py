"""One coordinator of a lane has another database than the lane's: the one that has the right one gets the lane."""

import asyncio
import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import make_url, text

from coordinator.cli import cli
from coordinator.dev.servers.process import Process
from coordinator.dev.servers.redis_broker import RedisBroker
from coordinator.transports.rabbitmq.rights import OPERATOR
from coordinator.transports.rabbitmq.topology import mark_queue_name
from tests.e2e.test_restore import Backup, query, reason, stopped
from tests.support.databases import sql_engine
from tests.support.system import System, wait_ready, wait_until, write_all

pytestmark = pytest.mark.operators

BROKERS = pytest.mark.parametrize("broker_url", ["rabbitmq", "redis"], indirect=True)
WITHIN_S = 10.0
HELD_FOR_S = 3.0
WATCHED_S = 12.0
"""For long enough to be given up several times."""


@pytest.fixture
def broker_url(request: pytest.FixtureRequest) -> str | None:
    if request.param == "rabbitmq":
        return None
    broker: RedisBroker = request.getfixturevalue("redis_broker")
    return broker.url_of(OPERATOR)


class Lane:
    """The lane of the users, of whose database there is an older copy, with its own address."""

    def __init__(self, system: System) -> None:
        self.system = system
        self._copy = Backup(system)
        self.writes = 0

    async def begin(self) -> None:
        system = self.system
        system.prepare("users")
        first, gateway = system.start_coordinator("users"), system.start_gateway("users")
        await write_all(system.urls["users"], "/users", {"name": "Ada", "email": "ada@example.org"}, 1, 1, "ada")
        await self.write(4)
        for process in (first, gateway):
            await asyncio.to_thread(stopped, process, system)
        await asyncio.to_thread(self._copy.take)
        system.start_gateway("users")

    @property
    def elsewhere(self) -> dict[str, str]:
        """The settings of a coordinator that has the copy."""
        url = make_url(self.system.environment["USERS_DATABASE_URL"])
        other = url.set(database=f"{url.database}_backup").render_as_string(hide_password=False)
        return {"USERS_DATABASE_URL": other}

    async def write(self, count: int) -> None:
        """Return once all of them are applied."""
        self.writes += 1
        written = await write_all(
            self.system.urls["users"], "/users/1/credit", {"amount": 1}, count, 2, f"credit-{self.writes}"
        )
        assert {status for status, _ in written} == {200}, written

    def go_on_in_copy(self, count: int) -> None:
        """As it does where a coordinator runs there, with a broker of its own."""
        self.ask_copy(
            "INSERT INTO command_log (command_id, sequence, epoch, type, fingerprint, status, settled_at) "
            "SELECT 'there-' || number, (SELECT sequence FROM lane_lease) + number, 1, 'users.credit', 'a', 'applied', "
            f"now() FROM generate_series(1, {count}) AS number RETURNING sequence"
        )
        self.ask_copy(f"UPDATE lane_lease SET sequence = sequence + {count} RETURNING sequence")

    def run(self, statement: str) -> None:
        engine = sql_engine(self.system.owner("users"))
        with engine.connect() as connection:
            connection.execute(text(statement))
        engine.dispose()

    def ask_copy(self, statement: str) -> list[tuple[Any, ...]]:
        address = make_url(self.system.owner("users"))
        engine = sql_engine(address.set(database=f"{address.database}_backup").render_as_string(hide_password=False))
        with engine.connect() as connection:
            rows = [tuple(row) for row in connection.execute(text(statement)).all()]
        engine.dispose()
        return rows

    def drop_copy(self) -> None:
        self._copy.drop()


@pytest.fixture
def lane(system: System) -> Iterator[Lane]:
    lane = Lane(system)
    yield lane
    system.stop()
    lane.drop_copy()


def lines(process: Process, event: str) -> list[dict[str, Any]]:
    logged = [json.loads(line) for line in process.log_tail(10_000).splitlines() if line.startswith("{")]
    return [line for line in logged if line["body"] == event]


def is_counted(ready_at: str) -> bool:
    with urllib.request.urlopen(ready_at.replace("readyz", "metrics"), timeout=5) as response:
        return 'coordinator_lane_suspended{cause="commits_lost",lane="users"} 1.0' in response.read().decode()


def has_taken_over(coordinator: tuple[Process, str]) -> bool:
    return bool(lines(coordinator[0], "lane_taken_over"))


@BROKERS
async def test_a_coordinator_with_the_right_database_gets_the_lane_from_one_with_another(lane: Lane) -> None:
    system = lane.system
    await lane.begin()
    right = system.start_coordinator("users")
    await lane.write(5)
    wrong, wrong_at = system.launch_coordinator("users", lane.elsewhere)
    await asyncio.to_thread(wait_ready, wrong_at, wrong)
    waiting = system.start_coordinator("users")
    # Else it might have the turn of the wrong one.
    waiting.pause()
    right.kill()
    system.processes.remove(right)
    writing = asyncio.create_task(lane.write(5))
    said = "lost acknowledged commands"
    await asyncio.to_thread(wait_until, lambda: said in reason(wrong_at), "it says so for as long as it is so")
    waiting.resume()
    async with asyncio.timeout(WITHIN_S):
        await writing
    assert said in reason(wrong_at)
    assert len(lines(wrong, "lane_suspended")) == 1
    # The wrong one is the first again once this one is gone, and must not keep the lane from the next.
    later = system.start_coordinator("users")
    waiting.kill()
    system.processes.remove(waiting)
    async with asyncio.timeout(WITHIN_S):
        await lane.write(5)
    assert later.alive
    assert said in reason(wrong_at)
    assert lines(wrong, "broker_connection_lost") == []
    # Started again with the right address it is one like others.
    await asyncio.to_thread(stopped, wrong, system)
    system.start_coordinator("users")
    later.kill()
    system.processes.remove(later)
    async with asyncio.timeout(WITHIN_S):
        await lane.write(5)
    assert query(system, "SELECT sequence, epoch FROM lane_lease") == [(25, 5)]


@BROKERS
async def test_one_with_another_database_and_nobody_else_stays_blocked_and_takes_an_accepted_loss_at_once(
    lane: Lane,
) -> None:
    system = lane.system
    await lane.begin()
    right = system.start_coordinator("users")
    await lane.write(5)
    await asyncio.to_thread(stopped, right, system)
    wrong = [system.launch_coordinator("users", lane.elsewhere) for _ in range(2)]
    for process, ready_at in wrong:
        await asyncio.to_thread(wait_ready, ready_at, process)
    writing = asyncio.create_task(lane.write(1))
    # In turn each finds that it cannot apply what waits.
    said = "ends at sequence 5, and 10 was acknowledged"
    await asyncio.to_thread(wait_until, lambda: all(said in reason(at) for _, at in wrong), "both are blocked")
    await asyncio.sleep(WATCHED_S)
    assert not writing.done()
    for process, ready_at in wrong:
        assert said in reason(ready_at)
        assert await asyncio.to_thread(is_counted, ready_at)
        assert len(lines(process, "lane_suspended")) == 1
        assert len(lines(process, "consuming")) <= 2
        assert lines(process, "broker_connection_lost") == []
    arguments = ["accept-loss", "users", "--at", "5", "--up-to", "10"]
    environment = system.operator_environment | lane.elsewhere
    accepted = await asyncio.to_thread(CliRunner().invoke, cli, arguments, env=environment)
    assert accepted.exit_code == 0, accepted.output
    await asyncio.to_thread(wait_until, lambda: any(map(has_taken_over, wrong)), "it goes on", timeout_s=WITHIN_S)
    await writing
    await lane.write(1)
    assert query(system, "SELECT sequence, epoch FROM lane_lease") == [(10, 2)], "nobody touched the other one"


@pytest.mark.parametrize("broker_url", ["rabbitmq"], indirect=True)
async def test_a_mark_that_somebody_else_is_reading_is_not_taken_for_none(lane: Lane) -> None:
    """As a process that was stopped amid that; its queue looks empty."""
    system = lane.system
    await lane.begin()
    first = system.start_coordinator("users")
    await lane.write(5)
    await asyncio.to_thread(stopped, first, system)
    with system.broker() as channel:
        held, _, _ = channel.basic_get(mark_queue_name("users"))
        assert held is not None
        wrong, wrong_at = system.launch_coordinator("users", lane.elsewhere)
        await asyncio.to_thread(wait_ready, wrong_at, wrong)
        writing = asyncio.create_task(lane.write(1))
        await asyncio.sleep(HELD_FOR_S)
        assert not writing.done()
        assert await asyncio.to_thread(lane.ask_copy, "SELECT sequence FROM lane_lease") == [(5,)]
        channel.basic_nack(held.delivery_tag, requeue=True)
        said = "ends at sequence 5, and 10 was acknowledged"
        await asyncio.to_thread(wait_until, lambda: said in reason(wrong_at), "it is blocked")
    system.start_coordinator("users")
    async with asyncio.timeout(WITHIN_S):
        await writing
    assert query(system, "SELECT sequence FROM lane_lease") == [(11,)]


@BROKERS
@pytest.mark.parametrize("unfit", ["another lane's", "a right is missing"])
async def test_one_that_its_database_does_not_take_leaves_the_lane_to_another(lane: Lane, unfit: str) -> None:
    system = lane.system
    await lane.begin()
    if unfit == "another lane's":
        wrong, wrong_at = system.launch_coordinator("users", lane.elsewhere)
        said = "the database of USERS_DATABASE_URL is that of lane users-acme: a lane needs its own"
    else:
        wrong, wrong_at = system.launch_coordinator("users", {})
        said = "lacks INSERT on table command_log"
    await asyncio.to_thread(wait_ready, wrong_at, wrong)
    right, right_at = system.launch_coordinator("users", {"USERS_DATABASE_URL": system.owner("users")})
    await asyncio.to_thread(wait_ready, right_at, right)
    if unfit == "another lane's":
        # Its address leads there all of a sudden.
        lane.ask_copy("UPDATE lane_lease SET lane = 'users-acme' RETURNING lane")
        before = lane.ask_copy("SELECT * FROM lane_lease")
    else:
        lane.run(f"REVOKE INSERT ON command_log FROM {make_url(system.environment['USERS_DATABASE_URL']).username}")
    async with asyncio.timeout(WITHIN_S):
        await lane.write(5)
    assert has_taken_over((right, right_at))
    await asyncio.to_thread(wait_until, lambda: said in reason(wrong_at), "it says so for as long as it is so")
    assert query(system, "SELECT sequence FROM lane_lease") == [(10,)]
    if unfit == "another lane's":
        assert lane.ask_copy("SELECT * FROM lane_lease") == before
        assert not has_taken_over((wrong, wrong_at))


@BROKERS
async def test_a_copy_that_has_gone_on_by_itself_is_not_taken_for_the_lanes_database(lane: Lane) -> None:
    """It has the lineage of the lane's own, and has come further."""
    system = lane.system
    await lane.begin()
    first = system.start_coordinator("users")
    await lane.write(5)
    await asyncio.to_thread(stopped, first, system)
    await asyncio.to_thread(lane.go_on_in_copy, 20)
    wrong, wrong_at = system.launch_coordinator("users", lane.elsewhere)
    await asyncio.to_thread(wait_ready, wrong_at, wrong)
    writing = asyncio.create_task(lane.write(1))
    said = "its database is not the one in which its commands were applied: it ends at sequence 25"
    await asyncio.to_thread(wait_until, lambda: said in reason(wrong_at), "it says so")
    assert "and 10 was acknowledged in another copy of that, which has gone on by itself" in reason(wrong_at)
    assert not has_taken_over((wrong, wrong_at))
    # With the right address all goes on.
    right = system.start_coordinator("users")
    async with asyncio.timeout(WITHIN_S):
        await writing
    assert query(system, "SELECT sequence FROM lane_lease") == [(11,)]
    # Or that copy is to go on.
    await asyncio.to_thread(stopped, right, system)
    writing = asyncio.create_task(lane.write(1))
    await asyncio.to_thread(wait_until, lambda: "and 11 was acknowledged" in reason(wrong_at), "it knows more now")
    environment = system.operator_environment | lane.elsewhere
    for up_to, status in ((10, 1), (11, 0)):
        arguments = ["accept-loss", "users", "--at", "25", "--up-to", str(up_to)]
        accepted = await asyncio.to_thread(CliRunner().invoke, cli, arguments, env=environment)
        assert accepted.exit_code == status, accepted.output
    async with asyncio.timeout(WITHIN_S):
        await writing
    assert await asyncio.to_thread(lane.ask_copy, "SELECT sequence FROM lane_lease") == [(26,)]
    assert query(system, "SELECT sequence FROM lane_lease") == [(11,)]
