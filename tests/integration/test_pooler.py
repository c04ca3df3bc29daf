"""Behind PgBouncer gateways read what they ask for, operators' commands work, and a lane refuses to write."""

import asyncio
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any, NamedTuple

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
from coordinator.stores.kinds import kind_of
from coordinator.stores.open import open_store
from coordinator.stores.port import NotAdmitted
from tests.integration.test_stores import _migrate
from tests.support.admin_contract import USES
from tests.support.databases import FreshDatabases
from tests.support.ledger import LEDGER, Account, metadata
from tests.support.pgbouncer import PGBOUNCER, PgBouncer
from tests.support.store_contract import NOW, account, changes, commit

pytestmark = pytest.mark.doors

ACCOUNTS = metadata.tables["accounts"]
ROWS = 20


class Pooler(NamedTuple):
    """How a PgBouncer is configured."""

    ignored: str = ""
    mode: str = "transaction"


IN_TRANSACTIONS = [
    pytest.param(Pooler(), id="that refuses options"),
    pytest.param(Pooler(ignored="options,extra_float_digits"), id="that ignores options"),
]
IN_SESSIONS = [pytest.param(Pooler(mode="session"), id="in session mode")]


@pytest.fixture(params=IN_TRANSACTIONS)
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
        directory / "pgbouncer",
        address.hosts[0].port or 0,
        users,
        address.database,
        ignored=request.param.ignored,
        mode=request.param.mode,
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


@pytest.mark.parametrize("pooled", [*IN_TRANSACTIONS, *IN_SESSIONS], indirect=True)
def test_an_operators_commands_work(pooled: str) -> None:
    address = parse_address(pooled)
    with closing(kind_of(address).open_admin(address, LEDGER.name)) as admin:
        # More than once, as a driver that prepares statements would not notice the first time.
        for _ in range(7):
            for use in USES.values():
                use(admin)
        admin.pause("a look", NOW)
        state = admin.state()
    assert (state.lease and state.lease.paused, state.lease and state.lease.sequence) == ("a look", 1)


def test_they_leave_nothing_in_a_session_that_is_another_clients_next(pooled: str) -> None:
    address = parse_address(pooled)
    with psycopg.connect(pooled, autocommit=True, prepare_threshold=None) as other:
        other.execute("SET synchronous_commit = off; SET lock_timeout = '7s'")
        with closing(kind_of(address).open_admin(address, LEDGER.name)) as admin:
            admin.pause("a look", NOW)
            assert admin.state().lease
        shown = [other.execute(f"SHOW {name}").fetchone() for name in ("synchronous_commit", "lock_timeout")]
        assert shown == [("off",), ("7s",)]


@pytest.mark.parametrize("pooled", [*IN_TRANSACTIONS, *IN_SESSIONS], indirect=True)
def test_they_have_the_parameters_of_their_address_though_a_pooler_passes_none_on(pooled: str) -> None:
    """Without them an operator would look into another schema."""
    for schema in ("public", "elsewhere"):
        address = parse_address(f"{pooled}?options=-c%20search_path%3D{schema}")
        with closing(kind_of(address).open_admin(address, LEDGER.name)) as admin:
            if schema == "public":
                assert admin.sequence() == 1
            else:
                with pytest.raises(ConfigurationError, match=r"is not migrated"):
                    admin.sequence()


def test_a_migration_with_parameters_says_so_too(pooled: str) -> None:
    url = f"{pooled}?options=-c%20search_path%3Dpublic"
    with pytest.raises(ConfigurationError, match=r"pooler .* stands between"):
        migrate(LEDGER, DatabaseSettings(database_url=url))
