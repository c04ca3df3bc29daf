"""Tables that refer to each other: rows are written in the order of their classes, whatever a handler touches first."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import ClassVar

import pytest
from msgspec import Struct
from sqlalchemy import Engine, text

from coordinator import Command, Id, Row, Service, UnitOfWork
from coordinator.migrations.migrate import migrate
from coordinator.runtime.settings import DatabaseSettings
from coordinator.stores.lane_tables import metadata as lane_metadata
from coordinator.stores.open import open_store
from coordinator.stores.port import Store
from coordinator.testing import LaneUnderTest
from coordinator.testing.database import lane_on_database, prepare
from docs.examples.bank import models
from tests.support.databases import FreshDatabases, sql_engine
from tests.support.reference_contract import REFERRING, OpenReferringStore, ReferenceContract, metadata
from tests.support.servers import Environment

bank = Service("bank")


@bank.row
class Account(Row, table=models.Account, key="id"):
    id: int
    owner: str
    email: str
    balance_cents: int = 0
    entries: int = 0


@bank.row
class Entry(Row, table=models.Entry, key=("account_id", "number")):
    account_id: int
    number: int
    amount_cents: int


class Open(Command, type="bank.open"):
    """Open an account with an entry; nothing of it is there yet, and the entry is looked for first."""

    id: Id


class Close(Command, type="bank.close"):
    """Remove an account with its entries; the account is looked for first."""

    id: Id


class Closed(Struct, frozen=True):
    entries: int


@bank.handles(Open, target=lambda command: Entry.at(command.id, 1))
def open_account(work: UnitOfWork, command: Open) -> Entry:
    work.add(Account(id=command.id, owner="Ada", email=f"{command.id}@example.org"))
    return work.add(Entry(account_id=command.id, number=1, amount_cents=1))


@bank.handles(Close, target=lambda command: Account.at(command.id))
def close_account(work: UnitOfWork, command: Close) -> Closed:
    account = work.get(Account, command.id)
    assert account is not None
    work.remove(account)
    entries = work.select(Entry, account_id=command.id, limit=9)
    for entry in entries:
        work.remove(entry)
    return Closed(len(entries))


@pytest.fixture(params=["USERS_DATABASE_URL", "PAYMENTS_DATABASE_URL"], ids=["PostgreSQL", "MySQL"])
def lane(request: pytest.FixtureRequest, databases: FreshDatabases) -> Iterator[LaneUnderTest]:
    url = databases.new(request.param)
    engine = sql_engine(url)
    models.Base.metadata.create_all(engine)
    engine.dispose()
    prepare(bank, url, may_have_rows=False)
    with lane_on_database(bank, url) as lane:
        yield lane


def test_rows_are_there_before_those_that_refer_to_them_and_go_after_them(lane: LaneUnderTest) -> None:
    for key in (7, 8):
        opened = lane.apply(Open(id=key))
        assert opened.applied, opened.reason
    closed = lane.apply(Close(id=7))
    assert closed.applied, closed.reason
    assert closed.result(Closed) == Closed(entries=1)
    assert [account.id for account in lane.rows(Account)] == [8]
    assert [(entry.account_id, entry.number) for entry in lane.rows(Entry)] == [(8, 1)]


class _OnServer(ReferenceContract):
    setting: ClassVar[str]

    url: ClassVar[str]

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, server_environment: Environment, administrators: Environment) -> Iterator[Engine]:
        """One migrated database for all tests, since making the tables costs more than most of the tests."""
        made = FreshDatabases(server_environment, administrators)
        cls.url = made.new(cls.setting)
        engine = sql_engine(cls.url)
        metadata.create_all(engine)
        migrate(REFERRING, DatabaseSettings(database_url=cls.url))
        yield engine
        engine.dispose()
        made.drop()

    @pytest.fixture
    def open_referring_store(self, engine: Engine) -> Iterator[OpenReferringStore]:
        with engine.connect() as connection:
            for table, column in (("teams", "captain_id"), ("parts", "whole_id")):
                connection.execute(metadata.tables[table].update().values({column: None}))
            for table in (*reversed(metadata.sorted_tables), *lane_metadata.sorted_tables):
                connection.execute(table.delete())
        with ExitStack() as opened:

            def open_one() -> Store:
                store = opened.enter_context(closing(open_store(self.url, REFERRING)))
                store.check(REFERRING.models, must_sync=False)
                return store

            yield open_one


class TestPostgresReferences(_OnServer):
    setting = "USERS_DATABASE_URL"

    def test_what_is_checked_at_the_commit_is_the_fault_of_its_command(
        self, engine: Engine, open_referring_store: OpenReferringStore
    ) -> None:
        alter = "ALTER TABLE orders ALTER CONSTRAINT orders_customer_id_fkey"
        with engine.connect() as connection:
            connection.execute(text(f"{alter} DEFERRABLE INITIALLY DEFERRED"))
            try:
                self.check_what_is_deferred(open_referring_store())
            finally:
                connection.execute(text(f"{alter} NOT DEFERRABLE"))


class TestMysqlReferences(_OnServer):
    setting = "PAYMENTS_DATABASE_URL"
