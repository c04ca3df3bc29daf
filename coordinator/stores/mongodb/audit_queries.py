"""What operators ask of the audit, on MongoDB."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from pymongo.client_session import ClientSession
from pymongo.synchronous.database import Database

from coordinator.stores.audit import ActQuery, AuditBounds, AuditedCommand, ChangedRow, ChangeQuery, actor_texts
from coordinator.stores.audit_tables import AuditedTable, OperatorAct, RowChange
from coordinator.stores.kept_entries import ASKED, ORDERS, cutoff_of_orders
from coordinator.stores.lane_tables import DeadLetter, LogEntry, OutboxEntry, Timer
from coordinator.stores.mongodb.documents import Document, row_of_document
from coordinator.stores.personal_tables import PersonalEntry
from coordinator.stores.times import utc

_PAGE: Final = 1000


def commands_of(database: Database[Document], query: ChangeQuery, before: int, limit: int) -> list[AuditedCommand]:
    """The last commands below a sequence that the query chooses, the last one first."""
    entries = _entries_of_row(database, query, before) if query.is_of_row else _entries(database, query, before, limit)
    found: list[LogEntry] = []
    for entry in entries:
        if len(found) == limit:
            break
        found.append(entry)
    changes = _changes(database, query, [entry.sequence for entry in found])
    return [
        AuditedCommand(
            sequence=entry.sequence,
            command_id=entry.command_id,
            type=entry.type,
            status=entry.status,
            settled_at=utc(entry.settled_at),
            actor=entry.actor,
            changes=changes.get(entry.sequence, []),
        )
        for entry in found
    ]


def bounds_of(database: Database[Document], table: str | None) -> AuditBounds:
    """How far back the log goes, and the audit of a table."""
    log = database[LogEntry.table]
    first, last = log.find_one({}, sort=[("sequence", 1)]), log.find_one({}, sort=[("sequence", -1)])
    row = None if table is None else database[AuditedTable.table].find_one({"_id": table})
    return AuditBounds(
        first=None if first is None else first["sequence"],
        first_at=None if first is None else utc(first["settled_at"]),
        last_epoch=0 if last is None else last["epoch"],
        audited=None if row is None else row_of_document(AuditedTable, row),
    )


def acts_of(database: Database[Document], query: ActQuery, before: str | None, limit: int) -> list[OperatorAct]:
    """The last acts before one that the query chooses, the last one first."""
    meant: Document = {} if before is None else {"_id": {"$lt": before}}
    if query.author is not None:
        meant["author"] = query.author
    if query.act is not None:
        meant["act"] = query.act
    if times := _between(query.since, query.until):
        meant["done_at"] = times
    found = database[OperatorAct.table].find(meant).sort("_id", -1).limit(limit)
    return [row_of_document(OperatorAct, document) for document in found]


def is_old(cutoff: datetime) -> Document:
    """Whether an entry of the log was settled before, and no order is kept for longer."""
    is_of_others: Document = {"type": {"$nin": list(ORDERS)}}
    return {
        "settled_at": {"$lt": cutoff},
        "$or": [is_of_others, {"settled_at": {"$lt": cutoff_of_orders(cutoff)}}],
    }


def is_old_act(cutoff: datetime) -> Document:
    """Whether an operator did it before, and it is kept for no longer."""
    is_asked: Document = {"act": ASKED, "done_at": {"$lt": cutoff_of_orders(cutoff)}}
    return {"done_at": {"$lt": cutoff}, "$or": [{"act": {"$ne": ASKED}}, is_asked]}


def forget_changes(
    database: Database[Document], after: int, last: int, kept: Sequence[int], session: ClientSession | None
) -> None:
    """Delete what is kept beside the entries of commands behind one sequence and up to another, but for those whose
    entries stay: the rows that they changed, and whose personal data they had.

    What they emitted may still wait, or be a dead letter: whose data that has stays known, and is looked at again.
    """
    these = {"sequence": {"$gt": after, "$lte": last, "$nin": list(kept)}}
    database[RowChange.table].delete_many(these, session=session)
    personal = database[PersonalEntry.table]
    ids = [document["command_id"] for document in personal.find(these, {"command_id": 1}, session=session)]
    for start in range(0, len(ids), _PAGE):
        page = ids[start : start + _PAGE]
        somewhere = {
            document[field]
            for model, field in ((DeadLetter, "command_id"), (Timer, "about"), (OutboxEntry, "command_id"))
            for document in database[model.table].find({field: {"$in": page}}, {field: 1}, session=session)
        }
        gone = [each for each in page if each not in somewhere]
        personal.delete_many(these | {"command_id": {"$in": gone}}, session=session)


def _entries(database: Database[Document], query: ChangeQuery, before: int, limit: int) -> Iterator[LogEntry]:
    meant = {"sequence": {"$lt": before, "$gt": query.after}} | _condition(query)
    for document in database[LogEntry.table].find(meant).sort("sequence", -1).limit(limit):
        yield row_of_document(LogEntry, document)


def _entries_of_row(database: Database[Document], query: ChangeQuery, before: int) -> Iterator[LogEntry]:
    while True:
        page = database[RowChange.table].find(
            _row(query) | {"sequence": {"$lt": before, "$gt": query.after}}, {"sequence": 1}
        )
        sequences = [document["sequence"] for document in page.sort("sequence", -1).limit(_PAGE)]
        meant = {"sequence": {"$in": sequences}} | _condition(query)
        entries = [row_of_document(LogEntry, document) for document in database[LogEntry.table].find(meant)]
        yield from sorted(entries, key=lambda entry: entry.sequence, reverse=True)
        if len(sequences) < _PAGE:
            return
        before = sequences[-1]


def _row(query: ChangeQuery) -> Document:
    return {"row_table": query.row_table, "row_key": query.row_key}


def _condition(query: ChangeQuery) -> Document:
    found: Document = {name: asked for name in ("type", "status") if (asked := getattr(query, name)) is not None}
    if times := _between(query.since, query.until):
        found["settled_at"] = times
    if query.actor is not None:
        whole, begun = actor_texts(query.actor)
        # In the order of bytes, all texts that begin so are from this one up to the one with the next last sign.
        found["$or"] = [{"actor": whole}, {"actor": {"$gte": begun, "$lt": begun[:-1] + chr(ord(begun[-1]) + 1)}}]
    return found


def _between(since: datetime | None, until: datetime | None) -> Document:
    return {operator: time for operator, time in (("$gte", since), ("$lt", until)) if time is not None}


def _changes(database: Database[Document], query: ChangeQuery, sequences: list[int]) -> dict[int, list[ChangedRow]]:
    """By sequence: what these commands changed."""
    meant: Document = {"sequence": {"$in": sequences}} | (_row(query) if query.is_of_row else {})
    found: dict[int, list[ChangedRow]] = {}
    for document in database[RowChange.table].find(meant).sort([("sequence", 1), ("place", 1)]):
        row = row_of_document(RowChange, document)
        fields: dict[str, Any] = {name: getattr(row, name) for name in ChangedRow.__struct_fields__}
        found.setdefault(row.sequence, []).append(ChangedRow(**fields))
    return found
