"""Values of every type: what is kept of them, and what is refused by name."""

import math
import re
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, nullcontext
from datetime import UTC, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

from coordinator import Command, Digits, Handler, Rejected, UnitOfWork
from coordinator.lane.unit_of_work import BatchWork
from coordinator.service.json_text import to_json
from coordinator.service.rows import R
from coordinator.stores.field_types import field_type
from coordinator.stores.json_values import LEVELS_MAX, READ_LEVELS_MAX, json_type
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from coordinator.stores.port import BatchFault
from coordinator.stores.row_checks import InvalidRow, RowChecks
from coordinator.stores.sqlite.store import SqliteStore, create_schema
from coordinator.stores.value_types import UnknownType
from coordinator.testing import LaneInMemory
from tests.support.store_contract import NOW, changes, commit
from tests.support.unreadable_contract import DEEP_JSON, ODD, UnreadableContract
from tests.support.value_contract import OpenValueStore, ValueContract, loaded, required
from tests.support.values import VALUES, Colour, Everything, Point, Required, extremes


class TestMemoryValues(ValueContract):
    @pytest.fixture
    def open_value_store(self) -> OpenValueStore:
        database = MemoryDatabase()
        return lambda: MemoryStore(database)


class TestSqliteValues(ValueContract):
    @pytest.fixture
    def open_value_store(self, tmp_path: Path) -> Iterator[OpenValueStore]:
        path = str(tmp_path / "values.db")
        create_schema(path, VALUES)
        with ExitStack() as opened:
            yield lambda: opened.enter_context(closing(SqliteStore(path, VALUES)))


def checked(row: R) -> R:
    return RowChecks(VALUES).of(type(row)).new(row)


def everything(**values: Any) -> Everything:
    return Everything(id=UUID(int=1), **values)


DEEP: Any = []
for _ in range(LEVELS_MAX):
    DEEP = [DEEP]

REFUSED: list[tuple[str, Any, str]] = [
    ("flag", 1, "an int where a bool belongs"),
    ("ratio", math.nan, "the float nan, which no database keeps"),
    ("ratio", math.inf, "the float inf, which no database keeps"),
    ("ratio", -math.inf, "the float -inf, which no database keeps"),
    ("ratio", True, "a bool where a float belongs"),
    ("ratio", 2**53 + 1, "an integer that is no float exactly"),
    ("price", 9.9, "a float where a Decimal belongs"),
    ("price", 9, "an int where a Decimal belongs"),
    ("price", Decimal("9.999"), "more than 2 digits after the point"),
    ("price", Decimal("1E+10"), "more than 10 digits before the point"),
    ("price", Decimal("Infinity"), "the Decimal Infinity, which no database keeps"),
    ("price", Decimal("sNaN"), "the Decimal sNaN, which no database keeps"),
    ("amount", Decimal("1E+24"), "more than 24 digits before the point"),
    ("amount", Decimal("1E-11"), "more than 10 digits after the point"),
    ("whole", Decimal("0.5"), "more than 0 digits after the point"),
    ("small", Decimal(1), "more than 0 digits before the point"),
    ("day", datetime(2026, 1, 1, tzinfo=UTC), "a datetime where a date belongs"),
    ("day", "2026-01-01", "a str where a date belongs"),
    ("hour", time(12, tzinfo=UTC), "a time of day with a zone"),
    ("hour", timedelta(hours=1), "a timedelta where a time of day belongs"),
    ("span", timedelta.max, "a timedelta out of range"),
    ("span", 5, "an int where a timedelta belongs"),
    (
        "at_time",
        datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
        "a time with microseconds, and databases keep milliseconds: .replace(microsecond=0) drops them",
    ),
    ("at_time", datetime(2026, 1, 1), "a time without its zone"),  # noqa: DTZ001
    ("token", "12345678-1234-5678-1234-567812345678", "a str where a UUID belongs"),
    ("colour", "red", "a str where a Colour belongs"),
    ("size", 5, "an int where a Size belongs"),
    ("document", {"a": math.nan}, "a value that JSON does not give back as it is"),
    ("document", {"a": 2**63}, "JSON with an integer out of range"),
    ("document", {"a": "\0"}, "JSON with a NUL character in a text"),
    ("document", {"\0": 1}, "JSON with a NUL character in a text"),
    ("document", {"a": "\ud800"}, "a value that JSON does not hold"),
    ("document", {"a": {"$set": 1}}, "JSON with the key '$set': MongoDB keeps $ for itself"),
    ("document", {1: 2}, "a value that JSON does not give back as it is"),
    ("document", {"a": (1, 2)}, "a value that JSON does not give back as it is"),
    ("document", {"a": object()}, "a value that JSON does not hold"),
    ("document", [1], "a value that JSON does not hold"),
    ("anything", DEEP, "JSON with more than 64 levels"),
    ("tags", [1], "a value that JSON does not hold"),
    ("box", Point(1.0, "a"), "a value that JSON does not hold"),
]


