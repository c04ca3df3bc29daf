"""What operators ask of what a lane is to send, its outbox and its timers, on MongoDB."""

from collections.abc import Sequence

from msgspec.structs import replace
from pymongo.database import Database

from coordinator.stores.admin import EmittedSummary, OnItsWay, TimerSummary, WaitingTimers
from coordinator.stores.lane_tables import TIMERS_WAITING, Cancellation, OutboxEntry, Series, Timer
from coordinator.stores.mongodb.documents import Document
from coordinator.stores.port import Backlog
from coordinator.stores.times import utc


def backlog_of(database: Database[Document]) -> list[Backlog]:
    """The entries of the outbox, counted by target."""
    counted = {"$group": {"_id": "$lane", "rows": {"$sum": 1}, "oldest_at": {"$min": "$created_at"}}}
    found = database[OutboxEntry.table].aggregate([counted, {"$sort": {"_id": 1}}])
    return [Backlog(each["_id"], each["rows"], utc(each["oldest_at"])) for each in found]


def entries_of(database: Database[Document], target: str | None, after: int, limit: int) -> list[EmittedSummary]:
    """The first entries of the outbox with a higher number, for this target or for all, in order."""
    condition: Document = {"_id": {"$gt": after}} | ({} if target is None else {"lane": target})
    found = database[OutboxEntry.table].find(condition).sort("_id", 1).limit(limit)
    return [_emitted(document) for document in found]


def waiting_timers(database: Database[Document]) -> WaitingTimers:
    """How many wait, and when the first is due."""
    first = next(iter(timers_of(database, "", 1)), None)
    counted = database[Series.table].find_one({"_id": TIMERS_WAITING})
    return WaitingTimers(
        count=0 if counted is None else counted["value"], next_at=None if first is None else first.due_at
    )


def timers_of(database: Database[Document], after: str, limit: int) -> list[TimerSummary]:
    """The first of those with a higher key, in order."""
    found = database[Timer.table].find({"_id": {"$gt": after}}, {"arguments": 0}).sort("_id", 1).limit(limit)
    return [_timer(document) for document in found]


def on_its_way(database: Database[Document], command_ids: Sequence[str]) -> dict[str, OnItsWay]:
    """Where each of these commands is."""
    found = dict.fromkeys(command_ids, OnItsWay())
    outbox, meant = database[OutboxEntry.table], {"$in": list(command_ids)}
    counted: dict[str, tuple[int, int]] = {}
    for document in outbox.find({"command_id": meant}, {"arguments": 0}).sort("_id", 1):
        entry = _emitted(document)
        # On from the one before of the same target: all of them count its entries once.
        first, before = counted.get(entry.target, (0, 0))
        before += outbox.count_documents({"lane": entry.target, "_id": {"$gte": first, "$lt": entry.id}})
        counted[entry.target] = entry.id, before
        if found[entry.command_id].emitted is None:
            found[entry.command_id] = OnItsWay(emitted=entry, before=before)
    # By the index: a command's own timer is about itself.
    for document in database[Timer.table].find({"about": meant}, {"arguments": 0}).sort("_id", -1):
        timer = _timer(document)
        if timer.command_id == timer.about:
            found[timer.command_id] = replace(found[timer.command_id], timer=timer)
    for document in database[Cancellation.table].find({"_id": meant}):
        found[document["_id"]] = replace(found[document["_id"]], cancelled_at=utc(document["requested_at"]))
    return found


def _emitted(document: Document) -> EmittedSummary:
    return EmittedSummary(
        id=document["_id"],
        target=document["lane"],
        command_id=document["command_id"],
        type=document["type"],
        created_at=utc(document["created_at"]),
        continuation=document.get("continuation"),
        options=document.get("options"),
    )


def _timer(document: Document) -> TimerSummary:
    return TimerSummary(
        id=document["_id"],
        due_at=utc(document["due_at"]),
        target=document["lane"],
        command_id=document["command_id"],
        about=document["about"],
        type=document["type"],
        set_at=utc(document["set_at"]),
        continuation=document.get("continuation"),
        options=document.get("options"),
    )
