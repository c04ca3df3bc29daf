"""Rows as documents: the fields bear the names of the model's, but for the key, which is `_id`."""

from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from coordinator.service.rows import R, Row
from coordinator.stores.times import utc

Document: TypeAlias = dict[str, Any]

if TYPE_CHECKING:
    from pymongo.asynchronous.database import AsyncDatabase

    Documents: TypeAlias = AsyncDatabase[Document]
else:
    # Whoever names it in an annotation does not load pymongo.
    Documents = Any


def row_of_document(model: type[R], document: Document) -> R:
    """A row of a MongoDB document, whose `_id` is the row's key."""
    document[model.key] = document.pop("_id")
    return model(**{name: utc(document.get(name)) for name in model.__struct_fields__})


def document_of(row: Row) -> Document:
    """The MongoDB document of a row."""
    document = msgspec.structs.asdict(row)
    return {"_id": document.pop(row.key), **document}
