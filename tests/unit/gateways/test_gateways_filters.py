"""By which values of columns the rows of a list may be asked for."""

from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pytest

from coordinator import Digits, Row
from coordinator.http.problems import RequestRefused
from coordinator.http.row_filters import RowFilters
from coordinator.stores.row_checks import RowChecks


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


class Odd(
    Row,
    table="odds",
    key="id",
    unique=("code",),
    index=(
        "name",
        ("state", "day"),
        "price",
        "seen",
        "is_open",
        "colour",
        "level",
        "count",
        "mixed",
        "maybe",
        "number",
    ),
):
    id: int
    code: UUID
    name: str
    state: Literal["open", "shut"]
    day: date
    price: Annotated[Decimal, Digits(5, 2)]
    seen: datetime
    is_open: bool
    colour: Colour
    level: Level
    count: int
    mixed: int | str
    maybe: str | None = None
    number: Literal[1, 2]


class Capped(Row, table="capped", key=("hall", "after"), unique=("limit",)):
    hall: int
    after: int
    limit: int


FILTERS = RowFilters(Odd, RowChecks().of(Odd), int)
CODE = "6f1c2d3e-4b5a-4c7d-8e9f-0a1b2c3d4e5f"


def condition(shown: Any = None, **asked: Any) -> Any:
    """What the rows of the list have, of one condition."""
    (found,) = conditions(shown, **asked)
    return found


def conditions(shown: Any = None, **asked: Any) -> Any:
    return FILTERS.conditions(FILTERS.query(**asked), shown or {})


@pytest.mark.parametrize(
    ("column", "text", "value"),
    [
        ("code", CODE, UUID(CODE)),
        ("name", "7", "7"),
        ("name", "", ""),
        ("maybe", "null", "null"),
        ("state", "open", "open"),
        ("price", "9.90", Decimal("9.90")),
        ("seen", "2026-11-26T09:52:45Z", datetime(2026, 11, 26, 9, 52, 45, tzinfo=UTC)),
        ("is_open", "true", True),
        ("colour", "red", Colour.RED),
        ("level", "1", Level.LOW),
        ("number", "2", 2),
        ("count", "-7", -7),
    ],
)
def test_a_text_is_a_value_of_its_column(column: str, text: str, value: object) -> None:
    found = condition(**{column: text})
    assert found == {column: value}
    assert type(found[column]) is type(value)


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ("code", "x"),
        ("price", "a"),
        ("price", "NaN"),
        ("price", "sNaN"),
        ("price", "-Infinity"),
        ("price", "1e999999999"),
        ("seen", "now"),
        ("is_open", "maybe"),
        ("colour", "blue"),
        ("level", "9"),
        ("count", ""),
        ("state", "other"),
        ("number", "3"),
        ("seen", "2026-11-26T09:52:45"),
    ],
)
def test_what_is_no_value_of_its_column_is_refused_by_its_name(column: str, text: str) -> None:
    with pytest.raises(RequestRefused, match=f"{column} cannot be") as refused:
        condition(**{column: text})
    assert (refused.value.status, refused.value.field) == (400, column)


def test_only_columns_that_an_index_serves_are_asked_for() -> None:
    assert {"mixed", "id"}.isdisjoint(FILTERS.query.__struct_fields__)
    assert condition(state="open", day="2026-11-26") == {"state": "open", "day": date(2026, 11, 26)}
    with pytest.raises(RequestRefused, match="no index serves a list by day alone"):
        condition(day="2026-11-26")
    with pytest.raises(RequestRefused, match="no index serves a list by price and state together") as refused:
        condition(state="open", price="1")
    assert refused.value.field == "price"


def test_what_one_may_see_is_combined_with_what_one_asks_for() -> None:
    assert conditions({"name": "ada"}, state="open") == ({"name": "ada"}, {"state": "open"})
    assert conditions({"state": "open"}, day="2026-11-26") == ({"state": "open", "day": date(2026, 11, 26)},)
    assert conditions({"name": "ada"}) == ({"name": "ada"},)


def test_a_refusal_names_nothing_that_was_not_asked_for() -> None:
    with pytest.raises(RequestRefused) as refused:
        conditions({"name": "ada"}, day="2026-11-26")
    assert "name" not in str(refused.value)
    assert "ada" not in str(refused.value)


def test_a_refusal_says_what_a_column_has() -> None:
    with pytest.raises(RequestRefused, match=r"state cannot be 'other': 'other' is none of 'open', 'shut'"):
        conditions(state="other")
    with pytest.raises(RequestRefused, match="a time without its zone"):
        conditions(seen="2026-11-26T09:52:45")


def test_what_one_may_see_is_kept() -> None:
    assert condition({"name": "ada"}) == {"name": "ada"}
    assert conditions({"name": "ada"}, name="bob") == ({"name": "ada"}, {"name": "bob"})


def test_the_parameters_are_those_of_a_list_and_the_columns() -> None:
    names = [field.name for field in msgspec.structs.fields(FILTERS.query)]
    assert {"after", "limit", "code", "name"} <= set(names)


def test_a_column_that_is_called_like_a_parameter_of_every_list_takes_it_from_none() -> None:
    filters = RowFilters(Capped, RowChecks().of(Capped), int)
    asked: Any = {"hall": "3"}
    query = filters.query(**asked)
    assert (query.after, query.limit) == (None, 50)
    assert filters.conditions(query, {}) == ({"hall": 3},)
