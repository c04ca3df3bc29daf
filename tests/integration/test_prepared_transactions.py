"""A transaction that is prepared and has no session keeps what it has locked: whom that holds up says so."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any, Final

import pytest
from sqlalchemy import URL, Connection, make_url

from coordinator.dev.servers.postgresql import PostgreSQL
from coordinator.migrations.migrate import migrate
from coordinator.runtime.addresses import parse_address
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.errors import ConfigurationError
from coordinator.service.service import Service
from coordinator.stores.kinds import kind_of
from coordinator.stores.postgresql.migration_lock import MIGRATION_LOCK, migration_holder
from coordinator.stores.sql import migration_waits
from tests.support.databases import FreshDatabases, sql_engine
from tests.support.ledger import LEDGER, Account

pytestmark = pytest.mark.upgrades

SERVICE: Final = Service(name="ledger", models=(Account,), handlers=LEDGER.handlers)
READ: Final = "SELECT count(*) FROM command_log"


@pytest.fixture(scope="module")
def taking_some() -> Iterator[URL]:
    """A PostgreSQL that takes prepared transactions, as one does not by default."""
    directory = Path(mkdtemp(prefix="write-coordinator-prepared-"))
    # The server's own user goes there, too.
    directory.chmod(0o755)
    server = PostgreSQL(directory / "server", ["ledger"])
    server.options = ("-c", "max_prepared_transactions=2")
    server.start()
    yield make_url(server.url)
    server.stop()
    rmtree(directory, ignore_errors=True)


def migrated(owner: URL) -> str:
    """Migrate a database; returns the address of its reader."""
    urls = (owner, *(owner.set(username=f"{role}_{owner.database}", password="x") for role in ("lane", "reader")))
    migration_url, database_url, reader_url = (each.render_as_string(hide_password=False) for each in urls)
    migrate(SERVICE, DatabaseSettings(database_url=database_url, migration_url=migration_url, reader_url=reader_url))
    return reader_url


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    engine = sql_engine(url)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def why_no_change(owner: URL) -> str:
    """What a migration says that cannot change a table that somebody has read."""
    address = parse_address(owner.render_as_string(hide_password=False))
    kind: Any = kind_of(address)
    engine = kind.dialect.engine(address)
    kind.dialect.bound_locks(engine)
    with engine.connect() as migrating:

        def step() -> None:
            migrating.exec_driver_sql("ALTER TABLE command_log ADD COLUMN more INTEGER")

        with pytest.raises(ConfigurationError) as raised:
            migration_waits.despite_locks(kind.dialect, migrating, step, wait_s_max=0)
    engine.dispose()
    return str(raised.value)


def test_a_migration_names_one_of_postgresql(taking_some: URL) -> None:
    owner_url = taking_some.render_as_string(hide_password=False)
    with connected(migrated(taking_some)) as reader:
        for statement in (
            "BEGIN",
            READ,
            f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})",
            "PREPARE TRANSACTION 'left'",
        ):
            reader.exec_driver_sql(statement)
    prepared = "a prepared transaction of role reader_ledger (pg_prepared_xacts), which no session has"
    try:
        assert f"locked by others for 0 s: {prepared}. End that session or transaction" in why_no_change(taking_some)
        with connected(owner_url) as owner:
            assert migration_holder(owner) == prepared
    finally:
        with connected(owner_url) as owner:
            owner.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("ROLLBACK PREPARED 'left'")


def test_a_migration_names_one_of_mysql(databases: FreshDatabases) -> None:
    owner = make_url(databases.new("PAYMENTS_DATABASE_URL"))
    name = str(owner.database)
    with connected(migrated(owner)) as reader:
        if "MariaDB" in str(reader.exec_driver_sql("SELECT VERSION()").scalar()):
            pytest.skip("MariaDB lets go of what a transaction has only read when its connection ends")
        for statement in (f"XA START '{name}'", READ, f"XA END '{name}'", f"XA PREPARE '{name}'"):
            reader.exec_driver_sql(statement)
        # The connection may be given to nobody else.
        reader.detach()
        reader.close()
    try:
        assert "a prepared transaction without a connection (XA RECOVER)" in why_no_change(owner)
    finally:
        with connected(owner.render_as_string(hide_password=False)) as connection:
            connection.exec_driver_sql(f"XA ROLLBACK '{name}'")
