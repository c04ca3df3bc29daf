"""Which entries of the log stay, on MongoDB, however old they are."""

from collections.abc import Sequence

from pymongo.synchronous.database import Database

from coordinator.service.ids import replay_command_id
from coordinator.stores.lane_tables import DeadLetter, LogEntry
from coordinator.stores.mongodb.documents import Document


def with_letters(database: Database[Document], command_ids: Sequence[str]) -> set[str]:
    """The entries of failed commands whose letters are still there."""
    letters = database[DeadLetter.table].find({"source": {"$in": list(command_ids)}}, {"source": 1})
    return {letter["source"] for letter in letters}


def replayed(database: Database[Document], command_ids: Sequence[str]) -> set[str]:
    """The entries whose replay is in the log, under an id that is derived from theirs."""
    by_replay = {replay_command_id(command_id): command_id for command_id in command_ids}
    found = database[LogEntry.table].find({"_id": {"$in": list(by_replay)}}, {"_id": 1})
    return {by_replay[document["_id"]] for document in found}
