"""The store on MongoDB: one multi-document transaction a batch, acknowledged by a majority and journaled.

The fence changes the lease document in the batch's transaction. It must really change it: a write that leaves the
document as it was does not conflict with a takeover.
"""

from collections import deque
from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from typing import Any, Final, TypeAlias

import pymongo
from pymongo import (
    DeleteOne,
    InsertOne,
    MongoClient,
    ReadPreference,
    ReplaceOne,
    ReturnDocument,
    UpdateOne,
    WriteConcern,
)
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.errors import ConnectionFailure, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.synchronous.database import Database

from coordinator.runtime.addresses import Address
from coordinator.service.errors import ConfigurationError
from coordinator.service.lane_names import settings_prefix
from coordinator.service.rows import Key, KeyPart, R, Row, RowSelection, Value, key_of
from coordinator.service.service import Service
from coordinator.stores.guarded import GuardedStore
from coordinator.stores.lane_tables import LANE_MODELS, LogEntry, OutboxEntry
from coordinator.stores.lease_table import LEASE_TABLE
from coordinator.stores.mongodb.client import open_client, problem_of_tls
from coordinator.stores.mongodb.collection_differences import differences, uniques_of
from coordinator.stores.mongodb.documents import Document, condition_of, document_of, id_of, plain, row_of_document
from coordinator.stores.mongodb.driver_arguments import connection_of
from coordinator.stores.mongodb.errors import translated
from coordinator.stores.moves import decode_move
from coordinator.stores.one_lane import check_lane, check_still_own
from coordinator.stores.port import (
    LOOKS,
    Backlog,
    BatchFault,
    Changes,
    Fenced,
    Lease,
    NotAdmitted,
    Read,
    StoreError,
    StoreUnavailable,
    Transaction,
    UnfitTables,
)
from coordinator.stores.row_makers import numbers_of
from coordinator.stores.write_order import WriteKind, WriteOrder

EPOCH_TIMEOUT_S = 3
COMMIT_TIMEOUT_MS = 10_000
VALUES_MAX: Final = 2000
"""The most values by which one command reads: MongoDB takes none of more than 16 MiB."""

_DURABLE: WriteConcern = WriteConcern(w="majority", j=True)

_Operation: TypeAlias = DeleteOne | InsertOne[Document] | ReplaceOne[Document] | UpdateOne

_FRESH: Document = {"sequence": 0, "batches": 0, "revision": 0, "paused": None}


