"""Batches that read, change and remove very many rows, by keys of one column and of several."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from coordinator import Command, Row, Service, UnitOfWork
from coordinator.migrations.migrate import migrate
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.rows import key_of
from coordinator.stores.open import open_store
from coordinator.stores.port import Changes, Read, Store
from coordinator.stores.sqlite import store as sqlite_store
from tests.support.databases import FreshDatabases
from tests.support.mongodb_rights import READ_WRITE, permitted
from tests.support.store_contract import commit

ROWS = 20_000
WITHIN_S = 20.0
"""For each step. On MySQL and MariaDB one list of so many keys takes longer than a connection waits (30 s)."""

manykeys = Service("manykeys")


# Named as our statements name what they are given.
@manykeys.row
class Given(Row, table="given", key=("one", "other")):
    one: int
    other: int
    amount: int


@manykeys.row
class Written(Row, table="written", key=("one", "other", "third")):
    one: int
    other: int
    third: str


@manykeys.row
class Existing(Row, table="existing", key="id"):
    id: int
    amount: int


class Nothing(Command, type="manykeys.nothing"):
    id: int


@manykeys.handles(Nothing, target=lambda command: Existing.at(command.id))
def nothing(work: UnitOfWork, command: Nothing) -> None: ...


ROWS_OF: dict[type[Row], Callable[[int], Row]] = {
    Given: lambda number: Given(one=number // 7, other=number, amount=0),
    Written: lambda number: Written(one=number // 7, other=number % 7, third=f"t{number}"),
    Existing: lambda number: Existing(id=number, amount=0),
}


@pytest.fixture(params=["USERS", "PAYMENTS", "ITEMS", "sqlite"])
def place(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def rows_max(place: str) -> int:
    """What stands in for MongoDB here takes half a minute for 2,000."""
    return 200 if place == "ITEMS" else ROWS


@pytest.fixture
def store(place: str, databases: FreshDatabases, tmp_path: Path) -> Iterator[Store]:
    url = f"sqlite:///{tmp_path}/many.db"
    if place != "sqlite":
        url = databases.new(f"{place}_DATABASE_URL")
    with permitted(READ_WRITE):
        migrate(manykeys, DatabaseSettings(database_url=url))
        with closing(open_store(url, manykeys)) as opened:
            yield opened


class Steps:
    """Transactions of a lane, each of which must end in time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lease = store.take_over("a test", datetime.now(UTC))

    def change(self, *, delete: Sequence[Row] = (), update: Sequence[Row] = (), insert: Sequence[Row] = ()) -> None:
        began_s = monotonic()
        changes = Changes(*([each] if each else [] for each in (delete, update, insert)))
        self._lease = commit(self._store, self._lease, changes)
        assert monotonic() - began_s < WITHIN_S

    def read(self, model: type[Row], keys: Sequence[Any]) -> list[Row]:
        began_s = monotonic()
        transaction = self._store.begin()
        (found,) = transaction.load([Read(model, model.key, keys)])
        transaction.rollback()
        assert monotonic() - began_s < WITHIN_S
        return sorted(found, key=key_of)


@pytest.mark.parametrize("model", ROWS_OF)
def test_a_batch_of_very_many_rows_is_settled(store: Store, rows_max: int, model: type[Row]) -> None:
    steps, make = Steps(store), ROWS_OF[model]
    rows = sorted(map(make, range(rows_max)), key=key_of)
    steps.change(insert=rows)
    keys = [key_of(row) for row in rows]
    missing = [key_of(make(number)) for number in range(rows_max, rows_max + 100)]
    # A comparison of so many rows that fails takes minutes to be shown.
    assert (steps.read(model, [*missing, *keys]) == rows) is True
    changed = [row.replace(amount=number) for number, row in enumerate(rows)] if model is not Written else rows
    steps.change(update=changed)
    assert (steps.read(model, keys) == changed) is True
    steps.change(delete=changed[: rows_max // 2])
    assert (steps.read(model, keys) == changed[rows_max // 2 :]) is True


@pytest.mark.parametrize("model", ROWS_OF)
def test_sqlite_searches_its_index_for_each_key(tmp_path: Path, model: type[Row]) -> None:
    url = f"sqlite:///{tmp_path}/many.db"
    migrate(manykeys, DatabaseSettings(database_url=url))
    said: list[str] = []
    with closing(open_store(url, manykeys)) as store:
        transaction = store.begin()
        assert isinstance(transaction, sqlite_store.SqliteTransaction)
        transaction._connection.set_trace_callback(said.append)
        transaction.load([Read(model, model.key, [key_of(ROWS_OF[model](number)) for number in range(20)])])
        transaction.rollback()
    (query,) = (each for each in said if f'"{model.table}"' in each)
    with closing(sqlite3.connect(tmp_path / "many.db")) as connection:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}")]
    assert any(step.startswith(f"SEARCH {model.table} USING") for step in plan), plan
    assert not any(step.startswith(f"SCAN {model.table}") for step in plan), plan
