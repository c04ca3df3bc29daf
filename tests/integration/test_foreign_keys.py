"""Tables that refer to each other: rows are written in the order of their classes, whatever a handler touches first."""

from collections.abc import Iterator

import pytest
from msgspec import Struct

from coordinator import Command, Id, Row, Service, UnitOfWork
from coordinator.testing import LaneUnderTest
from coordinator.testing.database import lane_on_database, prepare
from docs.examples.bank import models
from tests.support.databases import FreshDatabases, sql_engine

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
