"""What every store promises of keys of several columns: any number of them, in a time that grows as they do."""

import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar

import pytest
from msgspec import Meta

from coordinator import Row, Service
from coordinator.service.rows import Key, key_of
from coordinator.stores.port import Lease, Read, Store, Transaction
from tests.support.store_contract import NOW, changes, commit

KEYED = Service("keyed")
OpenKeyedStore = Callable[[], Store]
"""Opens one more store of the service `KEYED`, on the test's own database."""
KEYS = 20_000
LONG_S = 60.0
"""Much more than any store needs for one step with `KEYS` rows, and less than what grows faster than they do."""


@KEYED.row
class Line(Row, table="lines", key=("order_id", "number")):
    order_id: int
    number: int
    amount: int = 0


@KEYED.row
class Place(Row, table="places", key=("hall", "seat", "day")):
    hall: int
    seat: Annotated[str, Meta(max_length=40)]
    day: int
    amount: int = 0


# Each statement of a store names some of its parts.
@KEYED.row
class Given(Row, table="given", key=("existing", "given")):
    existing: int
    given: int
    written: int = 0


@KEYED.row
class Existing(Row, table="existing", key=("given", "written")):
    given: int
    written: int
    existing: int = 0


@KEYED.row
class Written(Row, table="written", key="written"):
    written: int
    given: int = 0


@KEYED.row
class Keys(Row, table="keys", key=("keys", "of")):
    keys: int
    of: int
    batch: int = 0


def _row(model: type[Row], number: int, value: int) -> Row:
    if model is Line:
        return Line(order_id=number // 20, number=number % 20, amount=value)
    return Place(hall=number // 200, seat=f"seat {number % 20}", day=number // 20 % 10, amount=value)


def _read(store: Store, model: type[Row], keys: Sequence[Key]) -> list[Any]:
    transaction: Transaction = store.begin()
    try:
        (rows,) = transaction.load([Read(model, model.key, keys)])
        return sorted(rows, key=lambda row: str(key_of(row)))
    finally:
        transaction.rollback()


def _sorted(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: str(key_of(row)))


class KeyContract:
    keys: ClassVar[int] = KEYS

    @pytest.mark.parametrize("model", [Line, Place])
    def test_a_batch_may_have_any_number_of_keys_of_several_columns(
        self, open_keyed_store: OpenKeyedStore, model: type[Row]
    ) -> None:
        store = open_keyed_store()
        lease = store.take_over("holder", NOW)
        first, second = ([_row(model, number, value) for number in range(self.keys)] for value in (1, 2))
        keys = [key_of(row) for row in first]
        began = time.monotonic()

        def settled(lease: Lease, **rows: Sequence[Row]) -> Lease:
            nonlocal began
            after = commit(store, lease, changes(**rows))
            found = _read(store, model, keys)
            took, began = time.monotonic() - began, time.monotonic()
            assert took < LONG_S
            assert found == _sorted(rows.get("inserts") or rows.get("updates") or ())
            return after

        lease = settled(lease, inserts=first)
        lease = settled(lease, updates=second)
        settled(lease, deletes=second)

    @pytest.mark.parametrize("model", [Given, Existing, Written, Keys])
    def test_tables_and_columns_may_have_the_names_that_statements_use(
        self, open_keyed_store: OpenKeyedStore, model: Any
    ) -> None:
        store = open_keyed_store()
        lease = store.take_over("holder", NOW)
        columns = model.__struct_fields__
        rows = [model(**dict.fromkeys(columns, number)) for number in range(3)]
        # The last one is no part of the key.
        changed = [row.replace(**{columns[-1]: 7}) for row in rows]
        keys = [key_of(row) for row in rows]
        lease = commit(store, lease, changes(inserts=rows))
        lease = commit(store, lease, changes(updates=changed[:2]))
        assert _read(store, model, keys) == _sorted([*changed[:2], rows[2]])
        commit(store, lease, changes(deletes=changed[:2]))
        assert _read(store, model, keys) == rows[2:]
