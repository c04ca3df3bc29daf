"""The stores that need no server find any number of rows by keys of several columns."""

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from coordinator.service.rows import Row
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from coordinator.stores.mysql.statements import KEYS_MAX, MysqlStatements
from coordinator.stores.port import Read
from coordinator.stores.sql.declared_tables import tables_of
from coordinator.stores.sql.schema import Schema
from coordinator.stores.sqlite import store as sqlite_store
from coordinator.stores.sqlite.store import SqliteStore, create_schema
from tests.support.key_contract import KEYED, KeyContract, Line, OpenKeyedStore, Place


class TestMemoryKeys(KeyContract):
    @pytest.fixture
    def open_keyed_store(self) -> OpenKeyedStore:
        database = MemoryDatabase()
        return lambda: MemoryStore(database)


class TestSqliteKeys(KeyContract):
    @pytest.fixture
    def path(self, tmp_path: Path) -> str:
        path = str(tmp_path / "keyed.db")
        create_schema(path, KEYED)
        return path

    @pytest.fixture
    def open_keyed_store(self, path: str) -> Iterator[OpenKeyedStore]:
        with ExitStack() as opened:
            yield lambda: opened.enter_context(closing(SqliteStore(path, KEYED)))

    @pytest.mark.parametrize(("model", "key"), [(Line, (1, 2)), (Place, (1, "a", 2))])
    def test_keys_are_searched_for_in_the_index(self, path: str, model: type[Row], key: tuple[int | str, ...]) -> None:
        queries: list[str] = []
        with closing(SqliteStore(path, KEYED)) as store:
            store.connection().set_trace_callback(queries.append)
            transaction = store.begin()
            transaction.load([Read(model, model.key, [key] * 20)])
            transaction.rollback()
        (query,) = [query for query in queries if model.table in query]
        with closing(sqlite3.connect(path)) as connection:
            plan = [detail for *_, detail in connection.execute(f"EXPLAIN QUERY PLAN {query}")]
        of_table = [detail for detail in plan if detail.split()[1:2] == [model.table]]
        assert len(of_table) == 1, plan
        assert of_table[0].startswith("SEARCH"), plan
        assert all(f"{name}=?" in of_table[0] for name in model.key), plan

    def test_a_statement_has_no_more_arguments_than_sqlite_takes(
        self, open_keyed_store: OpenKeyedStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sqlite_store, "VARIABLES_MAX", 100)
        store = open_keyed_store()
        assert isinstance(store, SqliteStore)
        store.connection().setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 100)
        transaction = store.begin()
        keys = [(number, f"{number}", number) for number in range(1000)]
        assert transaction.load([Read(Place, Place.key, keys), Read(Place, "hall", range(1000))]) == [[], []]
        transaction.rollback()


def test_a_statement_on_mysql_has_no_more_keys_than_its_server_plans_in_time() -> None:
    statements = MysqlStatements(Schema(tables_of(KEYED)).of(Line))
    lines = [Line(order_id=number, number=number) for number in range(1000)]
    for queries in (
        statements.by(Line.key, [(line.order_id, line.number) for line in lines]),
        statements.delete(lines),
    ):
        counts = [query.count("`order_id` = ") for query in queries]
        assert sum(counts) == len(lines)
        # A server's time for a plan grows with the square of them: 200 take 3 ms, and 20,000 the time limit.
        assert max(counts) <= KEYS_MAX <= 200
