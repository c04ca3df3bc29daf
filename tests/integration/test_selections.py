"""Selections on real servers see what a naive model sees, and what cannot serve them is refused at start."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import ClassVar

import pytest
from sqlalchemy import text

from coordinator.migrations.migrate import migrate
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.errors import ConfigurationError
from coordinator.stores.open import open_store
from tests.support.databases import FreshDatabases, sql_engine
from tests.support.mongodb_rights import READ_WRITE, permitted
from tests.support.selection_contract import SELECTING, OpenSelectionStore, SelectionContract


def _run(url: str, *statements: str) -> None:
    engine = sql_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


class _OnServer(SelectionContract):
    setting: ClassVar[str]

    @pytest.fixture
    def url(self, databases: FreshDatabases) -> str:
        url = databases.new(self.setting)
        migrate(SELECTING, DatabaseSettings(database_url=url))
        return url

    @pytest.fixture
    def open_selection_store(self, url: str) -> Iterator[OpenSelectionStore]:
        with ExitStack() as opened:
            yield lambda: opened.enter_context(closing(open_store(url, SELECTING)))

    def check(self, url: str) -> None:
        with closing(open_store(url, SELECTING)) as store:
            store.check(SELECTING.models, must_sync=False)


class _OnSql(_OnServer):
    drop: ClassVar[str]
    table: ClassVar[str] = '"lines"'

    def test_a_start_and_a_migration_name_the_indexes_that_are_missing(self, url: str) -> None:
        names = ("lines_order_id_index", "lines_status_day_index")
        _run(url, *(self.drop.format(name) for name in names))
        # None has a row that others would wait for.
        migrate(SELECTING, DatabaseSettings(database_url=url))
        self.check(url)
        _run(url, *(self.drop.format(name) for name in names))
        _run(url, f"INSERT INTO {self.table} (id, order_id, status, notes) VALUES (1, 1, 'open', '[]')")
        wanted = (
            r"CREATE INDEX .lines_order_id_index. ON .lines. \(.order_id., .id.\); "
            r"CREATE INDEX .lines_status_day_index. ON .lines. \(.status., .day., .id.\);$"
        )
        with pytest.raises(ConfigurationError, match=f"SELECTING_DATABASE_URL.* {wanted}"):
            self.check(url)
        with pytest.raises(ConfigurationError, match=f"selecting: .* {wanted}"):
            migrate(SELECTING, DatabaseSettings(database_url=url))
        # Another name, another order behind the columns, and more of them serve as well.
        _run(
            url,
            *(
                f"CREATE INDEX {index}"
                for index in (f"mine ON {self.table} (order_id, status)", f"more ON {self.table} (status, day)")
            ),
        )
        self.check(url)
        migrate(SELECTING, DatabaseSettings(database_url=url))


class TestPostgresSelections(_OnSql):
    setting = "USERS_DATABASE_URL"
    drop = "DROP INDEX {}"

    @pytest.mark.parametrize(
        ("statement", "column", "words"),
        [
            ('ALTER TABLE tickets ALTER COLUMN name TYPE text COLLATE "en-x-icu"', "name", "the order of"),
            ("ALTER TABLE lines ALTER COLUMN holder TYPE text COLLATE same", "holder", "take different texts for one"),
        ],
    )
    def test_a_text_that_is_compared_otherwise_is_refused(
        self, url: str, statement: str, column: str, words: str
    ) -> None:
        _run(
            url, "CREATE COLLATION same (provider = icu, locale = 'und-u-ks-level1', deterministic = false)", statement
        )
        with pytest.raises(
            ConfigurationError, match=rf"SELECTING_DATABASE_URL(?s:.*)\.{column} has .*{words}.*ALTER TABLE"
        ) as caught:
            self.check(url)
        _run(url, str(caught.value).rpartition(": ")[2])
        self.check(url)

    def test_a_partial_index_serves_no_selection(self, url: str) -> None:
        _run(url, "DROP INDEX lines_order_id_index", "CREATE INDEX part ON lines (order_id) WHERE order_id > 1")
        with pytest.raises(ConfigurationError, match="lines_order_id_index"):
            self.check(url)


class TestMysqlSelections(_OnSql):
    setting = "PAYMENTS_DATABASE_URL"
    drop = "DROP INDEX {} ON `lines`"
    table = "`lines`"

    def test_a_text_that_is_compared_otherwise_is_refused(self, url: str) -> None:
        _run(url, "ALTER TABLE `lines` MODIFY holder VARCHAR(255) COLLATE utf8mb4_general_ci")
        with pytest.raises(
            ConfigurationError, match=r"lines: holder with the collation utf8mb4_general_ci.*ALTER TABLE"
        ):
            self.check(url)


class TestMongoSelections(_OnServer):
    setting = "ITEMS_DATABASE_URL"

    @pytest.fixture(autouse=True)
    def _all_is_permitted(self) -> Iterator[None]:
        with permitted(READ_WRITE):
            yield
