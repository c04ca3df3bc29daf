"""A PostgreSQL whose synchronous standby is away, and one that does not answer: nothing is acknowledged meanwhile."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest
from sqlalchemy import Engine, text

from coordinator.lane.delivery import Decision, Settlement, Suspension
from coordinator.lane.lane import Lane
from coordinator.migrations.migrate import migrate
from coordinator.runtime.awaited import LATE_S, Awaited
from coordinator.runtime.settings import DatabaseSettings, LaneSettings
from coordinator.stores.open import open_store
from coordinator.stores.port import Store, StoreUnavailable
from coordinator.stores.watched import WatchedStore
from tests.support.databases import FreshDatabases, sql_engine
from tests.support.lane_contract import delivery
from tests.support.ledger import LEDGER, OpenAccount, metadata
from tests.support.store_contract import NOW, account, changes, commit, entry
from tests.support.system import wait_until

pytestmark = pytest.mark.faults
WITHIN_S = 30.0


@pytest.fixture
def url(databases: FreshDatabases) -> str:
    url = databases.new("USERS_DATABASE_URL")
    engine = sql_engine(url)
    metadata.create_all(engine)
    engine.dispose()
    migrate(LEDGER, DatabaseSettings(database_url=url))
    return url


@pytest.fixture
def admin(url: str) -> Iterator[Engine]:
    engine = sql_engine(url)
    yield engine
    engine.dispose()


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with closing(open_store(url, LEDGER)) as store:
        yield store


@contextmanager
def standby_is_away(admin: Engine) -> Iterator[None]:
    """Every COMMIT waits for a standby that there is not."""
    _set_standby(admin, "'nobody'")
    try:
        # The checkpointer tells the others that they are to wait, and takes the setting later than they do.
        wait_until(lambda: commits_wait(admin), "commits wait for the standby")
        yield
    finally:
        _set_standby(admin, "''")


def _set_standby(admin: Engine, name: str) -> None:
    with admin.connect() as connection:
        connection.execute(text(f"ALTER SYSTEM SET synchronous_standby_names = {name}"))
        connection.execute(text("SELECT pg_reload_conf()"))

    def is_so() -> bool:
        # A session of its own: one takes the setting when it begins its next statement.
        with admin.connect() as connection:
            return f"'{connection.execute(text('SHOW synchronous_standby_names')).scalar_one()}'" == name

    wait_until(is_so, "the server has the setting")


def waiting(admin: Engine) -> int | None:
    """The backend that waits for the standby."""
    with admin.connect() as connection:
        found = connection.execute(
            text("SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND datname = current_database()")
        ).scalar()
    return None if found is None else int(found)


def commits_wait(admin: Engine) -> bool:
    def write() -> None:
        with admin.begin() as connection:
            connection.execute(text("SELECT pg_logical_emit_message(true, 'a test', 'commits')"))

    writing = Aside(write)
    wait_until(lambda: writing.is_over or waiting(admin) is not None, "a commit ends or waits")
    if writing.is_over:
        return False
    cancel(admin, "pg_cancel_backend")
    writing.ended()
    return True


class Aside:
    """Something that blocks, in a thread of its own."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.result: object = None
        self.error: Exception | None = None
        self._work = work
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._work()
        except Exception as error:  # noqa: BLE001  # the test looks at it
            self.error = error

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def ended(self) -> "Aside":
        self._thread.join(WITHIN_S)
        assert not self._thread.is_alive()
        return self


def interrupt(admin: Engine, how: str) -> None:
    """Cancel, or terminate, the one that waits for the standby."""
    wait_until(lambda: waiting(admin) is not None, "a commit waits for the standby")
    cancel(admin, how)


def cancel(admin: Engine, how: str) -> None:
    with admin.connect() as connection:
        assert connection.execute(text(f"SELECT {how}({waiting(admin)})")).scalar()


@pytest.mark.parametrize("how", ["pg_cancel_backend", "pg_terminate_backend"])
def test_a_commit_whose_wait_for_the_standby_was_ended_is_unknown(store: Store, admin: Engine, how: str) -> None:
    lease = store.take_over("holder", NOW)
    with standby_is_away(admin):
        committing = Aside(lambda: commit(store, lease, changes(inserts=[account(1), entry(1)])))
        interrupt(admin, how)
        assert isinstance(committing.ended().error, StoreUnavailable)


@pytest.mark.parametrize("how", ["pg_cancel_backend", "pg_terminate_backend"])
def test_a_lease_whose_wait_for_the_standby_was_ended_is_none(store: Store, admin: Engine, how: str) -> None:
    with standby_is_away(admin):
        taking_over = Aside(lambda: store.take_over("holder", NOW))
        interrupt(admin, how)
        assert isinstance(taking_over.ended().error, StoreUnavailable)
    assert store.take_over("holder", NOW).epoch == 2


def test_a_lane_acknowledges_nothing_before_the_standby_is_back(store: Store, admin: Engine) -> None:
    lane = Lane(LEDGER, store, lambda: NOW, "holder", LaneSettings(), time.monotonic)
    opened = [delivery(1, OpenAccount(owner="Ada"))]
    lane.apply([delivery(0, OpenAccount(owner="Eve"))])
    with standby_is_away(admin):
        for _ in range(2):  # the commit, and then the renewal of the lease
            applying = Aside(lambda: lane.apply(opened))
            interrupt(admin, "pg_cancel_backend")
            assert isinstance(applying.ended().result, Suspension)
    decision: Decision = lane.apply(opened)
    assert isinstance(decision, Settlement)
    (outcome,) = decision.outcomes
    assert (outcome.status, outcome.sequence, outcome.replayed) == ("applied", 2, True)


def test_a_commit_that_waits_for_the_standby_is_seen(url: str, admin: Engine) -> None:
    awaited = Awaited()
    with closing(WatchedStore(open_store(url, LEDGER), awaited)) as store:
        lease = store.take_over("holder", NOW)
        with standby_is_away(admin):
            committing = Aside(lambda: commit(store, lease, changes(inserts=[account(1), entry(1)])))
            wait_until(lambda: awaited.late is not None, "it is late")
            assert str(awaited.late) == f"it has waited {LATE_S:.0f} s for the database (commit)"
        assert committing.ended().error is None
        assert awaited.late is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may stop a process of another user")
@pytest.mark.usefixtures("native_servers")
def test_a_backend_that_was_stopped_is_seen(url: str, admin: Engine) -> None:
    awaited = Awaited()
    with closing(WatchedStore(open_store(url, LEDGER), awaited)) as store:
        store.take_over("holder", NOW)
        with admin.connect() as connection:
            pid = connection.execute(
                text("SELECT pid FROM pg_stat_activity WHERE application_name = 'lane ledger'")
            ).scalar_one()
        os.kill(pid, signal.SIGSTOP)
        try:
            asking = Aside(store.current)
            wait_until(lambda: awaited.late is not None, "it is late")
            assert awaited.late is not None
            assert awaited.late.what == "the database (lease)"
        finally:
            os.kill(pid, signal.SIGCONT)
        assert asking.ended().error is None
        assert awaited.late is None
