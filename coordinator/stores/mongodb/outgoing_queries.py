"""What operators ask of what a lane is to send, its outbox and its timers, on MongoDB."""

from pymongo.database import Database

from coordinator.stores.admin import EmittedSummary, OnItsWay, TimerSummary, WaitingTimers
from coordinator.stores.lane_tables import TIMERS_WAITING, OutboxEntry, Series, Timer
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


def on_its_way(database: Database[Document], command_id: str) -> OnItsWay:
    """Where one emitted command is."""
    entry = database[OutboxEntry.table].find_one({"command_id": command_id}, {"arguments": 0})
    before = 0
    if entry is not None:
        ahead = {"lane": entry["lane"], "_id": {"$lt": entry["_id"]}}
        before = database[OutboxEntry.table].count_documents(ahead)
    # By the index: a command's own timer is about itself.
    own = {"about": command_id, "command_id": command_id}
    timer = database[Timer.table].find_one(own, {"arguments": 0}, sort=[("_id", 1)])
    return OnItsWay(
        emitted=None if entry is None else _emitted(entry),
        before=before,
        timer=None if timer is None else _timer(timer),
    )


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
