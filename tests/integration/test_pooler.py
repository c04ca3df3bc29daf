"""Behind PgBouncer in transaction mode gateways read what they ask for, and a lane refuses to write."""

import asyncio
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

import psycopg
import pytest
from sqlalchemy import func, literal, select

from coordinator.client.database import close_database, fetch, open_database
from coordinator.dev.install import Installation
from coordinator.migrations.migrate import migrate
from coordinator.runtime.addresses import parse_address
from coordinator.runtime.event_loop import new_event_loop
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.errors import ConfigurationError, DatabaseUnavailable
from coordinator.stores.open import open_store
from coordinator.stores.port import NotAdmitted
from tests.integration.test_stores import _migrate
from tests.support.databases import FreshDatabases
from tests.support.ledger import LEDGER, Account, metadata
from tests.support.pgbouncer import PGBOUNCER, PgBouncer
from tests.support.store_contract import NOW, account, changes, commit

ACCOUNTS = metadata.tables["accounts"]
ROWS = 20


@pytest.fixture(params=["", "options,extra_float_digits"], ids=["that refuses options", "that ignores options"])
def pooled(request: pytest.FixtureRequest, databases: FreshDatabases) -> Iterator[str]:
    """The address, through PgBouncer, of a database with some accounts, which sets other forms for every session."""
    url = databases.new("USERS_DATABASE_URL")
    _migrate(url)
    with closing(open_store(url, LEDGER)) as store:
        commit(
            store, store.take_over("holder", NOW), changes(inserts=[account(number) for number in range(1, ROWS + 1)])
        )
    # Before the pooler's first session, whose settings it says to each gateway.
    plant(url, "DateStyle = 'German, DMY'", "TimeZone = 'Pacific/Apia'", "client_encoding = LATIN1")
    address = parse_address(url)
    directory = Path(mkdtemp(prefix="write-coordinator-pooler-"))
    directory.chmod(0o755)
    Installation(print, directory / "install.log", (PGBOUNCER,)).run()
    users = {str(address.user): str(address.plain_password)}
    pooler = PgBouncer(
        directory / "pgbouncer", address.hosts[0].port or 0, users, address.database, ignored=request.param
    )
    pooler.start()
    yield pooler.url
    pooler.stop()
    rmtree(directory, ignore_errors=True)


def test_each_read_gets_its_own_rows(pooled: str) -> None:
    """Several gateways share one session of the server's, whose statements no gateway may take for its own."""

    async def read_all() -> None:
        gateways: list[Any] = [open_database(pooled, pool_max=3) for _ in range(3)]

        async def read(number: int, turn: int) -> None:
            # Of several forms, each used often enough to be prepared by a driver that does so.
            columns = [literal(turn % 3).label("form")] * (turn % 3)
            query = select(*ACCOUNTS.columns, *columns).where(ACCOUNTS.c.id == number)
            [found] = await fetch(gateways[turn % len(gateways)], query, Account)
            assert found.id == number

        try:
            for turn in range(40):
                await asyncio.gather(*(read(number, turn + number) for number in range(1, ROWS + 1)))
        finally:
            for gateway in gateways:
                await close_database(gateway)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(read_all())


def test_a_gateway_reads_as_it_must_whatever_the_database_sets(pooled: str) -> None:
    async def read_all() -> None:
        gateways: list[Any] = [open_database(pooled, pool_max=2) for _ in range(3)]
        try:
            for _ in range(3):
                for gateway in gateways:
                    async with gateway.connect() as connection:
                        shown = (await connection.execute(select(func.now(), literal("Zoë 漢")))).one()
                        assert shown[0].utcoffset() == timedelta(0)
                        assert shown[1] == "Zoë 漢"
        finally:
            for gateway in gateways:
                await close_database(gateway)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(read_all())


def test_a_gateway_does_not_read_floats_without_their_last_digits(pooled: str) -> None:
    plant(pooled, "extra_float_digits = 0")

    async def read() -> None:
        gateway: Any = open_database(pooled)
        try:
            with pytest.raises(DatabaseUnavailable, match="ALTER ROLE … SET extra_float_digits = 1"):
                await fetch(gateway, select(*ACCOUNTS.columns), Account)
        finally:
            await close_database(gateway)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(read())


def plant(url: str, *settings: str) -> None:
    """Set these for every session of the database that the pooler opens from now on."""
    address = parse_address(url)
    with psycopg.connect(url, autocommit=True) as connection:
        for each in settings:
            connection.execute(f"ALTER DATABASE {address.database} SET {each}".encode())
        with suppress(psycopg.OperationalError):
            connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")


def test_a_lane_says_that_it_needs_a_session_of_its_own(pooled: str) -> None:
    with closing(open_store(pooled, LEDGER)) as store, pytest.raises(NotAdmitted, match=r"pooler .* stands between"):
        store.check(LEDGER.models)


def test_so_does_a_migration(pooled: str) -> None:
    with pytest.raises(ConfigurationError, match=r"pooler .* stands between"):
        migrate(LEDGER, DatabaseSettings(database_url=pooled))