@pytest.mark.parametrize(("field", "value", "problem"), REFUSED)
def test_what_one_database_cannot_keep_is_refused_on_all(field: str, value: Any, problem: str) -> None:
    with pytest.raises(InvalidRow, match=re.escape(f"everything.{field}: ")) as caught:
        checked(everything(**{field: value}))
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "kept"),
    [
        ("ratio", 3, "3.0"),
        ("ratio", -0.0, "0.0"),
        ("price", Decimal("9.9"), "Decimal('9.90')"),
        ("price", Decimal("1E+1"), "Decimal('10.00')"),
        ("price", Decimal("9.900"), "Decimal('9.90')"),
        ("price", Decimal("-0"), "Decimal('0.00')"),
        ("hour", time(12, fold=1), "datetime.time(12, 0)"),
        ("anything", [1.50, 2], "[1.5, 2]"),
    ],
)
def test_an_equal_value_is_kept_as_databases_give_it_back(field: str, value: Any, kept: str) -> None:
    given = everything(**{field: value})
    row = checked(given)
    assert row == given
    assert repr(getattr(row, field)) == kept


def test_a_time_in_another_zone_is_kept_in_utc() -> None:
    at = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    assert repr(checked(everything(at_time=at)).at_time) == repr(datetime(2026, 1, 1, 10, tzinfo=UTC))


def test_a_field_that_must_have_a_value_takes_no_none() -> None:
    row = next(iter(required(1)))
    for name in Required.__struct_fields__:
        with pytest.raises(InvalidRow, match=rf"required\.{name}: it is None"):
            checked(row.replace(**{name: None}))


@pytest.mark.parametrize("key", ["12345678-1234-5678-1234-567812345678", 1, None, b""])
def test_rows_are_looked_for_by_a_uuid_and_nothing_like_it(key: Any) -> None:
    for column in ("id", "token"):
        with pytest.raises(InvalidRow, match=rf"everything\.{column}: "):
            RowChecks(VALUES).of(Everything).key(column, key)


class _Flags(Flag):
    A = 1


class _Both(Enum):
    A = 1
    B = "b"


class _Huge(Enum):
    A = 2**63


@pytest.mark.parametrize(
    ("hint", "problem"),
    [
        (complex, "a row cannot hold complex"),
        (Any, "a row cannot hold Any"),
        (set[str], "a row cannot hold set"),
        (int | float, "is of several types"),
        (list[set[str]], "has a set: its values come in another order in each process"),
        (dict[str, complex], "has a type that JSON does not hold"),
        (_Flags, "must be all texts or all integers, and no flags"),
        (_Both, "must be all texts or all integers, and no flags"),
        (_Huge, "is too large for its column"),
    ],
)
def test_a_type_that_no_row_can_hold_is_named(hint: Any, problem: str) -> None:
    with pytest.raises(UnknownType, match=problem):
        field_type(hint)


@pytest.mark.parametrize("digits", [(0, 0), (35, 2), (34, 31), (2, 3), (5, -1)])
def test_digits_that_some_database_does_not_keep_are_refused(digits: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at most 34 digits in all, and 30 of them after the point"):
        Digits(*digits)


def test_a_row_that_is_none_of_its_model_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "values.db")
    create_schema(path, VALUES)
    store = SqliteStore(path, VALUES)
    commit(store, store.take_over("holder", NOW), changes(inserts=[everything(colour=Colour.RED)]))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE everything SET colour = 'blue'")
        connection.commit()
    with pytest.raises(BatchFault, match=r"00-000000000001 of everything .*: column colour holds a str that is"):
        loaded(store, Everything, "id", UUID(int=1))
    store.close()


