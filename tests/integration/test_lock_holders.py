"""A lane whose statement waits for somebody's lock says whose it is, or what it lacks to see that."""

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any, Final

import pytest
from sqlalchemy import Connection, Engine, make_url
from structlog.testing import capture_logs

from coordinator.client.writes import WriteOptions, execute
from coordinator.migrations.migrate import migrate
from coordinator.runtime.awaited import Awaited
from coordinator.runtime.settings import DatabaseSettings
from coordinator.stores.lease_table import LEASE_TABLE
from coordinator.stores.open import open_store
from coordinator.stores.port import Conflict, WaitExplaining
from coordinator.stores.watched import WatchedStore
from coordinator.worker.inprocess import InProcessWrites
from coordinator.worker.lock_watch import ASK_AFTER_S, LockWatch
from tests.support.databases import FreshDatabases, sql_engine
from tests.support.ledger import LEDGER, Account, OpenAccount, metadata
from tests.support.store_contract import NOW
from tests.support.system import wait_until

VALUE: Final = "a value of nobody else"


class Locked:
    """A lane's database, and a session that keeps something locked."""

    def __init__(self, url: str) -> None:
        owner = make_url(url)
        self.name = str(owner.database)
        self.is_mysql = "mysql" in owner.drivername
        self.lane_user = f"lane_{self.name}"
        lane = owner.set(username=self.lane_user, password="x")
        self.owner_url, self.url = (each.render_as_string(hide_password=False) for each in (owner, lane))
        engine = sql_engine(url)
        metadata.create_all(engine)
        engine.dispose()
        migrate(LEDGER, DatabaseSettings(database_url=self.url, migration_url=self.owner_url))

    @contextmanager
    def session(self) -> Iterator[Connection]:
        engine: Engine = sql_engine(self.owner_url)
        try:
            with engine.connect() as connection:
                yield connection
        finally:
            engine.dispose()

    def lock(self, connection: Connection, statement: str) -> str:
        """Keep what the statement changes locked. Returns how the session is named."""
        connection.exec_driver_sql("BEGIN")
        connection.exec_driver_sql(statement)
        if self.is_mysql:
            number = connection.exec_driver_sql("SELECT CONNECTION_ID()").scalar()
            return rf"connection {number} of \w+"
        return rf"process {connection.exec_driver_sql('SELECT pg_backend_pid()').scalar()} of role \w+"

    def run(self, statement: str) -> None:
        with self.session() as connection:
            connection.exec_driver_sql(statement)


@pytest.fixture(params=["USERS_DATABASE_URL", "PAYMENTS_DATABASE_URL"], ids=["postgresql", "mysql"])
def locked(request: pytest.FixtureRequest, databases: FreshDatabases) -> Locked:
    return Locked(databases.new(request.param))


def shown_others(locked: Locked) -> None:
    """On MySQL the lane's account sees others from now on."""
    if locked.is_mysql:
        locked.run(f"GRANT PROCESS ON *.* TO '{locked.lane_user}'@'%%'")
        with locked.session() as connection:
            is_mariadb = "MariaDB" in str(connection.exec_driver_sql("SELECT VERSION()").scalar())
        if not is_mariadb:
            locked.run(f"GRANT SELECT ON performance_schema.* TO '{locked.lane_user}'@'%%'")


class Waiting:
    """A lane that takes over on a thread of its own, and its watch."""

    def __init__(self, url: str) -> None:
        store = open_store(url, LEDGER)
        assert isinstance(store, WaitExplaining)
        self.explaining = store
        self.awaited = Awaited()
        self.store = WatchedStore(store, self.awaited)
        self.watch = LockWatch(LEDGER.name, store, self.awaited)

    def conflict_of(self, call: Callable[[], object]) -> str:
        """The text of the conflict in which a call ends that has to wait, while the watch looks."""
        with ThreadPoolExecutor(1) as thread:
            running = thread.submit(call)
            wait_until(lambda: running.done() or self._waits(), "the call waits")
            asyncio.run(self.watch.look(self.explaining))
            with pytest.raises(Conflict) as raised:
                running.result(30)
        return str(raised.value)

    def _waits(self) -> bool:
        now = self.awaited.now
        return now is not None and now.waited_s >= ASK_AFTER_S


@pytest.fixture
def lane(locked: Locked) -> Iterator[Waiting]:
    waiting = Waiting(locked.url)
    with closing(waiting.store):
        waiting.store.take_over("first", NOW)
        yield waiting


