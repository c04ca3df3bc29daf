"""The stores that need no server keep the contract of all stores."""

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import ClassVar

import pytest

from coordinator.runtime.addresses import parse_address
from coordinator.service.errors import ConfigurationError
from coordinator.service.service import Service
from coordinator.stores.kinds import kind_of
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from coordinator.stores.open import open_store
from coordinator.stores.port import LOOKS, Refusal, Store, StoreUnavailable
from coordinator.stores.sqlite.store import SqliteStore, create_schema
from tests.support.admin_contract import AdminContract, OpenAdmin
from tests.support.ledger import LEDGER
from tests.support.store_contract import (
    NOW,
    EncodingContract,
    OpenStore,
    StoreContract,
    account,
    accounts,
    changes,
    commit,
)


class TestMemoryStore(StoreContract):
    has_check_constraints: ClassVar[bool] = False
    has_lengths: ClassVar[bool] = False

    @pytest.fixture
    def open_store(self) -> OpenStore:
        database = MemoryDatabase()
        return lambda: MemoryStore(database)

    def test_a_value_that_the_database_cannot_hold_is_the_batch_s_fault(self, open_store: OpenStore) -> None:
        """Memory holds anything."""


class TestSqliteStore(StoreContract, EncodingContract, AdminContract):
    has_lengths: ClassVar[bool] = False

    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Iterator[OpenStore]:
        path = str(tmp_path / "ledger.db")
        create_schema(path, LEDGER)
        opened: list[Store] = []

        def open_one() -> Store:
            opened.append(SqliteStore(path, LEDGER))
            return opened[-1]

        yield open_one
        for store in opened:
            store.close()

    @pytest.fixture
    def address(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/ledger.db"

    @pytest.fixture
    def open_admin(self, address: str) -> Iterator[OpenAdmin]:
        parsed = parse_address(address)
        with ExitStack() as opened:
            yield lambda lane: opened.enter_context(closing(kind_of(parsed).open_admin(parsed, lane)))

    def test_there_is_no_other_clock_than_this_machine_s(self, open_store: OpenStore, open_admin: OpenAdmin) -> None:
        open_store().take_over("holder", NOW)
        assert open_admin("ledger").clock() is None

    def test_the_schema_is_checked(self, open_store: OpenStore, tmp_path: Path) -> None:
        open_store().check(LEDGER.models)
        (tmp_path / "empty.db").touch()
        empty = SqliteStore(str(tmp_path / "empty.db"), LEDGER)
        with pytest.raises(ConfigurationError, match=r"accounts.*LEDGER_DATABASE_URL.*coordinator migrate"):
            empty.check(LEDGER.models)
        empty.close()

    def test_a_database_serves_one_lane_only(self, open_store: OpenStore, tmp_path: Path) -> None:
        open_store().take_over("holder", NOW)
        other = SqliteStore(str(tmp_path / "ledger.db"), Service(name="other", models=(), handlers=()))
        with pytest.raises(ConfigurationError, match="OTHER_DATABASE_URL is that of lane ledger"):
            other.check(())
        for use in (lambda: other.take_over("holder", NOW), other.current, other.look):
            with pytest.raises(StoreUnavailable, match="OTHER_DATABASE_URL is that of lane ledger"):
                use()
        other.close()
        open_store().check(LEDGER.models)

    @pytest.mark.parametrize(
        "body",
        [
            "SELECT RAISE(IGNORE);",
            "SELECT RAISE(ABORT, 'no');",
            "INSERT INTO audit (version) VALUES (1);",
            "INSERT INTO audit SELECT version FROM audit;",
            "INSERT INTO no_such_table VALUES (1);",
        ],
    )
    def test_what_a_trigger_drops_or_breaks_on_is_no_outage(
        self, open_store: OpenStore, tmp_path: Path, body: str
    ) -> None:
        _execute(
            tmp_path,
            "CREATE TABLE audit (line TEXT)",
            f"CREATE TRIGGER refuse BEFORE INSERT ON accounts WHEN NEW.owner = 'forbidden' BEGIN {body} END",
        )
        store = open_store()
        lease = store.take_over("holder", NOW)
        with pytest.raises(Refusal):
            commit(store, lease, changes(inserts=[account(1), account(2, "forbidden")]))
        # SQLite looks at the whole trigger for every row, also at what it need not do.
        _execute(tmp_path, "DROP TRIGGER refuse")
        commit(store, lease, changes(inserts=[account(1)]))
        assert [row.id for row in accounts(store, 1, 2)] == [1]

    def test_a_column_that_is_really_missing_is_an_outage(self, open_store: OpenStore, tmp_path: Path) -> None:
        store = open_store()
        lease = store.take_over("holder", NOW)
        _execute(tmp_path, "ALTER TABLE accounts RENAME COLUMN note TO away")
        with pytest.raises(StoreUnavailable, match="migrate"):
            commit(store, lease, changes(inserts=[account(1)]))

    def test_a_look_finds_what_a_write_would_meet(self, open_store: OpenStore, tmp_path: Path) -> None:
        store = open_store()
        store.take_over("holder", NOW)

        def seen() -> list[str]:
            found = []
            for _ in range(LOOKS):
                try:
                    store.look()
                except StoreUnavailable as error:
                    found.append(str(error))
            return found

        assert seen() == []
        for table in ("accounts", "outbox"):
            _execute(tmp_path, f"ALTER TABLE {table} RENAME TO away")
            assert all(table in text and "coordinator migrate" in text for text in seen() or [""])
            _execute(tmp_path, f"ALTER TABLE away RENAME TO {table}")
            assert seen() == []
        path = tmp_path / "ledger.db"
        path.rename(tmp_path / "away.db")
        found = seen()
        assert f"{path} cannot be written" in found[0]
        assert len(found) == LOOKS


def _execute(tmp_path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.mark.parametrize(
    "address",
    ["sqlite:///seats.db", "mysql://u:p@127.0.0.1/seats", "mariadb://u:p@127.0.0.1/seats", "mongodb://u:p@h/a"],
)
def test_a_database_that_cannot_be_made_to_wait_for_a_standby_is_refused_where_one_is_needed(address: str) -> None:
    scheme = parse_address(address).scheme
    with pytest.raises(ConfigurationError, match=f"LANE_REQUIRE_SYNC_STANDBY is for PostgreSQL: .*{scheme}://"):
        open_store(address, LEDGER, needs_standby=True)
