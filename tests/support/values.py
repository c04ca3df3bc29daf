"""A service whose rows have a field of every type, and what hypothesis puts into them."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from hypothesis import strategies as st
from msgspec import Meta, Struct

from coordinator import Digits, Row, Service

VALUES = Service("values")


class Colour(StrEnum):
    RED = "red"
    ANY = "Ünder 'quotes' \\"


class Size(IntEnum):
    SMALL = -(2**63) + 1
    LARGE = 2**63 - 1


class Mixed(Enum):
    """Members that are no texts themselves."""

    A = "a"
    B = "b"


class Point(Struct, frozen=True):
    x: float
    label: str


class Box(Struct):
    """One that can be changed in place."""

    corner: Point
    points: list[Point]
    since: date | None = None
    price: Decimal | None = None
    extras: dict[str, Any] = msgspec.field(default_factory=dict)


@VALUES.row
class Everything(Row, table="everything", key="id", unique=("token", "number", "text")):
    id: UUID
    token: UUID | None = None
    number: int | None = None
    text: Annotated[str, Meta(max_length=20)] | None = None
    flag: bool | None = None
    ratio: float | None = None
    price: Annotated[Decimal, Digits(12, 2)] | None = None
    amount: Decimal | None = None
    whole: Annotated[Decimal, Digits(34, 0)] | None = None
    small: Annotated[Decimal, Digits(30, 30)] | None = None
    day: date | None = None
    hour: time | None = None
    span: timedelta | None = None
    at_time: datetime | None = None
    data: bytes | None = None
    colour: Colour | None = None
    size: Size | None = None
    mixed: Mixed | None = None
    kind: Literal["a", "b"] | None = None
    document: dict[str, Any] | None = None
    anything: list[Any] | None = None
    tags: list[str] | None = None
    days: tuple[date, ...] | None = None
    by_number: dict[int, Decimal] | None = None
    box: Box | None = None
    point: Point | None = None


@VALUES.row
class Required(Row, table="required", key="id"):
    """A row whose fields are never None."""

    id: int
    flag: bool
    ratio: float
    price: Decimal
    day: date
    hour: time
    span: timedelta
    reference: UUID
    colour: Colour
    tags: list[str]


EXTREMES: dict[str, tuple[Any, ...]] = {
    "flag": (False, True),
    "ratio": (
        0.0,
        5e-324,
        2.2250738585072014e-308,
        1.7976931348623157e308,
        -1.7976931348623157e308,
        0.1,
        1 / 3,
        1e16,
        1e23,
    ),
    "price": (Decimal("0.00"), Decimal("9999999999.99"), Decimal("-9999999999.99"), Decimal("0.01")),
    "amount": (Decimal(f"{'9' * 24}.{'9' * 10}"), Decimal(f"-{'9' * 24}.{'9' * 10}"), Decimal("0.0000000001")),
    "whole": (Decimal("9" * 34), Decimal("-" + "9" * 34)),
    "small": (Decimal("0." + "9" * 30), Decimal("-0." + "0" * 29 + "1")),
    "day": (date.min, date.max, date(1582, 10, 10), date(2024, 2, 29)),
    "hour": (time.min, time.max, time(12, 0, 0, 1)),
    "span": (
        timedelta(0),
        timedelta(microseconds=1),
        timedelta(microseconds=-1),
        timedelta(microseconds=2**63 - 1),
        timedelta(microseconds=-(2**63) + 1),
    ),
    "at_time": (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999000, tzinfo=UTC)),
    "data": (b"", bytes(range(256))),
    "colour": tuple(Colour),
    "size": tuple(Size),
    "mixed": tuple(Mixed),
    "kind": ("a", "b"),
    "token": (UUID(int=0), UUID(int=2**128 - 1), UUID("12345678-1234-5678-1234-567812345678")),
    "number": (-(2**63), 2**63 - 1, 0, 2**31 - 1, 2**31, -(2**31) - 1, 2**53),
    "text": ("", "NULL", "'; --", "\\", "%s", "null", "0", "🦀"),
    "document": (
        {},
        {
            "c": 2**31,
            "b": 1,
            "a": 2,
            "": {"c.d": [None, True, 1.0, 1e308, -0.0, 5e-324, 2**63 - 1, -(2**63), "ü'\\\"\n"]},
        },
    ),
    "anything": ([], [[], {}, [[1.5, None]]], [1e22, 1.0, 100], ["$x", "2026-01-01T00:00:00Z"]),
    "tags": ([], ["a", "'b'", "\\u0000", '"', "null"]),
    "days": ((), (date.min, date.max)),
    "by_number": ({}, {1: Decimal("1.50"), -(2**63): Decimal("1E+10")}),
    "box": (
        Box(Point(0.5, "a"), []),
        Box(Point(-1e300, "ü"), [Point(1.0, "")], date(2024, 2, 29), Decimal("9.90"), {"a": [1, "x"]}),
    ),
    "point": (Point(1.0, "x"),),
}
"""By field of `Everything`, the values at the ends of its type, and those that a database may take for others."""

_TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXTS,
    lambda each: (
        st.lists(each, max_size=4)
        | st.dictionaries(_TEXTS.filter(lambda key: not key.startswith("$")), each, max_size=4)
    ),
    max_leaves=10,
)
_POINTS = st.builds(Point, st.floats(allow_nan=False, allow_infinity=False), _TEXTS)


def _decimals(digits: Digits) -> st.SearchStrategy[Decimal]:
    most = 10**digits.precision - 1
    return st.integers(-most, most).map(lambda number: Decimal(f"{number}E-{digits.scale}"))


_STRATEGIES: dict[str, st.SearchStrategy[Any]] = {
    "token": st.uuids(),
    "number": st.integers(-(2**63), 2**63 - 1),
    "text": _TEXTS.filter(lambda text: not text.endswith(" ")),
    "flag": st.booleans(),
    "ratio": st.floats(allow_nan=False, allow_infinity=False),
    "price": _decimals(Digits(12, 2)),
    "amount": _decimals(Digits(34, 10)),
    "whole": _decimals(Digits(34, 0)),
    "small": _decimals(Digits(30, 30)),
    "day": st.dates(),
    "hour": st.times(),
    "span": st.integers(-(2**63) + 1, 2**63 - 1).map(lambda number: timedelta(microseconds=number)),
    "at_time": st.datetimes().map(lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000, tzinfo=UTC, fold=0)),
    "data": st.binary(max_size=50),
    "colour": st.sampled_from(Colour),
    "size": st.sampled_from(Size),
    "mixed": st.sampled_from(Mixed),
    "kind": st.sampled_from(["a", "b"]),
    "document": st.dictionaries(_TEXTS.filter(lambda key: not key.startswith("$")), _JSON, max_size=4),
    "anything": st.lists(_JSON, max_size=4),
    "tags": st.lists(_TEXTS, max_size=4),
    "days": st.lists(st.dates(), max_size=3).map(tuple),
    "by_number": st.dictionaries(st.integers(-(2**63), 2**63 - 1), _decimals(Digits(34, 10)), max_size=3),
    "box": st.builds(
        Box,
        _POINTS,
        st.lists(_POINTS, max_size=2),
        st.none() | st.dates(),
        st.none() | _decimals(Digits(12, 2)),
        st.dictionaries(_TEXTS.filter(lambda key: not key.startswith("$")), _JSON, max_size=2),
    ),
    "point": _POINTS,
}

ROWS: st.SearchStrategy[list[Everything]] = st.lists(
    st.builds(Everything, id=st.uuids(), **{name: st.none() | each for name, each in _STRATEGIES.items()}),
    min_size=1,
    max_size=5,
    unique_by=(
        lambda row: row.id,
        # Any number of rows have no value.
        lambda row: row.id if row.token is None else row.token,
        lambda row: row.id if row.number is None else row.number,
        lambda row: row.id if row.text is None else row.text,
    ),
)
"""Rows of which no two have the same value in a unique column."""


def extremes() -> list[Everything]:
    """A row for each extreme value, one with all the first ones, and one with no value at all."""
    rows = [{name: value} for name, values in EXTREMES.items() for value in values]
    rows.append({name: values[0] for name, values in EXTREMES.items() if name not in ("token", "number", "text")})
    return [Everything(id=UUID(int=number), **row) for number, row in enumerate([*rows, {}], 1)]
