"""The stores on servers find any number of rows by keys of several columns, and in an index."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import ClassVar

import pytest
from sqlalchemy import text

from coordinator.migrations.migrate import migrate
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.rows import Row, key_of
from coordinator.stores.mysql.statements import MysqlStatements
from coordinator.stores.open import open_store
from coordinator.stores.postgresql.statements import PostgresqlStatements
from coordinator.stores.sql.declared_tables import tables_of
from coordinator.stores.sql.schema import Schema
from tests.support.databases import FreshDatabases, sql_engine
from tests.support.key_contract import KEYED, KeyContract, Line, OpenKeyedStore, Place

SCHEMA = Schema(tables_of(KEYED))
ROWS = 60_000
SOUGHT: dict[type[Row], list[Row]] = {
    Line: [Line(order_id=number * 100, number=number % 20) for number in range(20)],
    Place: [Place(hall=number * 10, seat=f"seat {number}", day=number % 10) for number in range(20)],
}


class _OnServer(KeyContract):
    setting: ClassVar[str]

    @pytest.fixture
    def url(self, databases: FreshDatabases) -> str:
        url = databases.new(self.setting)
        migrate(KEYED, DatabaseSettings(database_url=url))
        return url

    @pytest.fixture
    def open_keyed_store(self, url: str) -> Iterator[OpenKeyedStore]:
        with ExitStack() as opened:
            yield lambda: opened.enter_context(closing(open_store(url, KEYED)))


class TestPostgresKeys(_OnServer):
    setting = "USERS_DATABASE_URL"

    @pytest.mark.parametrize("model", [Line, Place])
    def test_keys_are_searched_for_in_the_index(self, url: str, model: type[Row]) -> None:
        statements = PostgresqlStatements(SCHEMA.of(model))
        rows = SOUGHT[model]
        series = f"generate_series(0, {ROWS - 1}) AS n"
        values = {
            Line: f"SELECT n / 20, n % 20, 0 FROM {series}",
            Place: f"SELECT n / 200, 'seat ' || n % 20, n / 20 % 10, 0 FROM {series}",
        }
        engine = sql_engine(url)
        with engine.connect() as connection:
            connection.execute(text(f"INSERT INTO {model.table} {values[model]}"))
            connection.execute(text(f"ANALYZE {model.table}"))
            asked = [
                statements.by(model.key, [key_of(row) for row in rows]),
                statements.write("update", rows),
                statements.write("delete", rows),
            ]
            for query, arguments in asked:
                written = query.decode()
                for number, argument in enumerate(arguments, 1):
                    quoted = argument.decode().replace("'", "''")
                    written = written.replace(f"${number}", f"'{quoted}'")
                found = connection.exec_driver_sql(f"EXPLAIN {written.replace('%', '%%')}").scalars()
                plan = "\n".join(map(str, found))
                assert f"Index Scan using {model.table}_pkey" in plan, plan
                assert "Seq Scan" not in plan, plan
        engine.dispose()


class TestMysqlKeys(_OnServer):
    setting = "PAYMENTS_DATABASE_URL"

    @pytest.mark.parametrize("model", [Line, Place])
    def test_keys_are_searched_for_in_the_index(self, url: str, model: type[Row]) -> None:
        statements = MysqlStatements(SCHEMA.of(model))
        rows = SOUGHT[model]
        digits = "(SELECT 0 AS d UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5 UNION "
        digits += "SELECT 6 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9)"
        places = [f"{digits} AS d{place}" for place in range(5)]
        number = " + ".join(f"d{place}.d * {10**place}" for place in range(5))
        series = f"(SELECT {number} AS n FROM {' JOIN '.join(places)}) AS numbers WHERE n < {ROWS}"
        values = {
            Line: f"SELECT n DIV 20, n % 20, 0 FROM {series}",
            Place: f"SELECT n DIV 200, CONCAT('seat ', n % 20), n DIV 20 % 10, 0 FROM {series}",
        }
        engine = sql_engine(url)
        with engine.connect() as connection:
            connection.exec_driver_sql(f"INSERT INTO `{model.table}` {values[model]}".replace("%", "%%"))
            connection.exec_driver_sql(f"ANALYZE TABLE `{model.table}`")
            asked = [
                *statements.by(model.key, [key_of(row) for row in rows]),
                *statements.write("update", rows),
                *statements.write("delete", rows),
            ]
            for query in asked:
                found = connection.exec_driver_sql(f"EXPLAIN FORMAT=TRADITIONAL {query.replace('%', '%%')}").mappings()
                plan = [(each["table"], each["type"], each["key"]) for each in found]
                of_table = [(how, key) for table, how, key in plan if table in (model.table, "existing")]
                assert of_table, plan
                assert all(how in ("range", "eq_ref", "const", "ref") and key for how, key in of_table), plan
        engine.dispose()


class TestMongoKeys(_OnServer):
    setting = "ITEMS_DATABASE_URL"
    # What stands in for MongoDB takes half a minute for 2,000.
    keys = 250

    @pytest.fixture(autouse=True)
    def _asked_in_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("coordinator.stores.mongodb.store.VALUES_MAX", 100)
