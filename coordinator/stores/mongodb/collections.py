"""Collections and unique indexes: MongoDB has no other schema."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from bson.binary import Binary
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import CollectionInvalid, DuplicateKeyError, OperationFailure

from coordinator.runtime.addresses import Address
from coordinator.service.errors import ConfigurationError
from coordinator.service.rows import Row
from coordinator.service.service import Service
from coordinator.stores.announcements import Announcement, AnnouncementChange, Announcements, Withdrawal
from coordinator.stores.field_types import field_type, hints_of
from coordinator.stores.fingerprint_keys import FingerprintKey, first_fingerprint_key
from coordinator.stores.idempotency import first_secrets
from coordinator.stores.lane_tables import (
    LANE_MODELS,
    LEFT_BY_LANE,
    AnnouncedVersion,
    ApiKey,
    DeadLetter,
    IdempotencySecret,
    LogEntry,
    OutboxEntry,
    Timer,
)
from coordinator.stores.lease_table import LEASE_TABLE
from coordinator.stores.mongodb.collection_differences import differences, made_indexes
from coordinator.stores.mongodb.documents import Document, document_of
from coordinator.stores.mongodb.driver_arguments import connection_of
from coordinator.stores.one_lane import check_lane, lease_lost, parts_lost, unused_lease
from coordinator.stores.personal_tables import PersonalEntry
from coordinator.stores.sql.declared_tables import index_name

_CONNECT_TIMEOUT_MS = 5000
_NAMESPACE_EXISTS = 48
_MADE: Final = "collections"
"""Of the lease: the lane's collections that `coordinator migrate` has made."""
_LOWEST: Final = {int: -(2**63), str: "", UUID: Binary.from_uuid(UUID(int=0))}
"""The lowest values of the types by which rows are found: the server's order keeps each type by itself."""


def make_collections(service: Service, owner: Address, lane: Address, withdrawals: Sequence[Withdrawal]) -> None:
    """Create the missing collections and indexes, and announce the service's commands. Raises ConfigurationError."""
    client: MongoClient[Document] = MongoClient(**connection_of(owner), serverSelectionTimeoutMS=_CONNECT_TIMEOUT_MS)
    try:
        database = client[owner.database]
        lease = database[LEASE_TABLE]
        lanes = [each["_id"] for each in lease.find({}, {"_id": 1})]
        check_lane(lanes, service.lane, is_migration=owner != lane)
        existing = set(database.list_collection_names())
        _check_lost(database, service.lane, existing)
        if LEASE_TABLE not in existing:
            _create(database, LEASE_TABLE)
        _claim(lease, service.lane, is_migration=owner != lane)
        models: tuple[type[Row], ...] = (ApiKey, IdempotencySecret, *LANE_MODELS)
        own = [model.table for model in models]
        for name in (*own, *(model.table for model in service.models)):
            if name not in existing:
                _create(database, name)
        lease.update_one({"_id": service.lane}, {"$addToSet": {_MADE: {"$each": own}}})
        database[LogEntry.table].create_index("sequence", unique=True, name="command_log_sequence")
        database[OutboxEntry.table].create_index([("lane", 1), ("_id", 1)], name="outbox_lane")
        database[Timer.table].create_index([("about", 1), ("_id", 1)], name="lane_timers_about")
        database[DeadLetter.table].create_index("command_id", name="dead_letters_command")
        database[PersonalEntry.table].create_index("sequence", name="personal_entries_sequence")
        _announce(database[AnnouncedVersion.table], service, withdrawals)
        _make_secret(database[IdempotencySecret.table], is_new=database[LogEntry.table].find_one() is None)
        _make_fingerprint_key(database[FingerprintKey.table], lease)
        for model in (*LANE_MODELS, *service.models):
            for column in model.unique:
                _make_unique(database[model.table], model, column)
            for columns in made_indexes(model):
                database[model.table].create_index(
                    [*((column, 1) for column in columns), ("_id", 1)], name=index_name(model, columns)
                )
        if found := differences(database, service.models):
            raise ConfigurationError(
                "\n  ".join((f"{service.lane}: its collections are not as its rows need them; change them:", *found))
            )
    finally:
        client.close()