class MongoStore(GuardedStore):
    """Implements `Store`."""

    title = "MongoDB"

    def __init__(self, address: Address, service: Service) -> None:
        self._arguments = connection_of(address)
        self._name = address.database
        self._lane = service.lane
        self._to_look_at = deque([LEASE_TABLE, *(model.table for model in (*LANE_MODELS, *service.models))])
        """All collections of the lane: the next look is at the first ones."""
        self.write_order = WriteOrder()
        """What `check` has found of it."""
        self._session: ClientSession | None = None
        self._epoch = 0
        self._client: MongoClient[Document] | None = None

    def check(self, models: Sequence[type[Row]], *, must_sync: bool = True) -> Sequence[str]:
        setting = f"{settings_prefix(self._lane)}DATABASE_URL"
        with self.guarded():
            database = self._database()
            if "setName" not in self._greeted(database):
                raise ConfigurationError(
                    f"the MongoDB of {setting} is no replica set, so it has no transactions: start it with --replSet"
                )
            # First: another lane's database lacks the collections of this one, and must not be migrated for it.
            check_lane(self._others(database), self._lane)
            existing = set(database.list_collection_names())
            for model in (*models, *LANE_MODELS):
                if model.table not in existing:
                    raise ConfigurationError(
                        f"collection {model.table} is missing in the database of {setting}: run `coordinator migrate`"
                    )
                self._check_rights(database[model.table])
            if found := differences(database, models):
                lines = "\n  ".join(("", *found))
                raise UnfitTables(
                    f"the collections in the database of {setting} are not as the rows of its service need them:{lines}"
                )
            indexes = {model: database[model.table].index_information() for model in models}
            uniques = [unique for model in models for unique in uniques_of(model, indexes[model])]
            self.write_order = WriteOrder(models, uniques=uniques, one_by_one=True)
            self._check_rights(database[LEASE_TABLE])
            if must_sync and not _is_on_disk(database):
                raise ConfigurationError(
                    f"the MongoDB of {setting} keeps its data in memory only: change its storage engine, or accept "
                    "the loss of acknowledged commands with LANE_ALLOW_UNSYNCED=true"
                )
        return ()

    def _greeted(self, database: Database[Document]) -> Document:
        """What the server says of itself. Raises NotAdmitted where it and the address disagree about TLS."""
        try:
            found: Document = database.client.admin.command("hello")
        except ConnectionFailure as error:
            if (problem := problem_of_tls(database.client)) is not None:
                raise NotAdmitted(f"MongoDB: {problem}") from error
            raise
        return found

    def _others(self, database: Database[Document]) -> Sequence[str]:
        """Another lane that has a lease here, if one has."""
        other = database[LEASE_TABLE].find_one({"_id": {"$ne": self._lane}}, {"_id": 1})
        return () if other is None else (other["_id"],)

    def _check_rights(self, collection: Collection[Document]) -> None:
        """Raises where this user may not write it; there is no document that it would change."""
        nothing: Document = {"_id": {"$in": []}}
        collection.update_many(nothing, {"$set": {"checked": True}})
        collection.delete_many(nothing)

    def take_over(self, holder: str, now: datetime, above: int = 0, lineage: str | None = None) -> Lease:
        with self.guarded():
            database = self._database()
            check_still_own(self._others(database), self._lane)
            if above:
                database[LEASE_TABLE].update_one(
                    {"_id": self._lane}, {"$max": {"epoch": above}, "$setOnInsert": _FRESH}, upsert=True
                )
        return self._raise_epoch({"_id": self._lane}, holder, now, upsert=True, lineage=lineage)

    def renew(self, holder: str, now: datetime, epoch: int) -> Lease:
        return self._raise_epoch({"_id": self._lane, "epoch": epoch}, holder, now, upsert=False)

    def current(self) -> Lease | None:
        with self.guarded():
            # Any other read may come from a primary that was cut off, and does not know of a takeover.
            database = self._database()
            leases = database[LEASE_TABLE].with_options(
                read_concern=ReadConcern("linearizable"), read_preference=ReadPreference.PRIMARY
            )
            with pymongo.timeout(EPOCH_TIMEOUT_S):
                lease = leases.find_one({"_id": self._lane})
            if lease is None:
                # Before anything is taken for lost.
                check_still_own(self._others(database), self._lane)
        return None if lease is None else _lease_of(lease)

    def look(self) -> Lease | None:
        lease = self.current()
        with self.guarded():
            database, names = self._database(), self._to_look_at
            count = -(-len(names) // LOOKS)
            missing = set(names) - set(database.list_collection_names())
            if missing:
                raise StoreUnavailable(f"MongoDB: collection {min(missing)} is missing: run `coordinator migrate`")
            for name in islice(names, count):
                self._check_rights(database[name])
            # After a problem the next look is at the same collections: it shows whether that is mended.
            names.rotate(-count)
        return lease

    def command_at(self, sequence: int) -> str | None:
        with self.guarded():
            entry = self._database()[LogEntry.table].find_one({"sequence": sequence}, {"_id": 1})
        return None if entry is None else str(entry["_id"])

    def begin(self) -> Transaction:
        with self.guarded():
            database = self._database()
            session = self._session
            if session is None:
                session = self._session = database.client.start_session(causal_consistency=True)
                # A successor must find the session of this epoch's transactions, also after a reconnection.
                database[LEASE_TABLE].update_one(
                    {"_id": self._lane, "epoch": self._epoch}, {"$set": {"session": session.session_id["id"]}}
                )
            session.start_transaction(
                read_concern=ReadConcern("snapshot"),
                write_concern=_DURABLE,
                read_preference=ReadPreference.PRIMARY,
                max_commit_time_ms=COMMIT_TIMEOUT_MS,
            )
        return MongoTransaction(self, database, session, self._lane)

    def meaning(self, error: Exception) -> StoreError | None:
        return translated(error) if isinstance(error, PyMongoError) else None

    def close(self) -> None:
        client, self._client = self._client, None
        self._session = None
        if client is not None:
            client.close()

    def _raise_epoch(
        self, expected: Document, holder: str, now: datetime, *, upsert: bool, lineage: str | None = None
    ) -> Lease:
        """A write outside any transaction waits for a transaction that has changed the document.

        A transaction outlives its client's connection by up to a minute, so the last holder's is ended first: its
        session stands in the lease.
        """
        with self.guarded():
            database = self._database()
            before = database[LEASE_TABLE].find_one(expected)
            if before is not None and before.get("session") is not None:
                # A command knows no UUIDs by itself.
                database.client.admin.command(
                    "killSessions", [{"id": before["session"]}], codec_options=database.codec_options
                )
            begun: Document = {}
            if lineage is not None and (before is None or before.get("lineage") is None):
                begun = {"lineage": lineage}
                # Another one may begin it at the same time.
                expected, upsert = expected | {"lineage": None}, before is None
            self._session = database.client.start_session(causal_consistency=True)
            lease = database[LEASE_TABLE].find_one_and_update(
                expected,
                {
                    "$inc": {"epoch": 1},
                    "$set": {"holder": holder, "taken_at": now, "session": self._session.session_id["id"], **begun},
                    "$setOnInsert": _FRESH,
                },
                upsert=upsert,
                return_document=ReturnDocument.AFTER,
            )
        if lease is None:
            raise Fenced(f"the epoch of lane {self._lane} was raised by another consumer")
        self._epoch = int(lease["epoch"])
        return _lease_of(lease)

    def _database(self) -> Database[Document]:
        if self._client is None:
            self._client = open_client(self._arguments, f"lane {self._lane}")
        return self._client[self._name]


def _is_on_disk(database: Database[Document]) -> bool:
    """Whether a commit that is journaled is on disk: the engine without one takes `j` and syncs nothing.

    A collection's statistics name its engine, to any user who may read it.
    """
    return "inMemory" not in database.command("collStats", LEASE_TABLE)


def _lease_of(lease: Document) -> Lease:
    lease = plain(lease)
    return Lease(
        lease["epoch"],
        lease["sequence"],
        lease["revision"],
        lease["paused"],
        lease.get("loss_accepted"),
        lease["holder"],
        decode_move(lease.get("move")),
        lineage=lease.get("lineage"),
        supersedes=lease.get("supersedes"),
    )


class MongoTransaction:
    """Implements `Transaction`."""

    def __init__(self, store: MongoStore, database: Database[Document], session: ClientSession, lane: str) -> None:
        self._store = store
        self._database = database
        self._session = session
        self._lane = lane

    def load(self, reads: Sequence[Read | RowSelection[Row]]) -> list[list[Any]]:
        with self._store.guarded():
            return [self._load(read) for read in reads]

    def scan(
        self, model: type[R], limit: int, after: Key | None = None, where: tuple[str, KeyPart] | None = None
    ) -> list[R]:
        with self._store.guarded():
            return self._first(model, () if where is None else (where,), after, limit)

    def last(self, model: type[R], limit: int) -> list[R]:
        with self._store.guarded():
            found = self._of(model).find({}, session=self._session).sort("_id", -1).limit(limit)
            return [row_of_document(model, document) for document in found]

    def last_numbers(self, model: type[Row], limit: int) -> list[int]:
        with self._store.guarded():
            found = self._of(model).find({}, {"_id": True}, session=self._session).sort("_id", -1).limit(limit)
            return numbers_of(model, ([document["_id"]] for document in found))

    def backlog(self) -> list[Backlog]:
        by_lane = {"_id": "$lane", "rows": {"$sum": 1}, "oldest_at": {"$min": "$created_at"}}
        with self._store.guarded():
            found = self._of(OutboxEntry).aggregate([{"$group": by_lane}], session=self._session)
            return [Backlog(each["_id"], each["rows"], each["oldest_at"]) for each in found]

    def commit(self, lease: Lease, sequence: int, changes: Changes) -> None:
        with self._store.guarded():
            fenced = self._database[LEASE_TABLE].update_one(
                {"_id": self._lane, "epoch": lease.epoch, "sequence": lease.sequence, "revision": lease.revision},
                {"$set": {"sequence": sequence}, "$inc": {"batches": 1}},
                session=self._session,
            )
            if fenced.matched_count != 1:
                raise Fenced(f"epoch {lease.epoch} of lane {self._lane} is over")
            added_again = {id(row) for row in changes.added_again}
            for kind, rows in self._store.write_order.steps(changes):
                self._write(rows, kind, [_operation(kind, row, is_new=id(row) in added_again) for row in rows])
            self._session.commit_transaction()

    def rollback(self) -> None:
        try:
            if self._session.in_transaction:
                self._session.abort_transaction()
        except PyMongoError:
            self._store.close()

    def _load(self, read: Read | RowSelection[Row]) -> list[Any]:
        if isinstance(read, RowSelection):
            return self._first(read.model, read.where, read.after, read.limit)
        field, values = read.column, list(read.values)
        if field == read.model.key:
            field, values = "_id", [id_of(read.model, value) for value in values]
        found: list[Any] = []
        for start in range(0, len(values), VALUES_MAX):
            some = values[start : start + VALUES_MAX]
            condition = {str(field): some[0] if len(some) == 1 else {"$in": some}}
            documents = self._of(read.model).find(condition, session=self._session)
            found += [row_of_document(read.model, document) for document in documents]
        return found

    def _first(self, model: type[R], where: Sequence[tuple[str, Value]], after: Key | None, limit: int) -> list[R]:
        """The first rows in order of their keys, those after one of them, with values in some fields."""
        condition = condition_of(model, where)
        if after is not None:
            condition["_id"] = {"$gt": id_of(model, after)} | ({"$eq": condition["_id"]} if "_id" in condition else {})
        found = self._of(model).find(condition, session=self._session).sort("_id", 1).limit(limit)
        return [row_of_document(model, document) for document in found]

    def _of(self, model: type[Row]) -> Collection[Document]:
        return self._database[model.table]

    def _write(self, rows: Sequence[Row], kind: WriteKind, operations: list[_Operation]) -> None:
        written = self._of(type(rows[0])).bulk_write(operations, ordered=True, session=self._session)
        if kind == "update" and written.matched_count != len(rows):
            raise BatchFault(f"wrote {written.matched_count} of {len(rows)} documents of {rows[0].table}")


def _operation(kind: WriteKind, row: Row, *, is_new: bool) -> _Operation:
    if kind == "insert":
        return InsertOne(document_of(row))
    place = {"_id": id_of(type(row), key_of(row))}
    if kind == "delete":
        return DeleteOne(place)
    document = document_of(row)
    if is_new:
        return ReplaceOne(place, document)
    del document["_id"]
    # Fields that the class does not have stay, such as those of a newer release. Some rows have nothing but a key.
    return UpdateOne(place, {"$set": document or place})
