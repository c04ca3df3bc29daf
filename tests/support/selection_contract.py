"""What every store promises of selections: random batches see what a naive model sees."""

import random
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pytest
from msgspec import Meta

from coordinator import Digits, Row, Service
from coordinator.lane.unit_of_work import BatchWork
from coordinator.service.rows import Ref, RowSelection, key_columns, key_of
from coordinator.stores.port import Lease, Store
from coordinator.stores.row_checks import InvalidRow, RowChecks
from tests.support.store_contract import NOW, changes, commit

SELECTING = Service("selecting")
OpenSelectionStore = Callable[[], Store]
"""Opens one more store of the service `SELECTING`, on the test's own database."""
BATCHES = 25
COMMANDS_MAX = 6
STEPS_MAX = 5


class Status(StrEnum):
    OPEN = "open"
    SHUT = "shut"


class Level(IntEnum):
    LOW = -(2**62)
    HIGH = 2**62


@SELECTING.row
class Line(
    Row,
    table="lines",
    key="id",
    unique=("code",),
    index=("order_id", ("status", "day"), "holder", ("holder", "status")),
):
    id: int
    code: str | None = None
    order_id: int
    status: Status
    day: date | None
    holder: str | None
    notes: list[str] = msgspec.field(default_factory=list)


@SELECTING.row
class Ticket(Row, table="tickets", key="name", index=("is_paid", "price", "at_time", "owner", ("kind", "level"))):
    name: Annotated[str, Meta(max_length=40)]
    is_paid: bool | None
    price: Decimal
    at_time: datetime | None
    owner: UUID | None
    kind: Literal["a", "A"]
    level: Level


@SELECTING.row
class Mark(Row, table="marks", key="id", index=("place", "cost")):
    id: UUID
    place: str
    cost: Annotated[Decimal, Digits(12, 2)] | None


@SELECTING.row
class Seat(
    Row,
    table="seats",
    key=("hall", "place"),
    index=("owner", ("owner", "price"), ("hall", "owner"), "place", ("place", "price")),
):
    # In another order than the key's.
    place: int
    owner: str | None
    hall: Annotated[str, Meta(max_length=40)]
    price: int


@SELECTING.row
class Pair(Row, table="pairs", key=("one", "other", "kind")):
    """A row that is its key."""

    one: UUID
    other: int
    kind: Annotated[str, Meta(max_length=20)]


TEXTS = ("a", "A", " a", "á", "a\u0301", "ß", "ss", "", "a'", "a\\", "a%", "1", "\t", "a\x01")
"""Texts that some collation takes for one another."""
NAMES = (
    "a",
    "A",
    "B",
    "b",
    "a b",
    "a!",
    "a\xa0",
    "ab",
    "Z",
    "z",
    "á",
    "ß",
    "~",
    "\uffff",
    "\U0001f37a",
    "1",
    "10",
    "9",
    "_",
    "",
)
"""Keys that some collation puts in another order."""
CONTROLS = ("\x01", "a\x01", "a\t", "a\x1f", "a\nb")
"""Texts behind which the databases begin at different places."""
WIDE = (Decimal("9" * 24 + ".0000000001"), Decimal("9" * 24 + ".0000000002"), Decimal(0), Decimal("-0.1"))
TIMES = (NOW, NOW + timedelta(milliseconds=1), datetime(1, 1, 2, tzinfo=UTC), None)
VALUES: dict[type[Row], dict[str, Sequence[Any]]] = {
    Line: {
        "id": [*range(-3, 30), 2**63 - 1, -(2**63)],
        "order_id": (1, 2, -(2**63)),
        "status": tuple(Status),
        "day": (date(2026, 1, 1), date.min, None),
        "holder": (*TEXTS, None),
        "notes": ([], ["x"]),
    },
    Ticket: {
        "name": NAMES,
        "is_paid": (True, False, None),
        "price": WIDE,
        "at_time": TIMES,
        "owner": (UUID(int=1), UUID(int=2**128 - 1), None),
        "kind": ("a", "A"),
        "level": tuple(Level),
    },
    Mark: {
        "id": [UUID(int=number) for number in (0, 1, 2**127, 2**128 - 1, 255, 256, 1 << 64, 10 << 120, 9 << 120)],
        "place": TEXTS,
        "cost": (Decimal("1.00"), Decimal("0.01"), None),
    },
    Seat: {
        "hall": ("a", "A", "B", "a,1", "a/1", "\U0001f37a", ""),
        "place": (-1, 0, 1, 2, 9, 10, 2**63 - 1, -(2**63)),
        "owner": (*TEXTS[:5], None),
        "price": (1, 2),
    },
    Pair: {
        "one": [UUID(int=number) for number in (0, 1, 2**127, 2**128 - 1)],
        "other": (-1, 0, 2, 10),
        "kind": ("a", "A", "b"),
    },
}
INDEXES: dict[type[Row], Sequence[tuple[str, ...]]] = {
    Line: ((), ("order_id",), ("status",), ("status", "day"), ("holder",), ("holder", "status"), ("id",), ("code",)),
    Ticket: ((), ("is_paid",), ("price",), ("at_time",), ("owner",), ("kind",), ("kind", "level")),
    Mark: ((), ("place",), ("cost",)),
    Seat: (
        *((), ("hall",), ("hall", "place"), ("owner",), ("owner", "price")),
        # Of some columns of the key.
        *(("hall", "owner"), ("place",), ("place", "price")),
    ),
    Pair: ((), ("one",), ("one", "other"), ("one", "other", "kind")),
}