def _check_lost(database: Database[Document], lane: str, existing: set[str]) -> None:
    """An empty collection in the place of a lost one would be believed: what is not in the log was never applied."""
    # Before the lease: who migrates at the same time makes that first.
    has_run = any(database[model.table].find_one({}, {"_id": 1}) is not None for model in LEFT_BY_LANE)
    lease = database[LEASE_TABLE].find_one({"_id": lane}, {_MADE: 1})
    if lease is None and has_run and database[LEASE_TABLE].find_one({}, {"_id": 1}) is None:
        # Else it is that of another lane, who migrates at the same time: the claim says so.
        raise lease_lost(lane)
    if lease is not None and (lost := sorted(set(lease.get(_MADE, ())) - existing)):
        raise parts_lost(lane, [f"collection {name}" for name in lost])


def _announce(made: Collection[Document], service: Service, withdrawals: Sequence[Withdrawal]) -> None:
    while True:
        found = {each["_id"]: Announcement(int(each["version"]), each.get("origin")) for each in made.find({})}
        announcements = Announcements(found, service, withdrawals)
        # What another release announces meanwhile stays: it is read again then.
        if all(_is_written(made, change) for change in announcements.changes):
            break
    announcements.say()


def _is_written(made: Collection[Document], change: AnnouncementChange) -> bool:
    """Write a change to what was read; False: that is not there any more."""
    after = None if change.after is None else msgspec.structs.asdict(change.after)
    if change.before is None:
        added = made.update_one({"_id": change.type}, {"$setOnInsert": after}, upsert=True)
        return added.upserted_id is not None
    # A field that is not there is found as null.
    seen = {"_id": change.type, **msgspec.structs.asdict(change.before)}
    if after is None:
        return made.delete_one(seen).deleted_count == 1
    return made.update_one(seen, {"$set": after}).matched_count == 1


def _make_secret(made: Collection[Document], *, is_new: bool) -> None:
    """The first secret of gateways' idempotency keys. Where two migrate at once the first one's stays."""
    # The empty one is made before it: a migration may end between them.
    if made.find_one({"secret": {"$ne": ""}}) is None:
        for secret in first_secrets(is_new=is_new):
            document = document_of(secret)
            made.update_one({"_id": document.pop("_id")}, {"$setOnInsert": document}, upsert=True)


def _make_fingerprint_key(made: Collection[Document], lease: Collection[Document]) -> None:
    """The first key of fingerprints, for a lane that no process has had: one of an earlier release compares without."""
    if made.find_one() is None and lease.find_one({"epoch": {"$gt": 0}}) is None:
        document = document_of(first_fingerprint_key())
        made.update_one({"_id": document.pop("_id")}, {"$setOnInsert": document}, upsert=True)


def _claim(lease: Collection[Document], lane: str, *, is_migration: bool) -> None:
    """Write whose the database is, before the lane has ever run. Raises WrongDatabase if another lane was faster."""
    try:
        # No document has this field, and the index has room for one of those: two leases are never there.
        lease.create_index("another", unique=True, name="lane_lease_one")
        lease.update_one({"_id": lane}, {"$setOnInsert": unused_lease(datetime.now(UTC))}, upsert=True)
    except DuplicateKeyError:
        # It may also be this lane's, if its service is migrated by two at once.
        check_lane([each["_id"] for each in lease.find({}, {"_id": 1})], lane, is_migration=is_migration)


def _make_unique(collection: Collection[Document], model: type[Row], column: str) -> None:
    """As on every kind of database, any number of rows may have no value."""
    name = f"{model.table}_{column}_unique"
    field = field_type(hints_of(model)[column])
    if not field.is_optional:
        collection.create_index(column, unique=True, name=name)
        return
    # Not by the type of a value: the server would not see that a query for one value needs no other rows.
    has_value = {column: {"$gte": _LOWEST[field.kind]}}
    collection.create_index(column, unique=True, name=f"{name}_values", partialFilterExpression=has_value)
    if name in collection.index_information():
        # An index of earlier releases. The new one exists already, so there is no moment without an index.
        collection.drop_index(name)


def _create(database: Any, name: str) -> None:
    try:
        database.create_collection(name)
    except CollectionInvalid:
        return
    except OperationFailure as error:
        if error.code != _NAMESPACE_EXISTS:
            raise
