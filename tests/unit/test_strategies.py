"""The commands that `simulate` makes from their types."""

import datetime as dt
import enum
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pytest
from msgspec import Meta, Struct

from coordinator import Amount, Command, Id, Name, at_fault
from coordinator.service.commands import INTEGER_MAX, parse
from coordinator.testing import commands_of
from coordinator.testing.strategies import drawn
from tests.support.seats import AddSeat, BookSeat


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Line(Struct, frozen=True):
    article: Annotated[str, Meta(pattern=r"^[A-Z]{2}-\d+$", max_length=12)]
    number: Annotated[int, Meta(gt=0, lt=10)]
    parts: "list[Line]" = []


class Everything(Command, type="all.everything"):
    id: Id
    amount: Amount
    name: Name
    tens: Annotated[int, Meta(ge=-50, le=50, multiple_of=10)]
    any_number: int
    share: Annotated[float, Meta(gt=0, le=1)]
    is_new: bool
    kind: Literal["a", "b", 3]
    colour: Colour
    text: str
    short: Annotated[str, Meta(min_length=2, max_length=3)]
    data: Annotated[bytes, Meta(min_length=1)]
    price: Decimal
    key: UUID
    day: dt.date
    at: Annotated[dt.datetime, Meta(tz=True)]
    naive: Annotated[dt.datetime, Meta(tz=False)]
    hour: dt.time
    span: dt.timedelta
    lines: Annotated[list[Line], Meta(min_length=1, max_length=2)]
    pair: tuple[int, str]
    many: tuple[int, ...]
    tags: set[str]
    fixed: frozenset[int]
    by_name: dict[str, int]
    either: int | str | None
    anything: Any
    raw: msgspec.Raw
    may_be_left_out: str | None = None
    made: list[int] = msgspec.field(default_factory=list)


class Even(Command, type="all.even"):
    """No type says that it is even."""

    number: Annotated[int, Meta(ge=0, le=100)]

    def __post_init__(self) -> None:
        if self.number % 2:
            raise at_fault("number", "Expected an even number")


class Span(msgspec.Struct):
    first: Annotated[int, Meta(ge=0, le=9)]
    last: Annotated[int, Meta(ge=0, le=9)]

    def __post_init__(self) -> None:
        if self.first > self.last:
            raise ValueError("it ends before it begins")


class Spans(Command, type="all.spans"):
    """What its parts say themselves, no type says either."""

    spans: list[Span]


class Strange(Command, type="all.strange"):
    lines: list[complex]


def test_a_lane_takes_every_command_that_is_made() -> None:
    # What the same seed draws differs between versions of Python.
    made = [command for seed in (1, 2) for command in drawn(commands_of(Everything), 60, seed)]
    assert len(made) > 80
    for command in made:
        again = parse(Everything, command.arguments())
        assert msgspec.structs.replace(again, raw=command.raw) == command
    assert {command.kind for command in made} == {"a", "b", 3}
    assert {command.tens for command in made} <= set(range(-50, 51, 10))
    assert len({command.tens for command in made}) > 3
    assert max(abs(command.any_number) for command in made) <= INTEGER_MAX
    assert any(line.parts for command in made for line in command.lines)
    assert {command.may_be_left_out is None for command in made} == {True, False}


def test_what_the_class_itself_refuses_is_not_made() -> None:
    assert {command.number % 2 for command in drawn(commands_of(Even), 50, 1)} == {0}


def test_commands_of_several_types_name_the_same_rows() -> None:
    booked, added = drawn(commands_of(BookSeat), 100, 1), drawn(commands_of(AddSeat), 100, 1)
    assert {1, 2, 3, 4} <= {command.id for command in booked} & {command.id for command in added}
    assert max(command.id for command in booked) > 1000
    assert {"a", "b"} <= {command.holder for command in booked}
    assert {"A", "B"} <= {command.code for command in added}


def test_the_same_commands_are_made_again() -> None:
    assert drawn(commands_of(BookSeat), 10, 7) == drawn(commands_of(BookSeat), 10, 7)
    assert drawn(commands_of(BookSeat), 10, 7) != drawn(commands_of(BookSeat), 10, 8)


def test_a_type_that_is_not_known_is_named_with_its_field() -> None:
    with pytest.raises(
        TypeError, match=r"Strange\.lines: no strategy is known for its type \(Custom\): give `simulate`"
    ):
        commands_of(Strange)


def test_of_what_a_part_of_a_command_refuses_none_is_made() -> None:
    made = drawn(commands_of(Spans), 40, 1)
    assert any(each.spans for each in made)
    assert all(span.first <= span.last for each in made for span in each.spans)