def _value(chance: random.Random, model: type[Row], column: str) -> Any:
    if column == "code":
        return f"code {chance.randrange(30)} {chance.randrange(2)}"
    return chance.choice(VALUES[model][column])


def _drawn_key(chance: random.Random, model: type[Row]) -> Any:
    parts = tuple(_value(chance, model, column) for column in key_columns(model))
    return parts[0] if len(parts) == 1 else parts


def _spelt(chance: random.Random, value: Any) -> Any:
    """An equal value, written in another way."""
    if isinstance(value, datetime) and value.year > 1 and chance.random() < 0.5:
        return value.astimezone(timezone(timedelta(hours=2)))
    return value.normalize() if isinstance(value, Decimal) and chance.random() < 0.5 else value


class Naive:
    """The rows as a list: what each selection should find."""

    def __init__(self) -> None:
        self.rows: dict[type[Row], dict[Any, Row]] = {model: {} for model in VALUES}

    def copy(self) -> "Naive":
        other = Naive()
        other.rows = {model: dict(rows) for model, rows in self.rows.items()}
        return other

    def select(self, selection: RowSelection[Row]) -> list[Row]:
        found = [row for row in self.rows[selection.model].values() if _fits(row, selection)]
        return sorted(found, key=_key)[: selection.limit]


def _fits(row: Row, selection: RowSelection[Row]) -> bool:
    if selection.after is not None and not _key(row) > selection.after:
        return False
    return all(getattr(row, column) == value for column, value in selection.where)


def _key(row: Row) -> Any:
    return key_of(row)


def _drawn(chance: random.Random) -> RowSelection[Row]:
    model = chance.choice(list(VALUES))
    equals = {column: _spelt(chance, _value(chance, model, column)) for column in chance.choice(INDEXES[model])}
    after = _drawn_key(chance, model) if chance.random() < 0.4 else None
    return model.where(limit=chance.choice((1, 1, 2, 3, 5, 1000)), after=after, **equals)


def _named(chance: random.Random) -> Ref[Row]:
    model = chance.choice(list(VALUES))
    key = _drawn_key(chance, model)
    return model.at(*(key if isinstance(key, tuple) else (key,)))


def _look(chance: random.Random, work: BatchWork, naive: Naive) -> None:
    selection = _drawn(chance)
    equals = dict(selection.where)
    found = work.select(selection.model, limit=selection.limit, after=selection.after, **equals)
    assert found == naive.select(selection), selection
    exists: bool = work.exists(selection.model, **equals)
    assert exists is bool(naive.select(selection.model.where(limit=1, after=None, **equals)))
    for row in found[:2]:
        assert work.get(type(row), _key(row)) == row
    key = _drawn_key(chance, selection.model)
    assert work.get(selection.model, key) == naive.rows[selection.model].get(key)


def _change(chance: random.Random, work: BatchWork, naive: Naive) -> None:
    model = chance.choice(list(VALUES))
    key, columns = _drawn_key(chance, model), key_columns(model)
    fields = {column: _value(chance, model, column) for column in VALUES[model] if column not in columns}
    there = naive.rows[model].get(key)
    if there is None:
        if model is Line and chance.random() < 0.7:
            # Never what another row had: databases look at each row by itself.
            fields["code"] = f"code {key} {chance.randrange(2)}"
        # Some handlers look first.
        if chance.random() < 0.5:
            assert work.get(model, key) is None
        named = dict(zip(columns, key if isinstance(key, tuple) else (key,), strict=True))
        naive.rows[model][key] = work.add(model(**named, **fields))
    elif not fields or chance.random() < 0.4:
        work.remove(there)
        del naive.rows[model][key]
    else:
        some = chance.sample(list(fields), chance.randint(1, len(fields)))
        naive.rows[model][key] = work.save(there.replace(**{column: fields[column] for column in some}))


