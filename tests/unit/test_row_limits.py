"""The limits in the annotations of a row's fields are kept to when a row is written, and only then."""

from typing import Annotated, Any
from uuid import UUID

import pytest
from msgspec import Meta

from coordinator import Command, Handler, Service, UnitOfWork, VersionedRow
from coordinator.testing import LaneInMemory


class Seat(VersionedRow, table="seats", key="id", unique=("place",)):
    id: Annotated[int, Meta(ge=1)]
    place: Annotated[str, Meta(pattern=r"\A[A-Z0-9]+\Z", max_length=9)] = "A1"
    price: Annotated[int, Meta(ge=0, multiple_of=10)] | None = None
    ratio: Annotated[float, Meta(gt=0, lt=1)] = 0.5
    note: Annotated[str, Meta(min_length=2)] | None = None
    tags: Annotated[list[str], Meta(min_length=1)] | None = None
    reference: UUID | None = None


class Put(Command, type="seats.put"):
    """Saves a seat with another place."""

    id: int
    place: str = "B2"


def service_of(**fields: Any) -> Service:
    def put(work: UnitOfWork, command: Put) -> None:
        work.add(Seat(**({"id": 1} | fields)))

    return Service("seats", models=(Seat,), handlers=(Handler(Put, put),))


LIMITS: dict[str, tuple[dict[str, Any], str]] = {
    "below": ({"id": 0}, "seats.id: Expected `int` >= 1"),
    "of another form": ({"place": "a-1"}, "seats.place: Expected `str` matching regex"),
    "no multiple": ({"price": 15}, "seats.price: Expected `int` that's a multiple of 10"),
    "too large": ({"ratio": 1.0}, "seats.ratio: Expected `float` < 1"),
    "too short": ({"note": "x"}, "seats.note: Expected `str` of length >= 2"),
    "empty": ({"tags": []}, "seats.tags: "),
}


@pytest.mark.parametrize("name", LIMITS)
def test_a_value_outside_its_limits_fails_the_command(name: str) -> None:
    fields, text = LIMITS[name]
    lane = LaneInMemory(service_of(**fields))
    tried = lane.apply(Put(id=1))
    assert tried.failed_with("invalid_row")
    assert text in str(tried.reason)
    assert lane.rows(Seat) == []


def test_values_within_their_limits_are_kept() -> None:
    fields: dict[str, Any] = {"place": "Z9", "price": 20, "ratio": 0.1, "note": "xx", "tags": ["a"]}
    lane = LaneInMemory(service_of(**fields))
    assert lane.apply(Put(id=1)).applied
    assert lane.rows(Seat) == [Seat(id=1, **fields)]


def test_what_breaks_a_limit_is_not_found_and_harms_no_command() -> None:
    def put(work: UnitOfWork, command: Put) -> None:
        assert work.get(Seat, 0) is None
        assert work.find(Seat, "place", "a-1") is None

    assert LaneInMemory(Service("seats", models=(Seat,), handlers=(Handler(Put, put),))).apply(Put(id=1)).applied
