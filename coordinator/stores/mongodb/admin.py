"""The operator's view of a lane's database on MongoDB."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import TypeVar

from pymongo import ReturnDocument
from pymongo.client_session import ClientSession
from pymongo.collection import Collection

from coordinator.service.errors import DatabaseUnavailable
from coordinator.service.rows import R, Ref, Row, Value, text_columns
from coordinator.service.service import Service
from coordinator.stores.admin import (
    FAILED_AMONG,
    EmittedSummary,
    Holding,
    LaneState,
    LeaseState,
    LetterQuery,
    LetterSummary,
    OnItsWay,
    ParkedKeySummary,
    ParkedSummary,
    PassedEntry,
    TimerSummary,
)
from coordinator.stores.audit import ActQuery, AuditBounds, AuditedCommand, ChangeQuery
from coordinator.stores.audit_tables import OperatorAct
from coordinator.stores.kept_entries import cutoff_of
from coordinator.stores.lane_tables import (
    LANES_FAULTS,
    NAMELESS,
    SENDERS_BYTES,
    Cancellation,
    DeadLetter,
    LogEntry,
    ParkedCommand,
    PublisherPosition,
    Series,
)
from coordinator.stores.lease_table import LEASE_TABLE
from coordinator.stores.mongodb.admin_session import MongoAdminSession, lease_of
from coordinator.stores.mongodb.audit_queries import acts_of, bounds_of, commands_of, forget_changes, is_old, is_old_act
from coordinator.stores.mongodb.documents import Document, condition_of, document_of, row_of_document
from coordinator.stores.mongodb.letter_queries import letters_of
from coordinator.stores.mongodb.log_queries import entries_naming, passages_of, replayed, with_letters
from coordinator.stores.mongodb.outgoing_queries import (
    backlog_of,
    entries_of,
    on_its_way,
    timers_of,
    waiting_timers,
)
from coordinator.stores.mongodb.parked_queries import parked_counts, parked_keys_of, parked_of
from coordinator.stores.port import Backlog
from coordinator.stores.times import utc

T = TypeVar("T")

_PAGE_DOCUMENTS = 100
_LETTERS_AT_ONCE = 16


class MongoAdmin(MongoAdminSession):
    """Implements `LaneAdmin`."""

    def state(self) -> LaneState:
        with self._translated():
            lease = self._database[LEASE_TABLE].find_one({"_id": self._lane})
            last = self._newest({})
            since = (last.sequence if last else 0) - FAILED_AMONG
            failed = self._newest({"sequence": {"$gt": since}, "status": "failed"})
            dead = self._database[DeadLetter.table].count_documents({})
            parked = parked_counts(self._database)
            outbox, timers = backlog_of(self._database), waiting_timers(self._database)
        return LaneState(
            lease=lease_of(lease),
            last_settled=last,
            last_failed=failed,
            dead_letters=dead,
            parked=parked,
            outbox=outbox,
            timers=timers,
        )

    def dead_letters(self) -> int:
        with self._translated():
            return self._database[DeadLetter.table].count_documents({})

    def sequence(self) -> int:
        with self._translated():
            lease: Document | None = self._database[LEASE_TABLE].find_one({"_id": self._lane}, {"sequence": 1})
        return 0 if lease is None else int(lease["sequence"])

    def command_at(self, sequence: int) -> str | None:
        with self._translated():
            entry: Document | None = self._log.find_one({"sequence": sequence}, {"_id": 1})
        return None if entry is None else str(entry["_id"])

    def clock(self) -> datetime:
        with self._translated():
            said: datetime = self._database.command("hello")["localTime"]
        told: datetime = utc(said)
        return told

    def find(self, command_id: str) -> LogEntry | None:
        with self._translated():
            return self._find(command_id, None)

    def proved(self) -> int | None:
        proved: int | None = None
        # Within it another lane's database is found out. A read shows what the majority has.
        with self._translated():
            return proved

    def keeping(self, models: Sequence[type[Row]], texts: Sequence[str]) -> Ref[Row] | None:
        with self._translated():
            for model in models:
                fields = ["_id" if name == model.key else name for name in text_columns(model)]
                wanted = {"$or": [{name: {"$in": list(texts)}} for name in fields]}
                if fields and (found := self._database[model.table].find_one(wanted, {"_id": 1})) is not None:
                    key = found["_id"]
                    return Ref(model, model.key, tuple(key.values()) if isinstance(key, dict) else key)
        return None

    def rows(self, _service: Service, model: type[R], where: Mapping[str, Value], limit: int) -> list[R]:
        with self._translated():
            found = self._database[model.table].find(condition_of(model, [*where.items()])).sort("_id", 1).limit(limit)
            return [row_of_document(model, document) for document in found]

    def parked(self, *, key: str | None = None, command_id: str | None = None) -> list[ParkedSummary]:
        with self._translated():
            return parked_of(self._database, key, command_id)

    def parked_keys(self, limit: int) -> list[ParkedKeySummary]:
        with self._translated():
            return parked_keys_of(self._database, limit)

    def letters(self, query: LetterQuery, after: int, limit: int) -> list[LetterSummary]:
        with self._translated():
            return letters_of(self._database[DeadLetter.table], query, after, limit)

    def letter(self, number: int) -> DeadLetter | None:
        with self._translated():
            document = self._database[DeadLetter.table].find_one({"_id": number})
        return None if document is None else row_of_document(DeadLetter, document)

    def emitted(self, target: str | None, after: int, limit: int) -> list[EmittedSummary]:
        with self._translated():
            return entries_of(self._database, target, after, limit)

    def backlog(self) -> list[Backlog]:
        with self._translated():
            return backlog_of(self._database)

    def timers(self, after: str, limit: int) -> list[TimerSummary]:
        with self._translated():
            return timers_of(self._database, after, limit)

    def on_its_way(self, command_ids: Sequence[str]) -> dict[str, OnItsWay]:
        with self._translated():
            return on_its_way(self._database, command_ids)

    def passages(self, first: int, last: int) -> list[PassedEntry]:
        with self._translated():
            return passages_of(self._database, first, last)

    def naming(self, command_id: str, first: int, last: int, limit: int) -> list[LogEntry]:
        with self._translated():
            return entries_naming(self._database, command_id, first, last, limit)

    def audited(self, query: ChangeQuery, before: int, limit: int) -> list[AuditedCommand]:
        with self._translated():
            return commands_of(self._database, query, before, limit)

    def audit_bounds(self, table: str | None) -> AuditBounds:
        with self._translated():
            return bounds_of(self._database, table)

    def acts(self, query: ActQuery, before: str | None, limit: int) -> list[OperatorAct]:
        with self._translated():
            return acts_of(self._database, query, before, limit)

    def record(self, act: OperatorAct) -> None:
        with self._translated():
            self._database[OperatorAct.table].insert_one(document_of(act))

    def pause(self, reason: str, now: datetime, act: OperatorAct | None = None) -> LeaseState:
        lease = lease_of(self._set_paused(reason, now, act, ReturnDocument.AFTER))
        if lease is None:
            raise DatabaseUnavailable(f"the lease of lane {self._lane} vanished while it was being paused")
        return lease

    def resume(self, now: datetime, act: OperatorAct | None = None) -> str | None:
        # A command that changes nothing must not make the lane renew its lease.
        with self._translated():
            lease = self._database[LEASE_TABLE].find_one({"_id": self._lane})
        if lease is None or lease.get("paused") is None:
            return None
        before = self._set_paused(None, now, act, ReturnDocument.BEFORE)
        return None if before is None else before.get("paused")

    def _set_paused(self, reason: str | None, now: datetime, act: OperatorAct | None, which: bool) -> Document | None:
        def transact(session: ClientSession) -> Document | None:
            self._keep_act(session, act)
            paused = {"$set": {"paused": reason}}
            lease = self._database[LEASE_TABLE]
            return lease.find_one_and_update({"_id": self._lane}, paused, return_document=which, session=session)

        return self._changing(transact, now)

    def cancel(self, command_id: str, reason: str, now: datetime, act: OperatorAct | None = None) -> LogEntry | None:
        def transact(session: ClientSession) -> LogEntry | None:
            settled = self._find(command_id, session)
            cancellations = self._database[Cancellation.table]
            if settled is None and cancellations.find_one({"_id": command_id}, session=session) is None:
                self._keep_act(session, act)
                row = Cancellation(command_id=command_id, reason=reason, requested_at=now)
                cancellations.insert_one(document_of(row), session=session)
            return settled

        with self._translated():
            settled = self._find(command_id, None)
        return self._changing(transact, now) if settled is None else settled

    def settled_before(self, cutoff: datetime) -> int:
        with self._translated():
            old = is_old(cutoff) | {"sequence": {"$lt": self._highest_sequence()}}
            kept = 0
            in_log = self._database[DeadLetter.table].find({"sequence": {"$ne": None}}, {"source": 1})
            while page := [letter["source"] for letter in islice(in_log, _PAGE_DOCUMENTS)]:
                kept += self._log.count_documents(old | {"_id": {"$in": page}})
            return self._log.count_documents(old) - kept

    def prune(self, cutoff: datetime, batch_rows: int, holding: Holding | None = None) -> Iterator[int]:
        with self._translated():
            highest = self._highest_sequence()
        after = 0
        while True:
            # By pages of the sequence, which is indexed: the time is not.
            with self._translated():
                shown = {"sequence": 1, "settled_at": 1, "status": 1, "type": 1}
                found = self._log.find({"sequence": {"$gt": after, "$lt": highest}}, shown)
                batch = list(found.sort("sequence", 1).limit(batch_rows))
                if not batch:
                    return
                old = [each["_id"] for each in batch if utc(each["settled_at"]) < cutoff_of(each["type"], cutoff)]
                failed = [document["_id"] for document in batch if document["status"] == "failed"]
                stay = with_letters(self._database, failed) | replayed(self._database, failed)
            ids = {*old} - stay
            last = batch[-1]["sequence"]
            kept = [document["sequence"] for document in batch if document["_id"] not in ids]
            gone = self._delete_entries(list(ids), (after, last), kept, holding) if ids else 0
            after = last
            yield gone

    def _delete_entries(
        self, ids: Sequence[str], page: tuple[int, int], kept: Sequence[int], holding: Holding | None
    ) -> int:
        def transact(session: ClientSession) -> int:
            if holding is not None:
                self._prove(session, holding)
            gone = self._log.delete_many({"_id": {"$in": ids}}, session=session).deleted_count
            forget_changes(self._database, *page, kept, session)
            return gone

        return self._in_transaction(transact)

    def forget_letters(
        self, cutoff: datetime, now: datetime, batch_rows: int, holding: Holding | None = None
    ) -> Iterator[int]:
        letters = self._database[DeadLetter.table]
        after = 0
        while True:
            with self._translated():
                found = letters.find({"_id": {"$gt": after}, "dead_at": {"$lt": cutoff}}, {"_id": 1})
                numbers = [document["_id"] for document in found.sort("_id", 1).limit(batch_rows)]
                there = self._without_parked(numbers, None)
            if not numbers:
                return

            def transact(session: ClientSession, numbers: list[int] = numbers) -> int:
                if holding is not None:
                    self._prove(session, holding)
                old = self._without_parked(numbers, session)
                bytes_gone = self._bytes_of_senders(old, session)
                gone = letters.delete_many({"_id": {"$in": [letter["_id"] for letter in old]}}, session=session)
                nameless = Counter(letter["origin"] for letter in old if letter.get("command_id") is None)
                for origin, count in nameless.items():
                    self._count_less(NAMELESS[origin], count, session)
                if bytes_gone:
                    self._count_less(SENDERS_BYTES, bytes_gone, session)
                return gone.deleted_count

            # What changes nothing must not have the lane renew its lease.
            yield self._changing(transact, now, creates=holding is None) if there else 0
            after = numbers[-1]

    def _bytes_of_senders(self, old: Sequence[Document], session: ClientSession) -> int:
        """How many bytes of arguments those have whose fault is the sender's (`is_of_sender`)."""
        numbers = [
            letter["_id"]
            for letter in old
            if letter["origin"] == "public"
            and letter.get("command_id") is not None
            and letter["code"] not in LANES_FAULTS
        ]
        if not numbers:
            return 0
        found = self._database[DeadLetter.table].find({"_id": {"$in": numbers}}, {"arguments": 1}, session=session)
        # They may be large: few of them are in memory at once.
        return sum(len(letter["arguments"]) for letter in found.batch_size(_LETTERS_AT_ONCE))

    def _without_parked(self, numbers: Sequence[int], session: ClientSession | None) -> list[Document]:
        """Those of some letters that are there and behind whose commands no other waits."""
        shown = {"command_id": 1, "origin": 1, "code": 1}
        there = list(self._database[DeadLetter.table].find({"_id": {"$in": list(numbers)}}, shown, session=session))
        ids = [letter["command_id"] for letter in there if letter.get("command_id") is not None]
        found = self._database[ParkedCommand.table].find({"_id": {"$in": ids}}, {"_id": 1}, session=session)
        parked = {document["_id"] for document in found}
        return [letter for letter in there if letter.get("command_id") not in parked]

    def _count_less(self, name: str, count: int, session: ClientSession) -> None:
        series = self._database[Series.table].find_one({"_id": name}, session=session)
        if series is not None:
            less = {"$set": {"value": max(0, series["value"] - count)}}
            self._database[Series.table].update_one({"_id": name}, less, session=session)

    def forget_acts(self, cutoff: datetime, batch_rows: int, holding: Holding | None = None) -> Iterator[int]:
        acts = self._database[OperatorAct.table]

        def transact(session: ClientSession) -> int:
            found = acts.find(is_old_act(cutoff), {"_id": 1}, session=session).sort("_id", 1)
            ids = [document["_id"] for document in found.limit(batch_rows)]
            if ids and holding is not None:
                self._prove(session, holding)
            return acts.delete_many({"_id": {"$in": ids}}, session=session).deleted_count

        while gone := self._in_transaction(transact):
            yield gone

    def silent_publishers(self, cutoff: datetime) -> int:
        with self._translated():
            return self._database[PublisherPosition.table].count_documents({"seen_at": {"$lt": cutoff}})

    def forget_publishers(self, cutoff: datetime, now: datetime, batch_rows: int) -> Iterator[int]:
        publishers = self._database[PublisherPosition.table]
        after = ""
        while True:
            # By ranges of the name, which is indexed: the time is not.
            with self._translated():
                found = publishers.find({"_id": {"$gt": after}, "seen_at": {"$lt": cutoff}}, {"_id": 1})
                names = [document["_id"] for document in found.sort("_id", 1).limit(batch_rows)]
            if not names:
                return
            silent = {"_id": {"$gt": after, "$lte": names[-1]}, "seen_at": {"$lt": cutoff}}

            def transact(session: ClientSession, silent: Document = silent) -> int:
                return publishers.delete_many(silent, session=session).deleted_count

            yield self._changing(transact, now)
            after = names[-1]

    @property
    def _log(self) -> Collection[Document]:
        return self._database[LogEntry.table]

    def _highest_sequence(self) -> int:
        newest = self._newest({})
        return 0 if newest is None else newest.sequence

    def _newest(self, condition: Document) -> LogEntry | None:
        document = self._log.find_one(condition, sort=[("sequence", -1)])
        return None if document is None else row_of_document(LogEntry, document)

    def _find(self, command_id: str, session: ClientSession | None) -> LogEntry | None:
        document = self._log.find_one({"_id": command_id}, session=session)
        return None if document is None else row_of_document(LogEntry, document)
