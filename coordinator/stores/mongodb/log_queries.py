"""What operators ask of the log on MongoDB: which entries stay, however old they are, and how commands came there."""

import re
from collections.abc import Sequence

from pymongo.synchronous.database import Database

from coordinator.service.ids import replay_command_id
from coordinator.stores.admin import PassedEntry
from coordinator.stores.lane_tables import DeadLetter, LogEntry
from coordinator.stores.mongodb.documents import Document, row_of_document
from coordinator.stores.times import utc


def with_letters(database: Database[Document], command_ids: Sequence[str]) -> set[str]:
    """The entries of failed commands whose letters are still there."""
    letters = database[DeadLetter.table].find({"source": {"$in": list(command_ids)}}, {"source": 1})
    return {letter["source"] for letter in letters}


def replayed(database: Database[Document], command_ids: Sequence[str]) -> set[str]:
    """The entries whose replay is in the log, under an id that is derived from theirs."""
    by_replay = {replay_command_id(command_id): command_id for command_id in command_ids}
    found = database[LogEntry.table].find({"_id": {"$in": list(by_replay)}}, {"_id": 1})
    return {by_replay[document["_id"]] for document in found}


def passages_of(database: Database[Document], first: int, last: int) -> list[PassedEntry]:
    """The passages of the entries from one sequence to another, in order."""
    shown = dict.fromkeys(PassedEntry.__struct_fields__, 1)
    found = database[LogEntry.table].find({"sequence": {"$gte": first, "$lte": last}}, shown).sort("sequence", 1)
    return [
        PassedEntry(sequence=each["sequence"], settled_at=utc(each["settled_at"]), passage=each.get("passage"))
        for each in found
    ]


def entries_naming(database: Database[Document], command_id: str, first: int, last: int, limit: int) -> list[LogEntry]:
    """The first of these entries whose passages name a command."""
    named = {"sequence": {"$gte": first, "$lte": last}, "passage": {"$regex": re.escape(command_id)}}
    found = database[LogEntry.table].find(named).sort("sequence", 1).limit(limit)
    return [row_of_document(LogEntry, document) for document in found]
