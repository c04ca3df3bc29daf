"""Rows as documents: the fields have the names of the model's, except for the key, which is `_id`."""

from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from coordinator.service.rows import R, Row
from coordinator.stores.port import BatchFault
from coordinator.stores.times import utc

LEVELS_MAX: Final = 100
"""The most levels of documents and arrays within each other, the row included:
https://www.mongodb.com/docs/manual/reference/limits/."""

Document: TypeAlias = dict[str, Any]

if TYPE_CHECKING:
    from pymongo.asynchronous.database import AsyncDatabase

    Documents: TypeAlias = AsyncDatabase[Document]
else:
    # A module that names it in an annotation does not load pymongo.
    Documents = Any


def row_of_document(model: type[R], document: Document) -> R:
    """A row of a MongoDB document, whose `_id` is the row's key."""
    document[model.key] = document.pop("_id")
    return model(**{name: utc(document.get(name)) for name in model.__struct_fields__})


def document_of(row: Row) -> Document:
    """The MongoDB document of a row.

    Raises BatchFault for one with more levels than MongoDB takes: the driver sends as many levels as Python's stack has
    room for, and the reason in a server's answer may be uncertain.
    """
    document = msgspec.structs.asdict(row)
    for name, value in document.items():
        if isinstance(value, _NESTING) and _has_more_levels(value, LEVELS_MAX - 1):
            raise BatchFault(f"{type(row).__name__}.{name} has more levels than the {LEVELS_MAX} that MongoDB takes")
    return {"_id": document.pop(row.key), **document}


_NESTING: Final = (dict, list, tuple)


def _has_more_levels(value: Any, levels: int) -> bool:
    if not isinstance(value, _NESTING):
        return False
    within = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_has_more_levels(each, levels - 1) for each in within)
