"""The connection of an operator's commands to a lane's database on MongoDB, and their transactions."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TypeVar

import msgspec
from pymongo import WriteConcern
from pymongo.client_session import ClientSession
from pymongo.errors import DuplicateKeyError, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.synchronous.database import Database

from coordinator.runtime.addresses import Address
from coordinator.service.errors import ConfigurationError, DatabaseUnavailable
from coordinator.service.lane_names import settings_prefix
from coordinator.service.rows import Row
from coordinator.stores.admin import LOCK_TIMEOUT_S, NOT_ACTIVE, ChangeUnknown, Holding, LeaseState, lineages_of_loss
from coordinator.stores.audit_tables import OperatorAct
from coordinator.stores.lease_table import LEASE_TABLE
from coordinator.stores.mongodb.client import open_client
from coordinator.stores.mongodb.documents import Document, document_of
from coordinator.stores.mongodb.driver_arguments import connection_of
from coordinator.stores.mongodb.plain_integers import with_plain_integers
from coordinator.stores.moves import LaneMove, decode_move, encode_move, paused_by
from coordinator.stores.one_lane import check_lane, unused_lease
from coordinator.stores.port import Fenced

T = TypeVar("T")


class MongoAdminSession:
    """Connects on first use. Raises ConfigurationError for an address it cannot read."""

    def __init__(self, address: Address, lane: str) -> None:
        self._lane = lane
        self._client = open_client(connection_of(address), f"operator of lane {lane}")
        self._database: Database[Document] = self._client.get_database(
            address.database, with_plain_integers(self._client.codec_options), read_concern=ReadConcern("majority")
        )
        self._is_migrated = False

    def close(self) -> None:
        self._client.close()

    def _prove(self, session: ClientSession, holding: Holding) -> None:
        """Raises Fenced unless the lane is active under this lease. Until the transaction ends nobody changes it."""
        lease = holding()
        if lease is not None:
            held = {"_id": self._lane, "epoch": lease.epoch, "holder": lease.holder, "paused": None}
            found = self._database[LEASE_TABLE].update_one(
                held | {"sequence": {"$gte": lease.sequence}}, {"$inc": {"batches": 1}}, session=session
            )
            if found.matched_count == 1:
                return
        raise Fenced(NOT_ACTIVE.format(self._lane))

    def _keep_act(self, session: ClientSession, act: OperatorAct | None) -> None:
        """Keep an operator's act with the transaction in which it is done."""
        if act is not None:
            self._database[OperatorAct.table].insert_one(document_of(act), session=session)

    def _changing(self, transact: Callable[[ClientSession], T], now: datetime, *, creates: bool = True) -> T:
        """Run a transaction that counts the revision up; return its result. `creates`: also where no lane ever ran."""

        def begin(session: ClientSession) -> T:
            # This write comes first: it takes the lease, so that no batch commits beside what follows.
            self._database[LEASE_TABLE].update_one({"_id": self._lane}, {"$inc": {"revision": 1}}, session=session)
            return transact(session)

        if creates:
            self._count_revision(now)
        return self._in_transaction(begin)

    def unread_columns(self, _models: Sequence[type[Row]]) -> list[str]:
        with self._translated():
            raise ConfigurationError("a lane can be moved to MongoDB, and not from there")

    def unfilled_references(self, _models: Sequence[type[Row]]) -> list[str]:
        with self._translated():
            # There are no foreign keys.
            return []

    def set_move(
        self,
        before: LaneMove | None,
        after: LaneMove | None,
        now: datetime,
        act: OperatorAct | None = None,
        *,
        of: LeaseState | None = None,
    ) -> bool:
        def transact(session: ClientSession) -> bool:
            lease = self._database[LEASE_TABLE].find_one({"_id": self._lane}, session=session)
            if lease is None or decode_move(lease.get("move")) != before:
                return False
            told = after
            if told is not None and before is None:
                told = msgspec.structs.replace(told, batches=lease["batches"])
            values = {
                "move": None if told is None else encode_move(told),
                "paused": paused_by(before, told, lease.get("paused")),
            }
            if of is not None:
                values |= {"lineage": of.lineage, "supersedes": of.supersedes}
            self._database[LEASE_TABLE].update_one({"_id": self._lane}, {"$set": values}, session=session)
            self._keep_act(session, act)
            return True

        return self._changing(transact, now)

    def accept_loss(
        self, sequence: int, up_to: int, now: datetime, act: OperatorAct | None = None, *, lineage: str | None = None
    ) -> int:
        def transact(session: ClientSession) -> int:
            leases = self._database[LEASE_TABLE]
            lease = lease_of(leases.find_one({"_id": self._lane}, session=session))
            if lease is None or lease.sequence != sequence:
                return 0 if lease is None else lease.sequence
            values = {"loss_accepted": up_to, **lineages_of_loss(lease, up_to, lineage)}
            leases.update_one({"_id": self._lane}, {"$set": values}, session=session)
            self._keep_act(session, act)
            return sequence

        # A command that changes nothing must not make the lane renew its lease.
        with self._translated():
            lease = self._database[LEASE_TABLE].find_one({"_id": self._lane}, {"sequence": 1})
        found = 0 if lease is None else int(lease["sequence"])
        return self._changing(transact, now) if found == sequence else found

    def forget_move_notes(self, _batch_rows: int) -> Iterator[int]:
        with self._translated():
            # No lane moves away from here, so none notes anything.
            yield from ()

    def _in_transaction(self, transact: Callable[[ClientSession], T]) -> T:
        def checked(session: ClientSession) -> T:
            # A transaction that is tried again may be so on another server.
            self._check_lane(session)
            return transact(session)

        with self._translated(), self._client.start_session() as session:
            return session.with_transaction(
                checked,
                read_concern=ReadConcern("snapshot"),
                write_concern=WriteConcern(w="majority", j=True),
                max_commit_time_ms=LOCK_TIMEOUT_S * 1000,
            )

    def _count_revision(self, now: datetime) -> None:
        """Waits for a transaction that has changed the lease. Makes the lease of a lane that never ran."""
        fresh = {name: value for name, value in unused_lease(now).items() if name != "revision"}
        change = {"$inc": {"revision": 1}, "$setOnInsert": fresh}
        with self._translated():
            lease = self._database[LEASE_TABLE]
            try:
                lease.update_one({"_id": self._lane}, change, upsert=True)
            except DuplicateKeyError:
                # A coordinator created the document at the same moment.
                lease.update_one({"_id": self._lane}, change, upsert=True)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """The one place where the driver's errors become ours, and where the database is seen to be the lane's."""
        try:
            if not self._is_migrated:
                self._check_migrated()
            # Each time: the driver may have connected anew, and the address lead elsewhere.
            self._check_lane()
            yield
        except (PyMongoError, OSError) as error:
            detail = str(error).partition(", Timeout:")[0]
            text = f"the database of lane {self._lane}: {detail}"
            if isinstance(error, PyMongoError) and error.has_error_label("UnknownTransactionCommitResult"):
                raise ChangeUnknown(f"{text}; the change may be made: look, and repeat it") from error
            raise DatabaseUnavailable(text) from error

    def _check_migrated(self) -> None:
        # A write to a collection that does not exist would make it.
        if not self._database.list_collection_names(filter={"name": LEASE_TABLE}):
            raise ConfigurationError(
                f"the database of {settings_prefix(self._lane)}DATABASE_URL is not migrated: "
                f"run `coordinator migrate {self._lane}`"
            )
        self._is_migrated = True

    def _check_lane(self, session: ClientSession | None = None) -> None:
        other = self._database[LEASE_TABLE].find_one({"_id": {"$ne": self._lane}}, {"_id": 1}, session=session)
        check_lane(() if other is None else (other["_id"],), self._lane)


def lease_of(document: Document | None) -> LeaseState | None:
    """The lane's lease document; None: it never ran."""
    if document is None:
        return None
    # A lease of an earlier release has not all of it.
    values: Document = {**dict.fromkeys(LeaseState.__struct_fields__), "revision": 0, **document}
    values["move"] = decode_move(document.get("move"))
    return LeaseState(**{name: values[name] for name in LeaseState.__struct_fields__})
