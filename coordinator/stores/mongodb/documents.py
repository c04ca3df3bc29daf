"""Rows as documents: the fields have the names of the model's, except for the key, which is `_id`."""

from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from uuid import UUID

import msgspec

from coordinator.service.rows import Key, R, Row, Value
from coordinator.stores.port import BatchFault
from coordinator.stores.row_makers import row_of_mapping, value_types_of

LEVELS_MAX: Final = 100
"""The most levels of documents and arrays within each other, the row included:
https://www.mongodb.com/docs/manual/reference/limits/."""

Document: TypeAlias = dict[str, Any]

if TYPE_CHECKING:
    from pymongo.asynchronous.collection import AsyncCollection
    from pymongo.asynchronous.database import AsyncDatabase

    Documents: TypeAlias = AsyncDatabase[Document]
else:
    # A module that names it in an annotation does not load pymongo.
    Documents = Any


def latest_of(collection: "AsyncCollection[Document]") -> "AsyncCollection[Document]":
    """The collection, whose reads of one document see every commit that was acknowledged before, even when a primary
    that was cut off still answers: each costs a round trip to the database's majority."""
    from pymongo import ReadPreference  # noqa: PLC0415  # see above
    from pymongo.read_concern import ReadConcern  # noqa: PLC0415

    return collection.with_options(read_concern=ReadConcern("linearizable"), read_preference=ReadPreference.PRIMARY)


def row_of_document(model: type[R], document: Document) -> R:
    """A row of a MongoDB document, whose `_id` is the row's key. Its integers are plain ones: see `plain`."""
    key = document.pop("_id")
    if isinstance(model.key, str):
        document[model.key] = key
    return row_of_mapping(model, _Fields(plain(document)))


def plain(document: Document) -> Document:
    """The document with plain integers, changed in place.

    Those that MongoDB keeps in 64 bits are of a class of the driver's, which msgspec does not write. To have the driver
    convert them would nearly double the time for which it decodes.
    """
    if not _unsound().isdisjoint(map(type, document.values())):
        for name, value in document.items():
            document[name] = _plain(value)
    return document


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return plain(value)
    if isinstance(value, list):
        return list(map(_plain, value))
    return int(value) if type(value) in _unsound() else value


@cache
def _unsound() -> frozenset[type]:
    """The types of values that are, or may have in them, an integer of the driver's."""
    # As in `_converted`.
    from bson.int64 import Int64  # noqa: PLC0415

    return frozenset({Int64, dict, list})


def document_of(row: Row) -> Document:
    """The MongoDB document of a row.

    Raises BatchFault for one with more levels than MongoDB takes: the driver sends as many levels as Python's stack has
    room for, and the reason in a server's answer may be uncertain.
    """
    document = msgspec.structs.asdict(row)
    for name, convert in _converted(type(row)):
        if document[name] is not None:
            document[name] = convert(document[name])
    for name, value in document.items():
        if isinstance(value, _NESTING) and _has_more_levels(value, LEVELS_MAX - 1):
            raise BatchFault(f"{type(row).__name__}.{name} has more levels than the {LEVELS_MAX} that MongoDB takes")
    if isinstance(row.key, str):
        return {"_id": document.pop(row.key), **document}
    # Its columns are fields, too: no index on `_id` finds a part of it.
    return {"_id": {name: document[name] for name in row.key}, **document}


def id_of(model: type[Row], key: Key) -> Any:
    """The `_id` of a row with this key: of several columns a document, in which their order counts."""
    if isinstance(model.key, str) or not isinstance(key, tuple):
        return key
    return dict(zip(model.key, key, strict=True))


def condition_of(model: type[Row], where: Sequence[tuple[str, Value]]) -> Document:
    """The condition that a row's fields have these values."""
    converted = dict(_converted(model))
    return {
        "_id" if column == model.key else column: converted[column](value)
        if column in converted and value is not None
        else value
        for column, value in where
    }


class _Fields(Document):
    """A document that has every field: one that is None may be missing."""

    def __missing__(self, name: str) -> None:
        return None


@cache
def _converted(model: type[Row]) -> Sequence[tuple[str, Callable[[Any], Any]]]:
    """The fields whose values the driver does not take as they are, each with what makes such a value of it."""
    # Only here, so that a process that reads no document does not load it.
    from bson.decimal128 import Decimal128  # noqa: PLC0415

    as_they_are = (bool, float, UUID)
    return [
        (name, values.nested or (Decimal128 if values.kind is Decimal else values.plain))
        for name, values in value_types_of(model).items()
        if values.kind not in as_they_are
    ]


_NESTING: Final = (dict, list, tuple)


def _has_more_levels(value: Any, levels: int) -> bool:
    if not isinstance(value, _NESTING):
        return False
    within = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_has_more_levels(each, levels - 1) for each in within)
