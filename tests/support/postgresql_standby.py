"""A PostgreSQL, and a standby of it, both on this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import psycopg

from coordinator.dev.servers.addresses import ACCOUNT, HOST
from coordinator.dev.servers.postgresql import PostgreSQL
from coordinator.dev.servers.programs import require
from coordinator.migrations.migrate import migrate
from coordinator.runtime.settings import DatabaseSettings
from tests.support.databases import sql_engine
from tests.support.ledger import LEDGER, metadata
from tests.support.system import wait_until

_SYNCHRONOUS = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"


class PostgreSQLStandby(PostgreSQL):
    """Streams from another one on this machine."""

    def __init__(self, directory: Path, primary: PostgreSQL, database: str) -> None:
        super().__init__(directory, [database])
        self._primary = primary

    def _prepare(self) -> None:
        program = require("postgres").resolve().with_name("pg_basebackup")
        source = f"postgresql://{ACCOUNT}:{ACCOUNT}@{HOST}:{self._primary.port}/"
        self._make_data(program, f"--dbname={source}", "--pgdata=.", "--checkpoint=fast", "--wal-method=stream", "-R")

    def _probe(self) -> str:
        psycopg.connect(self.url, connect_timeout=5).close()
        return ""


@contextmanager
def replicated() -> Iterator[tuple[PostgreSQL, PostgreSQLStandby]]:
    """The primary and its standby, which have the ledger's tables."""
    with primary_and_standby("ledger") as (primary, standby):
        engine = sql_engine(primary.url)
        metadata.create_all(engine)
        engine.dispose()
        migrate(LEDGER, DatabaseSettings(database_url=primary.url))
        with psycopg.connect(primary.url) as there, psycopg.connect(standby.url, autocommit=True) as here:
            (written,) = there.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone() or ("",)
            has_all = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
            wait_until(lambda: here.execute(has_all, [written]).fetchone() == (True,), "the standby has the tables")
        yield primary, standby


@contextmanager
def primary_and_standby(database: str) -> Iterator[tuple[PostgreSQL, PostgreSQLStandby]]:
    """Two servers that run; the database is empty."""
    directory = Path(mkdtemp(prefix="write-coordinator-replica-"))
    # A server's own user goes there, too.
    directory.chmod(0o755)
    primary = PostgreSQL(directory / "primary", [database])
    standby = PostgreSQLStandby(directory / "standby", primary, database)
    try:
        primary.start()
        standby.start()
        yield primary, standby
    finally:
        standby.stop()
        primary.stop()
        rmtree(directory, ignore_errors=True)


def cut_off(standby: PostgreSQLStandby) -> None:
    """The standby gets nothing more: what is committed from now on, it lacks."""
    with psycopg.connect(standby.url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET primary_conninfo = ''")
        connection.execute("SELECT pg_reload_conf()")
        receiving = "SELECT count(*) FROM pg_stat_wal_receiver"
        wait_until(lambda: connection.execute(receiving).fetchone() == (0,), "the standby receives nothing")


def waits_for_standby(primary: PostgreSQL, waits: bool) -> None:
    """Whether each commit of the first one waits for the second one, from now on."""
    with psycopg.connect(primary.url, autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{'*' if waits else ''}'")
        connection.execute("SELECT pg_reload_conf()")
        wait_until(lambda: connection.execute(_SYNCHRONOUS).fetchone() == (int(waits),), "the servers have the setting")
