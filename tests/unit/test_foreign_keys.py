"""Foreign keys on SQLite: enforced, and no hindrance to commands that are valid one after the other."""

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from coordinator.service.errors import ConfigurationError
from coordinator.stores.port import Store
from coordinator.stores.sqlite.store import SqliteStore, create_schema
from coordinator.testing.database import lane_on_database, prepare
from tests.support.databases import sql_engine
from tests.support.reference_contract import (
    ADA,
    BOB,
    OF_ADA,
    OF_BOB,
    REFERRING,
    Customer,
    OpenReferringStore,
    Order,
    ReferenceContract,
    Referring,
    Write,
    add,
    metadata,
    remove,
    save,
)

ORDERS = (
    "DROP TABLE orders; CREATE TABLE orders (id BIGINT PRIMARY KEY, customer_id BIGINT REFERENCES {}, "
    "region VARCHAR(20), note VARCHAR(20));"
)


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = str(tmp_path / "referring.db")
    create_schema(path, REFERRING)
    return path


@pytest.fixture
def open_referring_store(path: str) -> Iterator[OpenReferringStore]:
    with ExitStack() as opened:

        def open_one() -> Store:
            store = opened.enter_context(closing(SqliteStore(path, REFERRING)))
            store.check(REFERRING.models, must_sync=False)
            return store

        yield open_one


def _orders_refer_to(path: str, what: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(ORDERS.format(what))


class TestSqliteReferences(ReferenceContract):
    def test_what_is_checked_at_the_commit_is_the_fault_of_its_command(
        self, path: str, open_referring_store: OpenReferringStore
    ) -> None:
        _orders_refer_to(path, "customers (id) DEFERRABLE INITIALLY DEFERRED")
        self.check_what_is_deferred(open_referring_store())

    @pytest.mark.parametrize("what", ["customers (note)", "nowhere (id)"])
    def test_a_foreign_key_that_refuses_every_write_is_found_at_the_start(
        self, path: str, open_referring_store: OpenReferringStore, what: str
    ) -> None:
        _orders_refer_to(path, what)
        with pytest.raises(ConfigurationError, match=r"foreign key of table orders.*REFERRING_DATABASE_URL"):
            open_referring_store()

    def test_a_reference_that_somebody_else_broke_is_the_fault_of_commands_that_change_its_row(
        self, path: str, open_referring_store: OpenReferringStore
    ) -> None:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("INSERT INTO orders (id, customer_id) VALUES (5, 99)")
            connection.commit()
        lane = Referring(open_referring_store())
        outcomes = lane.batch([add(ADA)], [save(Order(id=5, customer_id=99, note="x"))], [add(OF_ADA)])
        assert outcomes == ["applied", "database_refused", "applied"]
        assert lane.batch([save(Order(id=5, customer_id=1))]) == ["applied"]


def test_the_database_of_a_test_is_emptied_whatever_refers_to_what(tmp_path: Path) -> None:
    # Declared the wrong way around: the table that is referred to is the first to be emptied.
    assert REFERRING.models.index(Order) < REFERRING.models.index(Customer)
    url = f"sqlite:///{tmp_path}/test.db"
    engine = sql_engine(url)
    metadata.create_all(engine)
    engine.dispose()
    prepare(REFERRING, url, may_have_rows=False)
    with lane_on_database(REFERRING, url) as lane:
        assert lane.apply(Write(steps=[add(OF_ADA), add(ADA)])).applied
        assert lane.apply(Write(steps=[remove(ADA), save(OF_BOB), add(BOB)])).applied
        assert lane.rows(Order) == [OF_BOB]
    with lane_on_database(REFERRING, url) as lane:
        assert [*lane.rows(Order), *lane.rows(Customer)] == []
