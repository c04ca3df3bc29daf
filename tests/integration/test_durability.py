"""A database that may lose commits is refused at the start, whatever the setting that makes it so; and a lane, or an
operator's command, makes sure of what it may set itself."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

import pytest
from sqlalchemy import text

from coordinator.dev.servers.mysql import MySQL
from coordinator.dev.servers.postgresql import PostgreSQL
from coordinator.migrations.migrate import migrate
from coordinator.runtime.addresses import parse_address
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.errors import ConfigurationError
from coordinator.service.service import Service
from coordinator.stores.kinds import kind_of
from coordinator.stores.open import open_store
from coordinator.stores.postgresql.store import PostgresStore
from tests.support.databases import FreshDatabases, sql_engine
from tests.support.ledger import LEDGER, Account, metadata
from tests.support.store_contract import NOW

READS = Service(name="ledger", models=(Account,), handlers=LEDGER.handlers, metadata=metadata)


def migrated(url: str) -> None:
    engine = sql_engine(url)
    metadata.create_all(engine)
    engine.dispose()
    migrate(READS, DatabaseSettings(database_url=url))


@pytest.fixture
def directory() -> Iterator[Path]:
    """Where a server's own user may go, too."""
    made = Path(mkdtemp(prefix="write-coordinator-weak-"))
    made.chmod(0o755)
    yield made
    rmtree(made, ignore_errors=True)


@pytest.mark.faults
def test_a_postgresql_that_loses_commits_is_refused_by_each_setting_that_makes_it_so(directory: Path) -> None:
    server = PostgreSQL(directory / "postgresql", ["ledger"])
    server.options = ("-c", "fsync=off", "-c", "full_page_writes=off")
    server.start()
    try:
        migrated(server.url)
        execute(server.url, "ALTER TABLE accounts SET UNLOGGED")
        with closing(open_store(server.url, LEDGER)) as store:
            refusal = r"fsync is off.*full_page_writes is off.*UNLOGGED: accounts.*LANE_ALLOW_UNSYNCED"
            with pytest.raises(ConfigurationError, match=refusal):
                store.check(LEDGER.models)
            assert list(store.check(LEDGER.models, must_sync=False)) == []
    finally:
        server.stop()


@pytest.mark.faults
def test_a_mysql_that_loses_commits_is_refused_by_each_setting_that_makes_it_so(directory: Path) -> None:
    server = MySQL(directory / "mysql", ["ledger"])
    server.options = ("--log-bin=log", "--server-id=1", "--sync-binlog=0", "--skip-innodb-doublewrite")
    server.start()
    try:
        migrated(server.url)
        with closing(open_store(server.url, LEDGER)) as store:
            refusal = r"innodb_doublewrite is .*sync_binlog is 0, not 1.*LANE_ALLOW_UNSYNCED"
            with pytest.raises(ConfigurationError, match=refusal):
                store.check(LEDGER.models)
            assert list(store.check(LEDGER.models, must_sync=False)) == []
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("asked", "kept"), [("off", "on"), ("local", "on"), ("remote_write", "on"), ("on", "on"), ("remote_apply",) * 2]
)
def test_what_a_postgresql_says_of_commits_is_only_ever_raised(
    databases: FreshDatabases, asked: str, kept: str
) -> None:
    url = databases.new("USERS_DATABASE_URL")
    name = parse_address(url).database
    execute(url, f"ALTER DATABASE {name} SET synchronous_commit = {asked}")
    migrated(url)
    store = open_store(url, LEDGER)
    assert isinstance(store, PostgresStore)
    with closing(store):
        assert store.first_row("SHOW synchronous_commit") == (kept,)
    address = parse_address(url)
    with closing(kind_of(address).open_admin(address, LEDGER.name)) as admin:
        operators: Any = admin
        for _ in range(2):
            with operators._engine.begin() as connection:
                assert connection.execute(text("SHOW synchronous_commit")).scalar() == kept


def test_a_mysql_whose_commits_need_not_wait_for_a_replica_is_taken_with_a_warning(databases: FreshDatabases) -> None:
    url = databases.new("PAYMENTS_DATABASE_URL")
    migrated(url)
    if not rows(url, "SHOW GLOBAL VARIABLES LIKE 'rpl_semi_sync_master_enabled'"):
        pytest.skip("MySQL has semi-synchronous replication in a plugin, which is not installed here")
    execute(url, "SET GLOBAL rpl_semi_sync_master_enabled = ON")
    try:
        with closing(open_store(url, LEDGER)) as store:
            found = " ".join(store.check(LEDGER.models))
            store.take_over("holder", NOW)
    finally:
        execute(url, "SET GLOBAL rpl_semi_sync_master_enabled = OFF")
    assert "rpl_semi_sync_master_timeout" in found
    assert "rpl_semi_sync_master_wait_point is AFTER_COMMIT" in found


def execute(url: str, statement: str) -> None:
    engine = sql_engine(url)
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


def rows(url: str, statement: str) -> list[Any]:
    engine = sql_engine(url)
    with engine.connect() as connection:
        found = list(connection.execute(text(statement)))
    engine.dispose()
    return found
