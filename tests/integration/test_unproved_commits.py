"""A commit whose wait for a synchronous standby was cancelled: the server shows it, and nobody is told that it is safe.

The standby's receiver is stopped meanwhile. So the standby would not have the commit, if it were promoted.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg
import pytest
from sqlalchemy import Engine

from coordinator.client.command_log import CommandLog, open_command_log
from coordinator.client.database import close_database, open_database
from coordinator.client.proved_places import NotProved
from coordinator.dev.servers.postgresql import PostgreSQL
from coordinator.lane.delivery import Delivery, Settlement, Suspension
from coordinator.lane.lane import Lane
from coordinator.runtime.settings import LaneSettings
from coordinator.service.errors import DatabaseUnavailable
from coordinator.stores.admin import proved_entry
from coordinator.stores.open import open_admin, open_store
from tests.integration.test_synchronous_standby import Aside, interrupt, waiting
from tests.support.databases import sql_engine
from tests.support.lane_contract import delivery
from tests.support.ledger import LEDGER, OpenAccount
from tests.support.postgresql_standby import replicated, waits_for_standby
from tests.support.store_contract import NOW
from tests.support.system import wait_until

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may stop a process of another user"),
    pytest.mark.usefixtures("native_servers"),
]


@pytest.fixture
def servers() -> Iterator[tuple[PostgreSQL, PostgreSQL]]:
    """Each commit of the first one waits for the second one."""
    with replicated() as (primary, standby):
        waits_for_standby(primary, True)
        yield primary, standby


@pytest.fixture
def admin(servers: tuple[PostgreSQL, PostgreSQL]) -> Iterator[Engine]:
    engine = sql_engine(servers[0].url)
    yield engine
    engine.dispose()


@contextmanager
def nothing_received(standby: PostgreSQL) -> Iterator[None]:
    with psycopg.connect(standby.url, autocommit=True) as connection:
        (receiver,) = connection.execute("SELECT pid FROM pg_stat_wal_receiver").fetchone() or (0,)
    assert receiver
    os.kill(receiver, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(receiver, signal.SIGCONT)


@contextmanager
def lane_on(server: PostgreSQL, holder: str) -> Iterator[Lane]:
    with closing(open_store(server.url, LEDGER)) as store:
        yield Lane(LEDGER, store, lambda: NOW, holder, LaneSettings(), time.monotonic)


def entries(server: PostgreSQL) -> int:
    with psycopg.connect(server.url) as connection:
        (count,) = connection.execute("SELECT count(*) FROM command_log").fetchone() or (-1,)
    return int(count)


def settled(lane: Lane, *deliveries: Delivery) -> None:
    decision = lane.apply(deliveries)
    assert isinstance(decision, Settlement), decision


async def shown(log: CommandLog, command_id: str) -> bool:
    """Whether a reader of the log is told of this command; by all that it has, alike."""
    is_found = command_id in await log.find_all([command_id])
    assert ((await log.who_asked([command_id]))[command_id].status == "applied") is is_found
    if is_found:
        assert await log.find(command_id) is not None
    else:
        with pytest.raises(NotProved):
            await log.find(command_id)
    return is_found


async def test_a_commit_that_a_failover_would_lose_is_no_outcome_until_the_standby_has_it(
    servers: tuple[PostgreSQL, PostgreSQL], admin: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.client.proved_places.WAIT_S", 0.1)
    primary, standby = servers
    first, second, third = (delivery(number, OpenAccount(owner=f"owner {number}")) for number in range(3))
    ids = [each.commands[0].command_id or "" for each in (first, second, third)]
    database = open_database(primary.url, 2)
    log = open_command_log(database)
    with (
        lane_on(primary, "first") as lane,
        lane_on(primary, "second") as successor,
        closing(open_admin(primary.url, "ledger")) as operator,
    ):
        settled(lane, first)
        assert not await shown(log, ids[0])
        # A lane that an operator has paused proves nothing; what he has done does, once the standby has that.
        with nothing_received(standby):
            pausing = Aside(lambda: operator.pause("a backup", NOW))
            interrupt(admin, "pg_cancel_backend")
            assert isinstance(pausing.ended().error, DatabaseUnavailable)
            assert not await shown(log, ids[0])
        assert operator.pause("a backup", NOW).paused == "a backup"
        assert await shown(log, ids[0])
        assert operator.resume(NOW) == "a backup"
        assert lane.look() is None
        settled(lane, second)
        assert not await shown(log, ids[1])
        assert lane.sweep() is None
        assert await shown(log, ids[1])
        with nothing_received(standby):
            applying = Aside(lambda: lane.apply([third]))
            interrupt(admin, "pg_cancel_backend")
            assert isinstance(applying.ended().result, Suspension)
            assert (entries(primary), entries(standby)) == (3, 2)

            async def is_told() -> list[bool]:
                # To this gateway, to one that starts only now, and to an operator.
                to_operator = proved_entry(operator, ids[2]) is not None
                return [await shown(log, ids[2]), await shown(open_command_log(database), ids[2]), to_operator]

            assert await is_told() == [False] * 3
            assert [await shown(each, ids[1]) for each in (log, open_command_log(database))] == [True] * 2
            # Neither does a takeover prove anything before it has waited itself, though it is shown, too.
            taking_over = Aside(lambda: successor.apply([third], 1))
            interrupt(admin, "pg_cancel_backend")
            assert isinstance(taking_over.ended().result, Suspension)
            assert await is_told() == [False] * 3
            taking_over = Aside(lambda: successor.apply([third], 1))
            wait_until(lambda: waiting(admin) is not None, "it waits for the standby")
            assert await is_told() == [False] * 3
        decision = taking_over.ended().result
        assert isinstance(decision, Settlement)
        assert [(each.status, each.sequence, each.replayed) for each in decision.outcomes] == [("applied", 3, True)]
        assert successor.sweep(1) is None
        assert await is_told() == [True] * 3
    await close_database(database)