def _batch(chance: random.Random, store: Store, lease: Lease, naive: Naive) -> tuple[Lease, Naive]:
    """Some commands, of which some are rejected, in one transaction, which is rolled back now and then."""
    before = naive.copy()
    transaction = store.begin()
    try:
        work = BatchWork(transaction, NOW, checks=RowChecks(SELECTING))
        work.prefetch([_drawn(chance) for _ in range(chance.randrange(4))])
        work.prefetch([_named(chance) for _ in range(chance.randrange(9))])
        for number in range(chance.randint(1, COMMANDS_MAX)):
            work.begin_command(str(number), "selecting.change")
            at_first = naive.copy()
            for _ in range(chance.randint(1, STEPS_MAX)):
                chance.choice((_look, _change))(chance, work, naive)
            if chance.random() < 0.3:
                work.undo()
                naive = at_first
        if chance.random() < 0.1:
            return lease, before
        transaction.commit(lease, lease.sequence + 1, work.changes())
    finally:
        transaction.rollback()
    return Lease(lease.epoch, lease.sequence + 1), naive


class SelectionContract:
    @pytest.mark.parametrize("seed", range(6))
    def test_random_batches_select_what_a_naive_model_selects(
        self, open_selection_store: OpenSelectionStore, seed: int
    ) -> None:
        chance = random.Random(seed)
        store = open_selection_store()
        lease, naive = store.take_over("holder", NOW), Naive()
        for _ in range(BATCHES):
            lease, naive = _batch(chance, store, lease, naive)
        assert all(len(rows) > 2 for rows in naive.rows.values())

    def test_rows_of_many_pages_come_in_order(self, open_selection_store: OpenSelectionStore) -> None:
        store = open_selection_store()
        rows = [
            Line(id=7 * number % 2999, order_id=number % 2, status=Status.OPEN, day=None, holder=None)
            for number in range(2999)
        ]
        commit(store, store.take_over("holder", NOW), changes(inserts=rows))
        transaction = store.begin()
        work = BatchWork(transaction, NOW, checks=RowChecks(SELECTING))
        found: list[Line] = []
        while page := work.select(Line, limit=100, after=found[-1].id if found else None, order_id=1):
            found += page
        transaction.rollback()
        assert [row.id for row in found] == sorted(row.id for row in rows if row.order_id == 1)

    @pytest.mark.parametrize("after", ["", " ", "a", "a ", "a  ", "a!", "a b", "a\x7f", "a  b", *CONTROLS])
    def test_what_follows_a_text_does_not_depend_on_the_database(
        self, open_selection_store: OpenSelectionStore, after: str
    ) -> None:
        """MySQL and MariaDB put texts in order as if spaces came after them, and so `a` after `a\t`."""
        store = open_selection_store()
        names = ["", "a", "a  b", "a b", "a!", "a\x7f", "b"]
        tickets = [
            Ticket(name=name, is_paid=None, price=WIDE[0], at_time=None, owner=None, kind="a", level=Level.LOW)
            for name in names
        ]
        seats = [Seat(hall=name, place=1, owner=None, price=1) for name in names]
        commit(store, store.take_over("holder", NOW), changes(inserts=[*tickets, *seats]))
        transaction = store.begin()
        work = BatchWork(transaction, NOW, checks=RowChecks(SELECTING))
        try:
            if after in CONTROLS:
                for ask in (
                    lambda: work.select(Ticket, limit=9, after=after),
                    lambda: work.select(Seat, limit=9, after=(after, 1)),
                    lambda: RowChecks(SELECTING).reference(Ticket.where(limit=9, after=after, kind="a")),
                ):
                    with pytest.raises(InvalidRow, match="text with a control character"):
                        ask()
                return
            behind = [name for name in names if name > after]
            assert [row.name for row in work.select(Ticket, limit=9, after=after)] == behind
            assert [row.hall for row in work.select(Seat, limit=9, after=(after, 1))] == behind
        finally:
            transaction.rollback()

    def test_the_declared_indexes_pass_the_check_of_a_start(self, open_selection_store: OpenSelectionStore) -> None:
        open_selection_store().check(SELECTING.models, must_sync=False)
