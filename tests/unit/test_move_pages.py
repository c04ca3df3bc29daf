"""All rows of a table are read page by page, but those that cannot be read, each of which is told by its key."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from coordinator.operate import move_pages
from coordinator.operate.move_pages import pages
from coordinator.service.rows import Key, Row, key_of
from coordinator.service.service import Service
from coordinator.stores.port import RowFault, Store
from coordinator.stores.sqlite.store import SqliteStore, create_schema

HALL = Service("hall")


@HALL.row
class Place(Row, table="places", key=("line", "seat")):
    """Its key is in another order than its fields."""

    seat: int
    line: int
    price: int


@pytest.mark.timeout(30)
def test_rows_behind_one_that_cannot_be_read_are_read_once(tmp_path: Path) -> None:
    path = tmp_path / "hall.db"
    create_schema(str(path), HALL)
    keys = [(line, seat) for line in range(5, 8) for seat in range(4)]
    with closing(sqlite3.connect(path)) as connection:
        rows = [(line, seat, "dear" if (line, seat) in ((6, 0), (7, 3)) else 10) for line, seat in keys]
        connection.executemany("INSERT INTO places (line, seat, price) VALUES (?, ?, ?)", rows)
        connection.commit()
    passed_over: dict[Key, str] = {}

    def pass_over(key: Key, fault: RowFault) -> None:
        assert key not in passed_over, "it is told once"
        passed_over[key] = str(fault)

    with closing(SqliteStore(str(path), HALL)) as store:
        read = [key_of(row) for page in pages(store, Place, pass_over=pass_over) for row in page]
    assert read == [key for key in keys if key not in ((6, 0), (7, 3))]
    assert list(passed_over) == [(6, 0), (7, 3)]
    assert "the row (6, 0) of places" in passed_over[6, 0]


def test_pages_are_whole_again_behind_a_row_that_was_mended_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, calls, faults = tmp_path / "hall.db", [0], [0]
    create_schema(str(path), HALL)
    in_transaction = move_pages.in_transaction

    def mended(store: Store, work: Any) -> Any:
        calls[0] += 1
        try:
            return in_transaction(store, work)
        except RowFault:
            faults[0] += 1
            if faults[0] == 8:
                connection.execute("UPDATE places SET price = 10")
                connection.commit()
            raise

    monkeypatch.setattr(move_pages, "in_transaction", mended)
    with closing(sqlite3.connect(path)) as connection, closing(SqliteStore(str(path), HALL)) as store:
        rows = [(1, seat, "dear" if seat == 0 else 10) for seat in range(2000)]
        connection.executemany("INSERT INTO places (line, seat, price) VALUES (?, ?, ?)", rows)
        connection.commit()
        assert sum(map(len, pages(store, Place, pass_over=lambda key, fault: None))) == len(rows)
    assert calls[0] < 30
