"""What is wrong with a collection of MongoDB's, by its indexes and its validator."""

from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest

from coordinator import Row, VersionedRow
from coordinator.stores.mongodb.collection_differences import index_differences, uniques_of, validator_differences
from coordinator.stores.port import Changes
from coordinator.stores.write_order import WriteOrder


class Colour(Enum):
    RED = "red"


class Seat(VersionedRow, table="seats", key="id", unique=("place", "code"), index=("holder", ("day", "colour"))):
    id: int
    place: str
    code: UUID | None
    holder: str
    day: date
    colour: Colour
    price: Decimal | None = None
    seen: datetime | None = None
    tags: tuple[str, ...] = ()


class Line(Row, table="lines", key=("order_id", "line")):
    order_id: int
    line: int


SOUND: dict[str, Any] = {
    "_id_": {"key": [("_id", 1)]},
    "place": {"key": [("place", 1)], "unique": True},
    "code": {"key": [("code", 1)], "unique": True, "partialFilterExpression": {"code": {"$gte": 1}}},
    "holder": {"key": [("holder", 1), ("_id", 1)]},
    "day": {"key": [("day", 1), ("colour", 1), ("_id", 1)]},
    "of another": {"key": [("price", 1)], "unique": True, "sparse": True},
}
INDEXES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "sound": ({}, []),
    "none": (
        dict.fromkeys(SOUND),
        [
            "seats lacks an index on holder, _id, by which rows are selected: run `coordinator migrate`",
            "seats lacks an index on day, colour, _id, by which rows are selected: run `coordinator migrate`",
            "seats.place needs a unique index: run `coordinator migrate`",
            "seats.code needs a unique index: run `coordinator migrate`",
        ],
    ),
    "of some": (
        {"holder": SOUND["holder"] | {"partialFilterExpression": {"holder": {"$gte": "b"}}}},
        ["seats lacks an index on holder, _id, by which rows are selected: run `coordinator migrate`"],
    ),
    "not unique": (
        {"place": {"key": [("place", 1)]}},
        ["seats.place needs a unique index, which the index place is not: drop it: run `coordinator migrate`"],
    ),
    "one without a value": (
        {"code": {"key": [("code", 1)], "unique": True}},
        [
            (
                "seats.code has the unique index code, which takes one row without a value, and Seat.code may be None "
                "in many: drop it, and run `coordinator migrate`"
            )
        ],
    ),
}


@pytest.mark.parametrize("name", INDEXES)
def test_all_that_is_wrong_with_the_indexes_is_said(name: str) -> None:
    changes, lines = INDEXES[name]
    indexes = {key: value for key, value in (SOUND | changes).items() if value is not None}
    assert list(index_differences(Seat, indexes)) == lines


def test_a_key_of_several_columns_needs_an_index_of_its_first_ones() -> None:
    assert list(index_differences(Line, {"_id_": {"key": [("_id", 1)]}})) == [
        "lines lacks an index on order_id, _id, by which rows are selected: run `coordinator migrate`"
    ]


class Person(VersionedRow, table="people", key="id"):
    id: int
    mails: list[str]


def test_what_is_unique_is_heeded_where_it_can_be_looked_up() -> None:
    many = {name: {"key": [(name, 1)], "unique": True} for name in ("tags", "codes.part")}
    assert [each.columns for each in uniques_of(Seat, SOUND | many)] == [("place",), ("code",), ("price",), ("tags",)]
    of_list = {"mails": {"key": [("mails", 1)], "unique": True}, "one": {"key": [("version", 1)], "unique": True}}
    before, after = (Person(id=1, mails=[each]) for each in ("old", "new"))
    order = WriteOrder([Person], uniques=list(uniques_of(Person, of_list)))
    steps = order.steps(Changes([], [[after]], [], lambda row: before))
    assert steps == [("update", [after])]


def schema(**properties: Any) -> dict[str, Any]:
    return {"validator": {"$jsonSchema": {"properties": {name: {"bsonType": of} for name, of in properties.items()}}}}


VALIDATORS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "none": ({}, []),
    "another": ({"validator": {"price": {"$gt": 0}}}, []),
    "sound": (
        schema(
            version=["int", "long"],
            place="string",
            code=["binData", "null"],
            colour="string",
            day="string",
            price=["number", "null"],
            seen=["date", "null"],
            tags="array",
            other="int",
        ),
        [],
    ),
    "types": (
        schema(version="int", place="int", colour="int", price="decimal"),
        [
            "the validator of seats allows version as int only, and it is kept as int or long",
            "the validator of seats allows place as int only, and it is kept as string",
            "the validator of seats allows colour as int only, and it is kept as string",
            "the validator of seats allows no null as price, and Seat.price may be None",
        ],
    ),
    "requires": (
        {"validator": {"$jsonSchema": {"required": ["_id", "place", "owner"]}}},
        ["the validator of seats requires owner, and Seat has no such field"],
    ),
    "no others": (
        {"validator": {"$jsonSchema": {"additionalProperties": False, "properties": {"_id": {}, "place": {}}}}},
        [
            "the validator of seats allows no version, code, holder, day, colour, price, seen, tags, and Seat has it",
        ],
    ),
    "off": (schema(place="int") | {"validationLevel": "off"}, []),
    "warns": (schema(place="int") | {"validationAction": "warn"}, []),
}


@pytest.mark.parametrize("name", VALIDATORS)
def test_all_that_a_validator_contradicts_is_said(name: str) -> None:
    options, lines = VALIDATORS[name]
    assert list(validator_differences(Seat, options)) == lines
