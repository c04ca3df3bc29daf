"""The stores that need no server keep the contract of all stores."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from coordinator.stores.memory import MemoryDatabase, MemoryStore
from coordinator.stores.port import Store
from coordinator.stores.sqlite import SqliteStore, create_schema
from tests.support.ledger import LEDGER
from tests.support.store_contract import EncodingContract, OpenStore, StoreContract


class TestMemoryStore(StoreContract):
    has_check_constraints: ClassVar[bool] = False
    has_lengths: ClassVar[bool] = False

    @pytest.fixture
    def open_store(self) -> OpenStore:
        database = MemoryDatabase()
        return lambda: MemoryStore(database)

    def test_a_value_that_the_database_cannot_hold_is_the_batch_s_fault(self, open_store: OpenStore) -> None:
        """Memory holds anything."""


class TestSqliteStore(StoreContract, EncodingContract):
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
