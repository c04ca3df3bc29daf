"""A result that does not fit its handler's annotation fails its command, before anything of it is committed."""

import re
from datetime import date
from typing import Annotated, Any

import pytest
from msgspec import Meta, Struct

from coordinator import Command, Deferred, Handler, Row, Service, UnitOfWork
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.testing import LaneInMemory, Tried


class Seat(Row, table="seats", key="id"):
    id: int
    place: str = "A1"


class WideSeat(Seat, table="wide", key="id"):
    more: int


class AsSeat(Struct):
    id: int


class Booked(Struct):
    id: int
    holder: Annotated[str, Meta(min_length=1)]


class Book(Command, type="seats.book"):
    """Adds a seat, and returns something."""


class Unencodable(Struct):
    value: Any


def applied(promised: Any, returned: Any) -> tuple[LaneInMemory, Tried]:
    def book(work: UnitOfWork, command: Book) -> Any:
        work.add(Seat(id=work.next_id("seats")))
        return returned

    book.__annotations__["return"] = promised
    lane = LaneInMemory(Service("seats", models=(Seat,), handlers=(Handler(Book, book),)))
    return lane, lane.apply(Book())


UNFIT: dict[str, tuple[Any, Any, str]] = {
    "another struct": (Booked, Seat(id=7), "returned a Seat where its annotation promises Booked"),
    "None": (Booked, None, "returned None where its annotation promises Booked"),
    "something instead of None": (None, Seat(id=7), "returned a Seat where its annotation promises None"),
    "a field of another type": (Booked, Booked(id="7", holder="ada"), "Expected `int`, got `str` - at `$.id`"),  # type: ignore[arg-type]
    "a field outside its limits": (Booked, Booked(id=7, holder=""), "of length >= 1 - at `$.holder`"),
    "none of several": (Seat | None, Booked(id=7, holder="ada"), f"promises {__name__}.Seat | None"),
    "a struct that looks alike": (Seat, AsSeat(id=7), "returned a AsSeat where its annotation promises Seat"),
    "a dict that looks alike": (Seat, {"id": 7}, "returned a dict where its annotation promises Seat"),
    "a dict without a field": (Booked, {"id": 7}, "returned a dict where its annotation promises Booked"),
    "no number": (float, float("nan"), "returned a float with nan in it, and JSON has no such number"),
    "what JSON does not hold": (Unencodable, Unencodable(1j), "returned a Unencodable, which JSON does not hold: "),
    "an object": (Seat, object(), "returned a object, which JSON does not hold"),
    "a key that is none": (dict, {(1, 2): 3}, "returned a dict, which JSON does not hold"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_result_that_is_not_what_was_promised_fails_its_command(name: str) -> None:
    promised, returned, text = UNFIT[name]
    lane, tried = applied(promised, returned)
    assert tried.failed_with("handler_error")
    assert tried.reason is not None
    assert re.search(r"book \(.*test_results\.py:[0-9]+\) returned ", tried.reason)
    assert text in tried.reason
    assert lane.rows(Seat) == []
    assert tried.outcome.error is not None
    assert "Seat" not in tried.outcome.error.message


FIT: dict[str, tuple[Any, Any]] = {
    "the struct": (Booked, Booked(id=7, holder="ada")),
    "None": (None, None),
    "one of several": (Seat | None, None),
    "a class derived from it": (Seat, WideSeat(id=1, more=2)),
    "a list": (list[date], [date(2026, 1, 1)]),
}


@pytest.mark.parametrize("name", FIT)
def test_a_result_that_can_be_read_by_its_type_is_taken(name: str) -> None:
    lane, tried = applied(*FIT[name])
    assert tried.applied
    assert len(lane.rows(Seat)) == 1


class Wait(Command, type="seats.wait"):
    pass


class Answer(Command, type="seats.answer"):
    pass


def test_a_result_that_comes_later_fits_what_its_command_s_handler_promises() -> None:
    def wait(work: UnitOfWork, command: Wait) -> Booked:
        raise AssertionError

    def answer(work: UnitOfWork, command: Answer) -> None:
        deferred = Deferred(
            command_id="0198c0de-0000-7000-8000-000000000001", type=Wait.type, continuation="shop.go_on"
        )
        work.resume(deferred, given[0])

    handlers: tuple[Handler[Any], ...] = (Handler(Wait, wait), Handler(Answer, answer))
    lane = LaneInMemory(Service("seats", models=(Seat,), handlers=handlers))
    given: list[Any] = [Seat(id=7)]
    tried = lane.apply(Answer())
    assert tried.failed_with("handler_error")
    assert "returned a Seat where its annotation promises Booked" in str(tried.reason)
    assert lane.rows(OutboxEntry) == []
    given = [Booked(id=7, holder="ada")]
    assert [emitted.type for emitted in lane.apply(Answer()).emitted] == ["shop.go_on"]
