"""What is parked in a lane, on MongoDB."""

from pymongo.synchronous.database import Database

from coordinator.stores.admin import ParkedCounts, ParkedKeySummary, ParkedSummary
from coordinator.stores.lane_tables import ParkedCommand
from coordinator.stores.mongodb.documents import Document
from coordinator.stores.times import utc

_HAS_FAILED: Document = {"error_code": {"$ne": None}}


def parked_counts(database: Database[Document]) -> ParkedCounts:
    """How many keys and commands there are."""
    parked = database[ParkedCommand.table]
    keys, rows = parked.count_documents(_HAS_FAILED), parked.count_documents({})
    return ParkedCounts(keys=keys, commands=max(0, rows - keys))


def parked_of(database: Database[Document], key: str | None, command_id: str | None) -> list[ParkedSummary]:
    """As `LaneAdmin.parked`."""
    parked = database[ParkedCommand.table]
    meant: Document = {} if key is None else {"ordering_key": key}
    if command_id is not None:
        its = parked.find_one({"_id": command_id}, {"ordering_key": 1})
        if its is None:
            return []
        meant = {"ordering_key": its["ordering_key"]}
    names = {name: 1 for name in ParkedSummary.__struct_fields__ if name != "command_id"}
    return [
        ParkedSummary(
            command_id=document["_id"],
            ordering_key=document["ordering_key"],
            error_code=document.get("error_code"),
            parked_at=utc(document["parked_at"]),
            actor=document.get("actor"),
        )
        for document in parked.find(meant, names).sort("position", 1)
    ]


def parked_keys_of(database: Database[Document], limit: int) -> list[ParkedKeySummary]:
    """As `LaneAdmin.parked_keys`."""
    parked = database[ParkedCommand.table]
    names = dict.fromkeys(("ordering_key", "error_code", "parked_at", "actor"), 1)
    return [
        ParkedKeySummary(
            ordering_key=document["ordering_key"],
            failed_id=document["_id"],
            error_code=document["error_code"],
            parked_at=utc(document["parked_at"]),
            actor=document.get("actor"),
            waiting=parked.count_documents({"ordering_key": document["ordering_key"], "error_code": None}),
        )
        for document in parked.find(_HAS_FAILED, names).sort("position", 1).limit(limit)
    ]