HOLD: Final = f"UPDATE {LEASE_TABLE} SET holder = '{VALUE}'"


def test_a_conflict_names_the_session_that_has_the_row(locked: Locked, lane: Waiting) -> None:
    shown_others(locked)
    lane.store.close()
    with locked.session() as other:
        who = locked.lock(other, HOLD)
        said = lane.conflict_of(lambda: lane.store.take_over("second", NOW))
        other.exec_driver_sql("ROLLBACK")
    assert re.search(f"a lock is held by {who}", said), said
    assert VALUE not in said
    assert lane.store.take_over("second", NOW).epoch == 2


def test_without_the_right_it_says_which_one_shows_the_session(locked: Locked, lane: Waiting) -> None:
    if not locked.is_mysql:
        pytest.skip("PostgreSQL shows every role whose a lock is")
    with locked.session() as other:
        locked.lock(other, HOLD)
        said = lane.conflict_of(lambda: lane.store.take_over("second", NOW))
        other.exec_driver_sql("ROLLBACK")
    assert re.search(r"shown only with (PROCESS|SELECT on performance_schema) \(GRANT ", said), said


def test_a_queue_before_a_lock_is_named_up_to_who_has_it(locked: Locked, lane: Waiting) -> None:
    if locked.is_mysql:
        pytest.skip("InnoDB names who has a row, whoever else waits for it")
    with locked.session() as reader, locked.session() as changer, ThreadPoolExecutor(1) as thread:
        first = locked.lock(reader, f"SELECT * FROM {LEASE_TABLE}")
        (number,) = changer.exec_driver_sql("SELECT pg_backend_pid()").one()
        changing = thread.submit(changer.exec_driver_sql, f"ALTER TABLE {LEASE_TABLE} ALTER holder SET DEFAULT ''")
        with locked.session() as looking:
            waits = f"SELECT cardinality(pg_blocking_pids({number}))"
            wait_until(lambda: looking.exec_driver_sql(waits).scalar() == 1, "the change of the table waits")
        said = lane.conflict_of(lambda: lane.store.take_over("second", NOW))
        reader.exec_driver_sql("ROLLBACK")
        changing.result(30)
    assert re.search(rf"process {number} of role \w+.*, which waits for {first}", said), said


def test_a_prepared_transaction_that_no_session_has_is_named(locked: Locked, lane: Waiting) -> None:
    with locked.session() as other:
        if locked.is_mysql or other.exec_driver_sql("SHOW max_prepared_transactions").scalar() == "0":
            pytest.skip("this server takes none")
        locked.lock(other, HOLD)
        other.exec_driver_sql(f"PREPARE TRANSACTION '{locked.name}'")
        try:
            said = lane.conflict_of(lambda: lane.store.take_over("second", NOW))
        finally:
            other.exec_driver_sql(f"ROLLBACK PREPARED '{locked.name}'")
    assert "a prepared transaction of role" in said


async def test_a_suspended_lane_and_its_log_line_name_the_session(locked: Locked) -> None:
    shown_others(locked)
    done = threading.Event()

    def keeps_it_locked() -> str:
        with locked.session() as other:
            who = locked.lock(other, HOLD)
            names.append(who)
            assert done.wait(60)
            other.exec_driver_sql("ROLLBACK")
        return who

    names: list[str] = []
    store = open_store(locked.url, LEDGER)
    async with InProcessWrites({LEDGER.name: store}, [LEDGER]) as writes:
        await execute(writes, OpenAccount(owner="Ada"), Account, WriteOptions())
        holding = asyncio.create_task(asyncio.to_thread(keeps_it_locked))
        try:
            await asyncio.to_thread(wait_until, lambda: bool(names), "the row is locked")
            with capture_logs() as lines:
                writing = asyncio.create_task(execute(writes, OpenAccount(owner="Bob"), Account, WriteOptions()))
                await asyncio.to_thread(wait_until, lambda: bool(suspended(lines)), "the lane is suspended")
            (line,) = suspended(lines)[:1]
            assert re.search(f"Conflict: .*a lock is held by {names[0]}", line["reason"]), line
            (late,) = [each for each in lines if each["event"] == "answer_late"]
            assert re.search(f"a lock is held by {names[0]}", late["why"]), late
            assert names[0].split(" of ")[0] in writes.unready_reason
            assert VALUE not in str(lines)
        finally:
            done.set()
        await writing
        await holding


def suspended(lines: Any) -> list[Any]:
    return [line for line in lines if line["event"] == "lane_suspended"]
