"""What a copy of a lane's rows takes for a difference."""

from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import text

from coordinator.migrations.migrate import migrate
from coordinator.operate.move_copy import MoveCopy
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.rows import Row
from coordinator.service.service import Service
from coordinator.stores.port import Changes, Read, Store
from coordinator.writing import open_store
from tests.support.databases import sql_engine
from tests.support.store_contract import NOW, commit

FLAGS = Service("flags")


@FLAGS.row
class Flag(Row, table="flags", key="name"):
    name: str
    value: dict[str, Any]


STAYS = Service("stays")


@STAYS.row
class Stay(Row, table="stays", key="id"):
    id: int
    paid_at: datetime


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[tuple[Store, Store]]:
    urls = [f"sqlite:///{tmp_path / name}.db" for name in ("here", "there")]
    for url in urls:
        migrate(FLAGS, DatabaseSettings(database_url=url))
    here, there = (open_store(url, FLAGS) for url in urls)
    yield here, there
    here.close()
    there.close()


@pytest.mark.parametrize(
    ("before", "after"),
    [('{"on":1}', '{"on":true}'), ('{"on":1}', '{"on":1.0}'), ('{"on":[0,{"a":0}]}', '{"on":[0,{"a":false}]}')],
)
def test_json_that_python_calls_equal_is_a_difference(stores: tuple[Store, Store], before: str, after: str) -> None:
    here, there = stores
    copy = copied(here, there, before)
    write(here, after, is_new=False)
    compared = copy.compare(Flag)
    assert compared.different == {"a"}
    assert compared.here.digest != compared.there.digest
    assert copy.differing({Flag: {"a"}}) == {Flag: {"a"}}
    assert copy.bring({Flag: {"a"}})
    assert written(there) == after
    assert copy.differing({Flag: {"a"}}) == {}


def test_another_order_of_keys_is_brought(stores: tuple[Store, Store]) -> None:
    """It is no difference for whoever compares: a database's own type for JSON has an order of its own."""
    here, there = stores
    copy = copied(here, there, '{"x":1,"y":2}')
    write(here, '{"y":2,"x":1}', is_new=False)
    assert copy.compare(Flag).different == frozenset()
    assert copy.bring({Flag: {"a"}})
    assert written(there) == '{"y":2,"x":1}'
    assert not copy.bring({Flag: {"a"}})


def test_a_time_that_was_cut_there_is_a_difference(tmp_path: Path) -> None:
    """Rows of before the lane may have microseconds, and some databases keep fewer digits of a second."""
    urls = [f"sqlite:///{tmp_path / name}.db" for name in ("here", "there")]
    for url in urls:
        migrate(STAYS, DatabaseSettings(database_url=url))
    whole, finer = Stay(id=1, paid_at=NOW), Stay(id=2, paid_at=NOW.replace(microsecond=123456))
    here, there = (open_store(url, STAYS) for url in urls)
    with closing(here), closing(there):
        commit(here, here.take_over("lane", NOW), Changes([], [], [[whole, finer]]))
        copy = MoveCopy(STAYS, here, there)
        copy.lease = there.take_over("move", NOW, 0)
        copy.copy(Stay, lambda _: None, is_new=True)
        assert not copy.compare(Stay).different
        engine = sql_engine(urls[1])
        with engine.begin() as connection:
            connection.execute(text("UPDATE stays SET paid_at = replace(paid_at, '.123456', '.123000') WHERE id = 2"))
        engine.dispose()
        compared = copy.compare(Stay)
        assert compared.different == {2}
        assert compared.here.digest != compared.there.digest
        assert copy.differing({Stay: {1, 2}}) == {Stay: {2}}
        assert copy.bring({Stay: {1, 2}})
        assert not copy.compare(Stay).different


def copied(here: Store, there: Store, value: str) -> MoveCopy:
    write(here, value, is_new=True)
    copy = MoveCopy(FLAGS, here, there)
    copy.lease = there.take_over("move", NOW, 0)
    copy.copy(Flag, lambda _: None, is_new=True)
    return copy


def write(store: Store, value: str, *, is_new: bool) -> None:
    rows = [Flag(name="a", value=msgspec.json.decode(value))]
    lease = store.take_over("lane", NOW, 0)
    transaction = store.begin()
    transaction.commit(lease, lease.sequence, Changes([], [], [rows]) if is_new else Changes([], [rows], []))


def written(store: Store) -> str:
    transaction = store.begin()
    try:
        ((row,),) = transaction.load([Read(Flag, "name", ["a"])])
    finally:
        transaction.rollback()
    return msgspec.json.encode(row.value).decode()