@pytest.mark.parametrize(
    ("text", "is_read"),
    [
        (b"[" * 400 + b"]" * 400, True),
        (b"[" * 401 + b"]" * 401, False),
        (b'[{"a":' * 199 + b"[[]]" + b"}]" * 199, True),
        (b'[{"a":' * 199 + b"[[[]]]" + b"}]" * 199, False),
        (b'["' + b"[" * 2000 + b'"]', True),
        (b'["' + b"[}" * 2000 + b'"]', True),
        (b"[" + b"[]," * 2000 + b"[]]", True),
        (b"[" + b'["]","}"],' * 2000 + b"[]]", True),
        (b"[" * 100_000 + b"]" * 100_000, False),
    ],
)
def test_how_many_levels_of_others_are_read(text: bytes, is_read: bool) -> None:
    read = json_type(list[Any]).read
    for each in (text, text.decode()):
        with (
            nullcontext()
            if is_read
            else pytest.raises(ValueError, match=f"JSON with more than {READ_LEVELS_MAX} levels")
        ):
            assert read(each) is not None


class _SpoiledFile:
    def __init__(self, path: str, opened: ExitStack) -> None:
        self.url = f"sqlite:///{path}"
        self._path = path
        self._opened = opened

    def open_store(self) -> SqliteStore:
        return self._opened.enter_context(closing(SqliteStore(self._path, ODD)))

    def spoil(self, column: str, value: str) -> None:
        with closing(sqlite3.connect(self._path)) as connection:
            connection.execute(f"UPDATE things SET {column} = {value} WHERE id = 2")
            connection.commit()


class TestSqliteUnreadable(UnreadableContract):
    spoils = (
        ("name", "x'ff'"),
        ("name", "CAST(x'ff' AS TEXT)"),
        ("number", "'abc'"),
        ("number", "1.5"),
        ("price", "'NaN'"),
        ("price", "'1.234'"),
        ("day", "'infinity'"),
        ("day", "20260102"),
        ("hour", "'24:00'"),
        ("hour", "'25:00:00'"),
        ("seen", "'10000-01-01 00:00:00'"),
        ("seen", "'0000-00-00 00:00:00'"),
        ("seen", "5"),
        ("ratio", "'abc'"),
        ("ratio", "9e999"),
        ("note", "'nonsense'"),
        ("note", """'{"a": NaN}'"""),
        ("note", "'[1]'"),
        ("note", "5"),
        ("note", DEEP_JSON),
    )

    @pytest.fixture
    def spoiled(self, tmp_path: Path) -> Iterator[_SpoiledFile]:
        path = str(tmp_path / "odd.db")
        create_schema(path, ODD)
        with ExitStack() as opened:
            yield _SpoiledFile(path, opened)


class Rewrite(Command, type="values.rewrite"):
    """Changes the tags of a row in place, and saves it or refuses to."""

    tag: str
    is_saved: bool


def rewrite(work: UnitOfWork, command: Rewrite) -> Required:
    row = work.get(Required, 1)
    assert row is not None
    row.tags.append(command.tag)
    if not command.is_saved:
        raise Rejected("refused", "after all")
    saved = work.save(row.replace(price=Decimal(7)))
    row.tags.append("too late")
    returned = saved.replace(tags=[*saved.tags])
    saved.tags.append("too late, too")
    return returned


def test_what_a_handler_changes_in_place_is_kept_only_if_it_is_saved() -> None:
    lane = LaneInMemory(VALUES.replace(handlers=(Handler(Rewrite, rewrite),)))
    lane.given(*required(1))
    assert lane.apply(Rewrite(tag="lost", is_saved=False)).code == "refused"
    assert lane.apply(Rewrite(tag="kept", is_saved=True)).applied
    assert lane.apply(Rewrite(tag="lost too", is_saved=False)).code == "refused"
    (row,) = lane.rows(Required)
    assert (row.tags, str(row.price)) == (["1", "kept"], "7.0000000000")


def test_commands_see_a_row_alike_in_one_batch_and_in_two() -> None:
    """A decimal's zeros and a time's zone are as the database gives them back, before it has them."""
    work = BatchWork(MemoryStore(MemoryDatabase()).begin(), NOW, checks=RowChecks(VALUES))
    given = required(1)[0].replace(price=Decimal("1.5"), ratio=2)
    for row in (work.add(given), work.get(Required, 1), work.save(given.replace(price=Decimal("1.50")))):
        assert row is not None
        assert (str(row.price), repr(row.ratio)) == ("1.5000000000", "2.0")


def test_values_travel_as_json_exactly() -> None:
    """As results of handlers, and in the cache: so a lane need not read such a result again to know that it can be."""
    for row in extremes():
        # Decimals without an exponent: 1E+10 comes back as 10000000000.
        assert msgspec.json.decode(to_json(row), type=Everything) == row
        assert repr(msgspec.json.decode(msgspec.json.encode(row), type=Everything)) == repr(row)
