"""The operator's view of a lane's database, on every kind of SQL database."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    String,
    and_,
    case,
    cast,
    delete,
    exists,
    false,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy import column as column_of
from sqlalchemy import table as table_of

from coordinator.service.errors import DatabaseUnavailable
from coordinator.service.ids import replay_command_id
from coordinator.service.rows import R, Ref, Row, Value, key_columns, text_columns
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
from coordinator.stores.kept_entries import ASKED, cutoff_of_orders
from coordinator.stores.lane_tables import (
    LANES_FAULTS,
    NAMELESS,
    SENDERS_BYTES,
    Cancellation,
    DeadLetter,
    LogEntry,
    OutboxEntry,
    ParkedCommand,
    PublisherPosition,
    Series,
    metadata,
)
from coordinator.stores.lease_table import LEASE_TABLE
from coordinator.stores.port import Backlog
from coordinator.stores.row_makers import row_of_mapping
from coordinator.stores.sql.admin_session import SqlAdminSession, keep_act, lease_of
from coordinator.stores.sql.audit_queries import acts_of, bounds_of, commands_of, forget_changes, is_old
from coordinator.stores.sql.declared_tables import quoted, tables_of
from coordinator.stores.sql.letter_queries import conditions_of
from coordinator.stores.sql.parked_queries import parked_counts, parked_keys_of, parked_of
from coordinator.stores.sql.timer_queries import on_its_way, timers_of, waiting_timers
from coordinator.stores.times import utc

_LEASE = metadata.tables[LEASE_TABLE]
_LOG = metadata.tables[LogEntry.table]
_CANCELLATIONS = metadata.tables[Cancellation.table]
_PUBLISHERS = metadata.tables[PublisherPosition.table]
_COUNTERS = metadata.tables[Series.table]
_PARKED = metadata.tables[ParkedCommand.table]
_LETTERS = metadata.tables[DeadLetter.table]
_OUTBOX = metadata.tables[OutboxEntry.table]
_IS_PARKED = exists().where(_PARKED.c.command_id == _LETTERS.c.command_id)
_IS_OF_SENDER = and_(
    # As `is_of_sender` has it.
    _LETTERS.c.origin == "public",
    _LETTERS.c.command_id.is_not(None),
    _LETTERS.c.code.not_in(LANES_FAULTS),
)
_ACTS = metadata.tables[OperatorAct.table]
_HAS_LETTER = exists().where(_LETTERS.c.source == _LOG.c.command_id)


class SqlAdmin(SqlAdminSession):
    """Implements `LaneAdmin`."""

    def state(self) -> LaneState:
        newest = select(_LOG).order_by(_LOG.c.sequence.desc()).limit(1)
        with self._transaction() as connection:
            lease = lease_of(connection, self._lane)
            last = _entry(connection, newest)
            recent = and_(_LOG.c.sequence > (last.sequence if last else 0) - FAILED_AMONG, _LOG.c.status == "failed")
            failed = _entry(connection, newest.where(recent))
            dead, parked = _letters(connection), parked_counts(connection)
            outbox, timers = _backlog(connection), waiting_timers(connection)
        return LaneState(
            lease=lease,
            last_settled=last,
            last_failed=failed,
            dead_letters=dead,
            parked=parked,
            outbox=outbox,
            timers=timers,
        )

    def dead_letters(self) -> int:
        with self._transaction() as connection:
            return _letters(connection)

    def sequence(self) -> int:
        with self._transaction() as connection:
            found = connection.execute(select(_LEASE.c.sequence).where(_LEASE.c.lane == self._lane)).scalar()
        return found or 0

    def command_at(self, sequence: int) -> str | None:
        with self._transaction() as connection:
            found = connection.execute(select(_LOG.c.command_id).where(_LOG.c.sequence == sequence)).scalar()
        return None if found is None else str(found)

    def clock(self) -> datetime | None:
        with self._transaction() as connection:
            asked = self._dialect.clock
            if asked is None:
                return None
            return datetime.fromtimestamp(float(connection.exec_driver_sql(asked).scalar_one()), UTC)

    def find(self, command_id: str) -> LogEntry | None:
        with self._transaction() as connection:
            return _entry(connection, select(_LOG).where(_LOG.c.command_id == command_id))

    def proved(self) -> int | None:
        with self._transaction() as connection:
            return connection.execute(select(_LEASE.c.proved).where(_LEASE.c.lane == self._lane)).scalar()

    def keeping(self, models: Sequence[type[Row]], texts: Sequence[str]) -> Ref[Row] | None:
        with self._transaction() as connection:
            for model in models:
                # The service may keep its texts in any type, and PostgreSQL compares one type only.
                kept = [cast(column_of(quoted(name)), String).in_(texts) for name in text_columns(model)]
                keys: list[ColumnElement[Any]] = [column_of(quoted(name)) for name in key_columns(model)]
                rows: Select[Any] = select(*keys).select_from(table_of(quoted(model.table)))
                found = rows.where(or_(false(), *kept)).limit(1)
                if kept and (row := connection.execute(found).first()) is not None:
                    return Ref(model, model.key, row[0] if len(keys) == 1 else tuple(row))
        return None

    def rows(self, service: Service, model: type[R], where: Mapping[str, Value], limit: int) -> list[R]:
        columns = tables_of(service).tables[model.table].c
        wanted = select(*(columns[name] for name in model.__struct_fields__))
        wanted = wanted.where(*(columns[name] == value for name, value in where.items()))
        with self._transaction() as connection:
            found = connection.execute(wanted.order_by(*(columns[name] for name in key_columns(model))).limit(limit))
            return [row_of_mapping(model, row) for row in found.mappings()]

    def parked(self, *, key: str | None = None, command_id: str | None = None) -> list[ParkedSummary]:
        with self._transaction() as connection:
            return parked_of(connection, key, command_id)

    def parked_keys(self, limit: int) -> list[ParkedKeySummary]:
        with self._transaction() as connection:
            return parked_keys_of(connection, limit)

    def letters(self, query: LetterQuery, after: int, limit: int) -> list[LetterSummary]:
        columns = [_LETTERS.c[name] for name in LetterSummary.__struct_fields__]
        wanted = select(*columns).where(_LETTERS.c.id > after, *conditions_of(query, self._dialect))
        with self._transaction() as connection:
            rows = connection.execute(wanted.order_by(_LETTERS.c.id).limit(limit)).mappings().all()
        return [LetterSummary(**{name: utc(value) for name, value in row.items()}) for row in rows]

    def letter(self, number: int) -> DeadLetter | None:
        with self._transaction() as connection:
            row = connection.execute(select(_LETTERS).where(_LETTERS.c.id == number)).mappings().first()
        return None if row is None else row_of_mapping(DeadLetter, row)

    def emitted(self, target: str | None, after: int, limit: int) -> list[EmittedSummary]:
        names = [name for name in EmittedSummary.__struct_fields__ if name != "target"]
        wanted = select(_OUTBOX.c.lane.label("target"), *(_OUTBOX.c[name] for name in names))
        wanted = wanted.where(_OUTBOX.c.id > after).order_by(_OUTBOX.c.id).limit(limit)
        if target is not None:
            wanted = wanted.where(_OUTBOX.c.lane == target)
        with self._transaction() as connection:
            rows = connection.execute(wanted).mappings().all()
        return [EmittedSummary(**{name: utc(value) for name, value in row.items()}) for row in rows]

    def backlog(self) -> list[Backlog]:
        with self._transaction() as connection:
            return _backlog(connection)

    def timers(self, after: str, limit: int) -> list[TimerSummary]:
        with self._transaction() as connection:
            return timers_of(connection, after, limit)

    def on_its_way(self, command_ids: Sequence[str]) -> dict[str, OnItsWay]:
        with self._transaction() as connection:
            return on_its_way(connection, command_ids)

    def passages(self, first: int, last: int) -> list[PassedEntry]:
        wanted = select(*(_LOG.c[name] for name in PassedEntry.__struct_fields__))
        wanted = wanted.where(_LOG.c.sequence.between(first, last)).order_by(_LOG.c.sequence)
        with self._transaction() as connection:
            rows = connection.execute(wanted).mappings().all()
        return [PassedEntry(**{name: utc(value) for name, value in row.items()}) for row in rows]

    def naming(self, command_id: str, first: int, last: int, limit: int) -> list[LogEntry]:
        named = and_(_LOG.c.sequence.between(first, last), _LOG.c.passage.contains(command_id, autoescape=True))
        with self._transaction() as connection:
            rows = connection.execute(select(_LOG).where(named).order_by(_LOG.c.sequence).limit(limit)).mappings()
            return [row_of_mapping(LogEntry, row) for row in rows]

    def audited(self, query: ChangeQuery, before: int, limit: int) -> list[AuditedCommand]:
        with self._transaction() as connection:
            return commands_of(connection, query, before, limit)

    def audit_bounds(self, table: str | None) -> AuditBounds:
        with self._transaction() as connection:
            return bounds_of(connection, table)

    def acts(self, query: ActQuery, before: str | None, limit: int) -> list[OperatorAct]:
        with self._transaction() as connection:
            return acts_of(connection, query, before, limit)

    def record(self, act: OperatorAct) -> None:
        with self._change() as connection:
            self._check_open(connection)
            keep_act(connection, act)

    def pause(self, reason: str, now: datetime, act: OperatorAct | None = None) -> LeaseState:
        with self._changing(now, act, paused=reason) as connection:
            lease = lease_of(connection, self._lane)
        if lease is None:
            raise DatabaseUnavailable(f"the lease row of lane {self._lane} vanished while it was being paused")
        self._tell_proved(lease)
        return lease

    def resume(self, now: datetime, act: OperatorAct | None = None) -> str | None:
        # A command that changes nothing must not make the lane renew its lease.
        with self._transaction() as connection:
            lease = lease_of(connection, self._lane)
        if lease is None or lease.paused is None:
            return None
        with self._changing(now, act) as connection:
            lease = lease_of(connection, self._lane)
            connection.execute(update(_LEASE).where(_LEASE.c.lane == self._lane).values(paused=None))
        return None if lease is None else lease.paused

    def cancel(self, command_id: str, reason: str, now: datetime, act: OperatorAct | None = None) -> LogEntry | None:
        logged = select(_LOG).where(_LOG.c.command_id == command_id)
        with self._transaction() as connection:
            settled = _entry(connection, logged)
        if settled is not None:
            return settled
        with self._changing(now) as connection:
            settled = _entry(connection, logged)
            if settled is not None:
                return settled
            known = select(_CANCELLATIONS.c.command_id).where(_CANCELLATIONS.c.command_id == command_id)
            if connection.execute(known).scalar() is None:
                keep_act(connection, act)
                connection.execute(
                    insert(_CANCELLATIONS).values(command_id=command_id, reason=reason, requested_at=now)
                )
        return None

    def settled_before(self, cutoff: datetime) -> int:
        highest = select(func.max(_LOG.c.sequence)).scalar_subquery()
        forgotten = and_(is_old(cutoff), _LOG.c.sequence < highest, ~_HAS_LETTER)
        count = select(func.count()).select_from(_LOG).where(forgotten)
        with self._transaction() as connection:
            return int(connection.execute(count).scalar_one())

    def prune(self, cutoff: datetime, batch_rows: int, holding: Holding | None = None) -> Iterator[int]:
        with self._transaction() as connection:
            highest = connection.execute(select(func.max(_LOG.c.sequence))).scalar() or 0
        after = 0
        while True:
            # By pages of the sequence, which is indexed: the time is not.
            page = (
                select(_LOG.c.sequence, _LOG.c.settled_at)
                .where(_LOG.c.sequence > after, _LOG.c.sequence < highest)
                .order_by(_LOG.c.sequence)
                .limit(batch_rows)
                .subquery()
            )
            with self._change() as connection:
                last, oldest = connection.execute(select(func.max(page.c.sequence), func.min(page.c.settled_at))).one()
                if last is None:
                    return
                gone = 0
                if utc(oldest) < cutoff:
                    old = and_(_LOG.c.sequence > after, _LOG.c.sequence <= last, is_old(cutoff))
                    forgotten = and_(old, ~_HAS_LETTER, _LOG.c.command_id.not_in(_replayed(connection, old)))
                    gone = connection.execute(delete(_LOG).where(forgotten)).rowcount
                    forget_changes(connection, after, last)
                if gone:
                    # Last, so that the lane waits for no deletion: it never changes an entry.
                    self._prove(connection, holding)
            after = last
            yield gone

    def forget_letters(
        self, cutoff: datetime, now: datetime, batch_rows: int, holding: Holding | None = None
    ) -> Iterator[int]:
        after = 0
        while True:
            old = and_(_LETTERS.c.id > after, _LETTERS.c.dead_at < cutoff, ~_IS_PARKED)
            page = select(_LETTERS.c.id).where(old).order_by(_LETTERS.c.id).limit(batch_rows)
            with self._transaction() as connection:
                numbers = connection.execute(page).scalars().all()
            if not numbers:
                return
            meant = and_(old, _LETTERS.c.id <= numbers[-1])
            nameless = select(_LETTERS.c.origin, func.count()).where(meant, _LETTERS.c.command_id.is_(None))
            of_senders = select(func.sum(func.length(_LETTERS.c.arguments))).where(meant, _IS_OF_SENDER)
            with self._changing(now) as connection:
                self._prove(connection, holding)
                counted = connection.execute(nameless.group_by(_LETTERS.c.origin)).all()
                counted_bytes = int(connection.execute(of_senders).scalar_one() or 0)
                gone = connection.execute(delete(_LETTERS).where(meant)).rowcount
                fewer = [(NAMELESS[origin], count) for origin, count in counted]
                fewer += [(SENDERS_BYTES, counted_bytes)] if counted_bytes else []
                for name, count in fewer:
                    less = case((_COUNTERS.c.value > count, _COUNTERS.c.value - count), else_=0)
                    series = update(_COUNTERS).where(_COUNTERS.c.name == name)
                    connection.execute(series.values(value=less))
            after = numbers[-1]
            yield gone

    def forget_acts(self, cutoff: datetime, batch_rows: int, holding: Holding | None = None) -> Iterator[int]:
        is_shown = and_(_ACTS.c.act == ASKED, _ACTS.c.done_at >= cutoff_of_orders(cutoff))
        old = select(_ACTS.c.id).where(_ACTS.c.done_at < cutoff, ~is_shown).order_by(_ACTS.c.id).limit(batch_rows)
        while True:
            with self._change() as connection:
                ids = connection.execute(old).scalars().all()
                if not ids:
                    return
                gone = connection.execute(delete(_ACTS).where(_ACTS.c.id.in_(ids))).rowcount
                self._prove(connection, holding)
            yield gone

    def silent_publishers(self, cutoff: datetime) -> int:
        count = select(func.count()).select_from(_PUBLISHERS).where(_PUBLISHERS.c.seen_at < cutoff)
        with self._transaction() as connection:
            return int(connection.execute(count).scalar_one())

    def forget_publishers(self, cutoff: datetime, now: datetime, batch_rows: int) -> Iterator[int]:
        after = ""
        while True:
            # By ranges of the name, which is indexed: the time is not.
            silent = and_(_PUBLISHERS.c.name > after, _PUBLISHERS.c.seen_at < cutoff)
            page = select(_PUBLISHERS.c.name).where(silent).order_by(_PUBLISHERS.c.name).limit(batch_rows)
            with self._transaction() as connection:
                names = connection.execute(page).scalars().all()
            if not names:
                return
            with self._changing(now) as connection:
                self._check_open(connection, removes=True)
                gone = connection.execute(delete(_PUBLISHERS).where(silent, _PUBLISHERS.c.name <= names[-1])).rowcount
            after = names[-1]
            yield gone


def _replayed(connection: Connection, old: ColumnElement[bool]) -> list[str]:
    """The given entries whose replay is in the log, under an id that is derived from theirs."""
    failed = connection.execute(select(_LOG.c.command_id).where(old, _LOG.c.status == "failed")).scalars()
    by_replay = {replay_command_id(command_id): command_id for command_id in failed}
    found = select(_LOG.c.command_id).where(_LOG.c.command_id.in_(list(by_replay)))
    return [by_replay[replay] for replay in connection.execute(found).scalars()]


def _letters(connection: Connection) -> int:
    return int(connection.execute(select(func.count()).select_from(_LETTERS)).scalar_one())


def _backlog(connection: Connection) -> list[Backlog]:
    counted = select(_OUTBOX.c.lane, func.count(), func.min(_OUTBOX.c.created_at)).group_by(_OUTBOX.c.lane)
    rows = connection.execute(counted.order_by(_OUTBOX.c.lane)).all()
    return [Backlog(target, int(count), utc(oldest_at)) for target, count, oldest_at in rows]


def _entry(connection: Connection, query: Select[Any]) -> LogEntry | None:
    row = connection.execute(query).mappings().first()
    return None if row is None else row_of_mapping(LogEntry, row)
