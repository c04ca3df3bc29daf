"""What every store promises of values of every type: they come back exactly, whichever database it is on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any
from uuid import UUID

import msgspec
from hypothesis import HealthCheck, Phase, given, settings

from coordinator.service.rows import Key, Row
from coordinator.stores.port import Read, Store, Transaction
from coordinator.stores.row_checks import RowChecks
from tests.support.store_contract import NOW, changes, commit
from tests.support.values import ROWS, VALUES, Colour, Everything, Required, extremes

OpenValueStore = Callable[[], Store]
"""Opens one more store of the service `VALUES`, on the test's own database."""


FOUND_BY = ("id", "token", "number", "text")


@contextmanager
def reading(store: Store) -> Iterator[Transaction]:
    transaction = store.begin()
    try:
        yield transaction
    finally:
        transaction.rollback()


def loaded(store: Store, model: type[Row], column: str, *values: Key) -> list[Any]:
    with reading(store) as transaction:
        (rows,) = transaction.load([Read(model, column, values)])
    return rows


def required(*numbers: int) -> list[Required]:
    """Rows with a value in every field."""
    return [
        Required(
            id=number,
            flag=bool(number % 2),
            ratio=number / 3,
            price=Decimal(number),
            day=date(2026, 1, number),
            hour=time(number),
            span=timedelta(days=number),
            reference=UUID(int=number),
            colour=Colour.RED,
            tags=[str(number)],
        )
        for number in numbers
    ]


class Member(str, Enum):  # noqa: UP042  # of which the hash is another
    ADA = "ada"


class Many(IntEnum):
    THREE = 3


class Token(UUID):
    pass


class Bytes(bytes):
    pass


class Moment(datetime):
    pass


class Day(date):
    pass


class ValueContract:
    def test_a_value_of_a_derived_class_is_a_plain_one_for_each_store(self, open_value_store: OpenValueStore) -> None:
        check, store = RowChecks(VALUES).of(Everything), open_value_store()
        given = Everything(
            id=Token(int=1),
            token=Token(int=2),
            number=Many.THREE,
            text=Member.ADA,
            data=Bytes(b"x"),
            at_time=Moment(2026, 1, 2, tzinfo=UTC),
            day=Day(2026, 1, 2),
        )
        kept = check.new(given)
        commit(store, store.take_over("holder", NOW), changes(inserts=[kept]))
        reader = open_value_store()
        for column in FOUND_BY:
            (row,) = loaded(reader, Everything, column, check.key(column, getattr(given, column)))
            assert repr(row) == repr(kept)

    def test_extreme_values_come_back_exactly(self, open_value_store: OpenValueStore) -> None:
        self.check_round_trip(open_value_store, extremes())

    # Each store runs it by itself, on a database of its own. It takes minutes to make a row of so many fields smaller.
    @settings(
        max_examples=25,
        phases=[Phase.explicit, Phase.generate],
        deadline=None,
        database=None,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.differing_executors,
            HealthCheck.too_slow,
        ],
    )
    @given(rows=ROWS)
    def test_values_come_back_exactly(self, open_value_store: OpenValueStore, rows: list[Everything]) -> None:
        self.check_round_trip(open_value_store, rows)

    def check_round_trip(self, open_value_store: OpenValueStore, rows: list[Everything]) -> None:
        """Insert rows, read them by every column by which rows are found, change all of them, and read them again."""
        check = RowChecks(VALUES).of(Everything)
        kept = [check.new(row) for row in rows]
        assert kept == rows
        store, reader = open_value_store(), open_value_store()
        lease = commit(store, store.take_over("holder", NOW), changes(inserts=kept))
        try:
            self.check_found(reader, kept)
            # Each row gets the values of the one after it.
            moved = [
                after.replace(id=row.id, token=row.token, number=row.number, text=row.text)
                for row, after in zip(kept, [*kept[1:], kept[0]], strict=True)
            ]
            lease = commit(store, lease, changes(updates=moved))
            self.check_found(reader, moved)
        finally:
            commit(store, lease, changes(deletes=kept))
            left = loaded(reader, Everything, "id", *(row.id for row in kept))
            store.close()
            reader.close()
        assert left == []

    def check_found(self, store: Store, rows: list[Everything]) -> None:
        """`repr` tells apart what is equal and not the same, such as decimals with more zeros."""
        wanted = {
            column: [row for row in sorted(rows, key=_id) if getattr(row, column) is not None] for column in FOUND_BY
        }
        wanted = {column: having for column, having in wanted.items() if having}
        with reading(store) as transaction:
            found = transaction.load(
                [
                    Read(Everything, column, [getattr(row, column) for row in having])
                    for column, having in wanted.items()
                ]
            )
            in_order = transaction.scan(Everything, len(rows), UUID(int=0))
        for of_column, having in zip(found, wanted.values(), strict=True):
            assert list(map(repr, sorted(of_column, key=_id))) == list(map(repr, having))
            # What a gateway answers and a cache keeps; msgspec writes no subclass of int.
            assert list(map(msgspec.json.encode, sorted(of_column, key=_id))) == list(map(msgspec.json.encode, having))
        assert list(map(_id, in_order)) == sorted(row.id for row in rows if row.id.int)

    def test_values_that_are_never_none_come_back_exactly(self, open_value_store: OpenValueStore) -> None:
        rows = required(*range(1, 20))
        check = RowChecks(VALUES).of(Required)
        kept = [check.new(row) for row in rows]
        store = open_value_store()
        lease = commit(store, store.take_over("holder", NOW), changes(inserts=kept))
        moved = [row.replace(id=20 - row.id) for row in kept]
        commit(store, lease, changes(updates=moved))
        found = loaded(open_value_store(), Required, "id", *range(30))
        assert repr(sorted(found, key=lambda row: row.id)) == repr(moved[::-1])

    def test_rows_without_a_value_in_a_unique_column_are_no_duplicates(self, open_value_store: OpenValueStore) -> None:
        store = open_value_store()
        rows = [Everything(id=UUID(int=number)) for number in range(1, 4)]
        commit(store, store.take_over("holder", NOW), changes(inserts=rows))
        assert len(loaded(store, Everything, "id", *(row.id for row in rows))) == 3


def _id(row: Everything) -> UUID:
    return row.id
