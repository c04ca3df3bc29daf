"""A migration says at once what it waits for and whose that is, and waits for nobody for ever."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from threading import Event
from typing import Any, Final

import pytest
import structlog
from sqlalchemy import Connection, make_url

from coordinator.migrations.migrate import migrate
from coordinator.runtime.addresses import parse_address
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.errors import ConfigurationError
from coordinator.service.service import Service
from coordinator.stores.kinds import kind_of
from coordinator.stores.open import open_store
from coordinator.stores.postgresql.migration_lock import MIGRATION_LOCK
from coordinator.stores.sql import migration_waits
from tests.support.databases import FreshDatabases, sql_engine
from tests.support.ledger import LEDGER, Account

pytestmark = pytest.mark.upgrades

DEADLINE_S: Final = 30
SERVICE: Final = Service(name="ledger", models=(Account,), handlers=LEDGER.handlers)


class Waiting:
    """A lane's migrated database, and a session of its reader that is in a migration's way."""

    def __init__(self, url: str) -> None:
        owner = make_url(url)
        self.name = str(owner.database)
        self.is_mysql = "mysql" in owner.drivername
        urls = (owner, *(owner.set(username=f"{role}_{self.name}", password="x") for role in ("lane", "reader")))
        migration_url, database_url, reader_url = (each.render_as_string(hide_password=False) for each in urls)
        self.settings = DatabaseSettings(database_url=database_url, migration_url=migration_url, reader_url=reader_url)
        migrate(SERVICE, self.settings)
        self._owner = migration_url
        self._reader = reader_url

    @contextmanager
    def reader(self) -> Iterator[Connection]:
        engine = sql_engine(self._reader)
        try:
            with engine.connect() as connection:
                yield connection
        finally:
            engine.dispose()

    def take_lock(self, connection: Connection) -> None:
        """That of migrations, as any role of the server may."""
        lock = f"GET_LOCK('migrate {self.name}', 1)" if self.is_mysql else f"pg_advisory_lock({MIGRATION_LOCK})"
        connection.exec_driver_sql(f"SELECT {lock}")

    def lacks_a_table(self) -> None:
        """It has one revision of the lane's to run again, which changes a table."""
        engine = sql_engine(self._owner)
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE accounts")
        engine.dispose()


@pytest.fixture(params=["USERS_DATABASE_URL", "PAYMENTS_DATABASE_URL"], ids=["postgresql", "mysql"])
def waiting(request: pytest.FixtureRequest, databases: FreshDatabases) -> Waiting:
    return Waiting(databases.new(request.param))


@contextmanager
def said_so(expected: str) -> Iterator[Event]:
    """An event that is set once the log says what a migration waits for."""
    said = Event()

    def look(_logger: object, _name: str, line: Any) -> Any:
        if line["event"] == "migration_waits" and re.search(expected, line["reason"]):
            said.set()
        raise structlog.DropEvent

    before = structlog.get_config()["processors"]
    structlog.configure(processors=[look])
    try:
        yield said
    finally:
        structlog.configure(processors=before)


def test_it_says_who_has_the_lock_of_migrations_and_goes_on_behind_him(waiting: Waiting) -> None:
    with waiting.reader() as reader, ThreadPoolExecutor(1) as thread:
        waiting.take_lock(reader)
        whose = "connection [0-9]+" if waiting.is_mysql else f"process [0-9]+ of role reader_{waiting.name}"
        with said_so(f"^{whose}.* has the lock of migrations") as said:
            running = thread.submit(migrate, SERVICE, waiting.settings)
            assert said.wait(DEADLINE_S)
            assert not running.done()
            reader.detach()
            reader.close()
            running.result(DEADLINE_S)


def test_it_ends_where_somebody_keeps_the_lock() -> None:
    with pytest.raises(ConfigurationError, match=r"^process 7 has had the lock .* or end that session if it is none"):
        migration_waits.take_turn(lambda: False, lambda: "process 7", wait_s_max=0)


def test_a_lane_does_not_take_a_reader_s_lock_for_a_migration(waiting: Waiting) -> None:
    if waiting.is_mysql:
        pytest.skip("MySQL shows nobody whose a lock is")
    waiting.lacks_a_table()
    with waiting.reader() as reader, closing(open_store(waiting.settings.database_url, LEDGER)) as store:
        waiting.take_lock(reader)
        with pytest.raises(ConfigurationError, match=r"accounts.*run `coordinator migrate`"):
            store.check(LEDGER.models)


def test_a_table_that_a_reader_holds_is_waited_for_aloud_and_never_for_ever(waiting: Waiting) -> None:
    owner = sql_engine(waiting.settings.migration_url or "")
    whose = "reader_" if not waiting.is_mysql else "connection [0-9]+|PROCESS"
    with waiting.reader() as reader, ThreadPoolExecutor(1) as thread, owner.connect() as connection:
        reader.exec_driver_sql("SET autocommit = 0" if waiting.is_mysql else "BEGIN")
        reader.exec_driver_sql("SELECT * FROM command_log")
        kind: Any = kind_of(parse_address(waiting.settings.database_url))
        engine = kind.dialect.engine(parse_address(waiting.settings.migration_url or ""))
        kind.dialect.bound_locks(engine)

        def step() -> None:
            migrating.exec_driver_sql("ALTER TABLE command_log ADD COLUMN more INTEGER")
            migrating.commit()

        with engine.connect() as migrating:
            with pytest.raises(ConfigurationError, match=rf"locked by others for 0 s: .*({whose})"):
                migration_waits.despite_locks(kind.dialect, migrating, step, wait_s_max=0)
            with said_so(f"is locked: .*({whose})") as said:
                running = thread.submit(migration_waits.despite_locks, kind.dialect, migrating, step)
                assert said.wait(DEADLINE_S)
                reader.exec_driver_sql("ROLLBACK")
                running.result(DEADLINE_S)
        engine.dispose()
        assert connection.exec_driver_sql("SELECT count(more) FROM command_log").scalar() == 0
    owner.dispose()
