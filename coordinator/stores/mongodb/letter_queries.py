"""Which dead letters an operator means, as a condition of MongoDB's, and those that are found."""

from pymongo.collection import Collection

from coordinator.stores.admin import LetterQuery, LetterSummary
from coordinator.stores.mongodb.documents import Document
from coordinator.stores.times import utc

_PAGE_DOCUMENTS = 100


def letters_of(letters: "Collection[Document]", query: LetterQuery, after: int, limit: int) -> list[LetterSummary]:
    """The first letters that are meant, with a higher number than `after`, in order."""
    names = {name: 1 for name in LetterSummary.__struct_fields__ if name != "id"}
    part = query.contains
    if part is not None:
        # MongoDB finds no bytes within binary data.
        names["arguments"] = 1
    found: list[LetterSummary] = []
    with letters.find(_condition(query, after), names) as cursor:
        for document in cursor.sort("_id", 1).batch_size(_PAGE_DOCUMENTS):
            if part is None or part in bytes(document.pop("arguments")):
                found.append(
                    LetterSummary(id=document.pop("_id"), **{name: utc(value) for name, value in document.items()})
                )
            if len(found) == limit:
                break
    return found


def _condition(query: LetterQuery, after: int) -> Document:
    fields = ("target", "command_id", "type", "code", "origin")
    condition: Document = {name: value for name in fields if (value := getattr(query, name)) is not None}
    times = {"$gte": query.since, "$lt": query.until}
    dead_at = {sign: time for sign, time in times.items() if time is not None}
    return condition | {"_id": {"$gt": after}} | ({"dead_at": dead_at} if dead_at else {})
