"""Handlers ask: rows by the columns of an index, as they are at that command."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from coordinator.stores.memory import MemoryDatabase, MemoryStore
from coordinator.stores.sqlite.store import SqliteStore, create_schema
from tests.support.selection_contract import SELECTING, OpenSelectionStore, SelectionContract


class TestMemorySelections(SelectionContract):
    @pytest.fixture
    def open_selection_store(self) -> OpenSelectionStore:
        database = MemoryDatabase()
        return lambda: MemoryStore(database)


class TestSqliteSelections(SelectionContract):
    @pytest.fixture
    def open_selection_store(self, tmp_path: Path) -> Iterator[OpenSelectionStore]:
        path = str(tmp_path / "selecting.db")
        create_schema(path, SELECTING)
        with ExitStack() as opened:
            yield lambda: opened.enter_context(closing(SqliteStore(path, SELECTING)))
