"""Foreign keys on SQLite: enforced, and no hindrance to commands that are valid one after the other."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from coordinator.stores.port import Store
from coordinator.stores.sqlite.store import SqliteStore, create_schema
from tests.support.reference_contract import REFERRING, OpenReferringStore, ReferenceContract


class TestSqliteReferences(ReferenceContract):
    @pytest.fixture
    def open_referring_store(self, tmp_path: Path) -> Iterator[OpenReferringStore]:
        path = str(tmp_path / "referring.db")
        create_schema(path, REFERRING)
        with ExitStack() as opened:

            def open_one() -> Store:
                store = opened.enter_context(closing(SqliteStore(path, REFERRING)))
                store.check(REFERRING.models, must_sync=False)
                return store

            yield open_one
