"""What a copy of a lane's rows takes for a difference."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from coordinator.migrations.migrate import migrate
from coordinator.operate.move_copy import MoveCopy
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.rows import Row
from coordinator.service.service import Service
from coordinator.stores.port import Changes, Read, Store
from coordinator.writing import open_store
from tests.support.store_contract import NOW

FLAGS = Service("flags")


@FLAGS.row
class Flag(Row, table="flags", key="name"):
    name: str
    value: dict[str, Any]


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
