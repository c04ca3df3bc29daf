"""A value that a client has chosen, and that no row takes, is the client's fault: no dead letter, and no lane stops."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import attrs
import pytest
from msgspec import Meta, Struct

from coordinator import Command, Handler, Service, UnitOfWork, VersionedRow
from coordinator.service.principal import Principal
from coordinator.testing import LaneInMemory
from coordinator.testing.lane import Tried


class Seat(VersionedRow, table="seats", key="id", unique=("place",)):
    id: Annotated[int, Meta(ge=1)]
    place: str
    number: int = 0
    booked_at: datetime | None = None
    about: list[str] | None = None


@dataclass
class Booked:
    at: datetime | None = None


@attrs.define
class Asked:
    at: datetime | None = None


class Part(Struct, rename="camel"):
    booked_at: datetime | None = None


class Book(Command, type="seats.book", rename="camel"):
    id: int = 1
    place: str = "A1"
    number: int = 0
    booked_at: datetime | None = None
    part: Part | None = None
    other: Booked | None = None
    asked: Asked | None = None
    parts: tuple[Part, ...] = ()
    by_name: dict[str, Part] | None = None
    about: list[str] | None = None


MICROSECONDS = datetime(2026, 1, 1, 0, 0, 0, 1, UTC)
NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001  # which is what it is about

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "without a zone": ({"booked_at": NAIVE}, "a time without its zone - at `$.bookedAt`"),
    "with microseconds": (
        {"booked_at": MICROSECONDS},
        "a time with microseconds, and databases keep milliseconds: .replace(microsecond=0) drops them - at",
    ),
    "too large": ({"number": 2**70}, "out of range"),
    "below the limit of the row": ({"id": 0}, "Expected `int` >= 1, and it is 0 - at `$.id`"),
    "a space at the end": ({"place": "A1 "}, "text that ends in a space"),
    "NUL": ({"place": "A\0"}, "text with a NUL character - at `$.place`"),
    "in a Struct": ({"part": Part(booked_at=NAIVE)}, "- at `$.part.bookedAt`"),
    "in a dataclass": ({"other": Booked(NAIVE)}, "- at `$.other.at`"),
    "in a class of attrs": ({"asked": Asked(NAIVE)}, "- at `$.asked.at`"),
    "in a list": ({"parts": (Part(), Part(booked_at=NAIVE))}, "- at `$.parts[...].bookedAt`"),
    "in a dict": ({"by_name": {"a": Part(booked_at=NAIVE)}}, "- at `$.byName[...].bookedAt`"),
    "JSON": ({"about": ["a\0"]}, "- at `$.about`"),
}


def book(work: UnitOfWork, command: Book) -> None:
    nested = [part for part in (command.part, *command.parts, *(command.by_name or {}).values()) if part]
    within = [each.at for each in (command.other, command.asked) if each]
    times = [command.booked_at, *within, *(part.booked_at for part in nested)]
    at = next((time for time in times if time), None)
    if work.find(Seat, "place", command.place) is None:
        work.add(Seat(id=command.id, place=command.place, number=command.number, booked_at=at, about=command.about))


def lane_of(handle: Any = book, **of_handler: Any) -> LaneInMemory:
    return LaneInMemory(Service("seats", models=(Seat,), handlers=(Handler(Book, handle, **of_handler),)))


def by_client(lane: LaneInMemory, command: Book) -> Tried:
    return lane.apply(command, actor=Principal(subject="ann"))


@pytest.mark.parametrize("on_failure", ["park", "park-key", "block"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_a_client_has_sent_is_refused_and_others_go_on(name: str, on_failure: str) -> None:
    given, text = REFUSED[name]
    lane = lane_of(on_failure=on_failure, target=lambda _: Seat.at(1))
    tried = by_client(lane, Book(**given))
    assert tried.rejected_with("invalid_arguments"), tried
    assert text in str(tried.outcome.error)
    assert "seats" not in str(tried.outcome.error), "whose tables are nobody's business"
    assert by_client(lane, Book()).applied
    assert [row.place for row in lane.rows(Seat)] == ["A1"]


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_system_emits_is_a_defect(name: str) -> None:
    assert lane_of().apply(Book(**REFUSED[name][0])).failed_with("invalid_row")


WRONG: dict[str, Callable[[Book], dict[str, Any]]] = {
    "another value": lambda command: {"place": f"{command.place} "},
    "of another type": lambda command: {"place": command.id},
    "nothing": lambda command: {"place": command.part},
    "a bool": lambda _: {"id": True},
    "one of its own that the command has elsewhere": lambda _: {"id": 0},
}


@pytest.mark.parametrize("what", WRONG)
def test_what_the_handler_has_made_of_it_is_a_defect(what: str) -> None:
    def handle(work: UnitOfWork, command: Book) -> None:
        row: dict[str, Any] = {"id": 1, "place": "A1"} | WRONG[what](command)
        work.add(Seat(**row))

    assert by_client(lane_of(handle), Book()).failed_with("invalid_row")


def test_a_rule_that_looks_for_it_refuses_it_too() -> None:
    lane = lane_of(allow=lambda actor, command, rows: rows.find(Seat, "place", command.place) is None)
    assert by_client(lane, Book(place="A1 ")).rejected_with("invalid_arguments")
    assert by_client(lane, Book()).applied


def test_a_command_that_holds_itself_has_an_end() -> None:
    def handle(work: UnitOfWork, command: Book) -> None:
        itself: Any = command.about
        itself.append(itself)
        work.add(Seat(id=1, place="made up "))

    assert by_client(lane_of(handle), Book(about=["x"])).failed_with("invalid_row")
