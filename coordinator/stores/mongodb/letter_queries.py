"""Which dead letters an operator means, as a condition of MongoDB's."""

from coordinator.stores.admin import LetterQuery
from coordinator.stores.mongodb.documents import Document


def letters_of(query: LetterQuery, after: int) -> Document:
    """The condition of the letters that are meant, with a higher number than `after`."""
    fields = ("target", "command_id", "type", "code", "origin")
    condition: Document = {name: value for name in fields if (value := getattr(query, name)) is not None}
    times = {"$gte": query.since, "$lt": query.until}
    dead_at = {sign: time for sign, time in times.items() if time is not None}
    return condition | {"_id": {"$gt": after}} | ({"dead_at": dead_at} if dead_at else {})
