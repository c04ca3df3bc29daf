"""The unit of work of one batch: an identity map over a transaction, with an undo journal per command.

A row that many commands change is read once and written once. Since the lane is the only writer, what was read stays
true until the commit; the fence, checked in the same transaction, makes sure of it.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from coordinator.protocol.wire import BODY_BYTES_MAX
from coordinator.service.commands import Command
from coordinator.service.continuation import Continuation, Deferred, Emission, continued
from coordinator.service.errors import Rejected
from coordinator.service.ids import derived_command_id
from coordinator.service.options import NO_OPTIONS
from coordinator.service.outcome import OutcomeError
from coordinator.service.rows import R, Ref, Row, VersionedRow
from coordinator.stores.lane_tables import LANE_MODELS, Counter, OutboxEntry
from coordinator.stores.port import Changes, Read, StoreUnavailable, Transaction
from coordinator.stores.row_checks import InvalidRow, RowCheck, RowChecks

OUTBOX_SERIES = "outbox"


class _Absent:
    """Marks a slot that a journal entry found empty."""


_ABSENT = _Absent()
_Slots = dict[Any, Any]
T = TypeVar("T", bound=Row)


class _Kind:
    """The rows of one model: as the database has them, as they are now, and by their unique columns."""

    def __init__(self, model: type[Row], check: RowCheck) -> None:
        self.check = check
        self.is_lane_s = issubclass(model, LANE_MODELS)
        self.original: dict[int | str, Any] = {}
        self.current: dict[int | str, Any] = {}
        self.unique: dict[str, dict[int | str, int | str | None]] = {}
        for column in model.unique:
            self.unique[column] = {}


class _Kinds(dict[type[Row], _Kind]):
    """What the batch knows of each model it has met."""

    def __init__(self, checks: RowChecks) -> None:
        super().__init__()
        self._checks = checks

    def __missing__(self, model: type[Row]) -> _Kind:
        kind = self[model] = _Kind(model, self._checks.of(model))
        return kind


class BatchWork:
    """Implements `coordinator.service.unit_of_work.UnitOfWork` for the commands of a batch, one after the other."""

    def __init__(
        self,
        transaction: Transaction,
        now: datetime,
        targets: Collection[str] | None = None,
        checks: RowChecks | None = None,
    ) -> None:
        """`targets` are those to whom anything can be emitted; None: nobody knows them."""
        self._transaction = transaction
        self._now = now
        self._targets = targets
        self.is_authors = False
        """Whether a function of the service's author has it, which may not change what is the lane's own."""
        self.interruption: BaseException | None = None
        """What a read from the database raised: whoever caught it, the commands of the batch cannot be settled now."""
        self._kinds = _Kinds(checks or RowChecks())
        self._journal: list[tuple[_Slots, Any, Any]] = []
        self._command_id = ""
        self._command_type = ""
        self._continuation: Deferred | None = None
        self._is_deferred = False
        self._emitted = 0

    @property
    def now(self) -> datetime:
        return self._now

    @property
    def command_id(self) -> str:
        return self._command_id

    @property
    def is_deferred(self) -> bool:
        """Whether this command has put its continuation off."""
        return self._is_deferred

    def begin_command(self, command_id: str, command_type: str, continuation: Deferred | None = None) -> None:
        """What follows belongs to this command, and `undo` takes it back."""
        self._command_id = command_id
        self._command_type = command_type
        self._continuation = continuation
        self._is_deferred = False
        self._emitted = 0
        self._journal.clear()

    def undo(self) -> None:
        """Take back everything since `begin_command`."""
        for slots, key, previous in reversed(self._journal):
            if previous is _ABSENT:
                del slots[key]
            else:
                slots[key] = previous
        self._journal.clear()

    def prefetch(self, refs: Iterable[Ref[Row]], *others: Read) -> list[list[Any]]:
        """Read the rows in one go, and with them what is only returned. `RowCheck.key` has passed the references."""
        wanted: dict[tuple[type[Row], str], dict[int | str, None]] = {}
        for ref in refs:
            wanted.setdefault((ref.model, ref.column), {})[ref.value] = None
        return self._load([Read(model, column, list(values)) for (model, column), values in wanted.items()], others)

    def get(self, model: type[R], key: int | str) -> R | None:
        kind = self._kinds[model]
        if key not in kind.current:
            kind.check.key(model.key, key)
            self._load([Read(model, model.key, [key])])
        row: R | None = kind.current[key]
        return row

    def find(self, model: type[R], column: str, value: int | str) -> R | None:
        if column == model.key:
            return self.get(model, value)
        kind = self._kinds[model]
        index = kind.unique[column]
        if value not in index:
            kind.check.key(column, value)
            self._load([Read(model, column, [value])])
        key = index[value]
        row: R | None = None if key is None else kind.current[key]
        return row

    def add(self, row: R) -> R:
        self._may_change(type(row))
        return self._add(row)

    def _add(self, row: R) -> R:
        model = type(row)
        kind = self._kinds[model]
        kind.check.new(row)
        key = _key(row)
        if key not in kind.current:
            # Taken on trust, since asking would cost a round trip a row: the database refuses what it has already.
            self._set(kind.original, key, None)
            self._set(kind.current, key, None)
        elif kind.current[key] is not None:
            raise ValueError(f"{model.table} already has a row {key!r}")
        self._put(model, key, row)
        return row

    def save(self, row: R) -> R:
        model = type(row)
        kind = self._may_change(model)
        key = _key(row)
        held = self.get(model, key)
        if held is None:
            raise ValueError(f"{model.table} has no row {key!r} to save")
        if isinstance(row, VersionedRow) and isinstance(held, VersionedRow):
            row = msgspec.structs.replace(row, version=held.version + 1)
        kind.check.change(row, held)
        self._put(model, key, row)
        return row

    def remove(self, row: Row) -> None:
        model = type(row)
        self._may_change(model)
        if self.get(model, _key(row)) is None:
            raise ValueError(f"{model.table} has no row {_key(row)!r} to remove")
        self._put(model, _key(row), None)

    def _may_change(self, model: type[Row]) -> _Kind:
        kind = self._kinds[model]
        if kind.is_lane_s and self.is_authors:
            raise InvalidRow(f"{model.table} is the lane's own table: a handler has emit, next_id and defer for it")
        return kind

    def next_id(self, name: str) -> int:
        held = self.get(Counter, name)
        if held is None:
            return self._add(Counter(name=name, value=1)).value
        value = held.value + 1
        self._put(Counter, name, Counter(name=name, value=value))
        return value

    def emit(self, command: Command, *, continuation: type[Continuation] | None = None) -> str:
        arguments = msgspec.json.encode(command)
        parent = f"{self._command_type} {self._command_id}"
        command_id = derived_command_id(parent, self._emitted, f"{command.type}\n".encode() + arguments)
        self._emitted += 1
        self.send_out(
            Emission(
                lane=command.lane(),
                command_id=command_id,
                type=command.type,
                arguments=arguments,
                continuation=None if continuation is None else continuation.type,
            )
        )
        return command_id

    def defer(self) -> Deferred | None:
        self._is_deferred = self._continuation is not None
        return self._continuation

    def resume(self, deferred: Deferred, outcome: Struct | Rejected | None) -> None:
        if isinstance(outcome, Rejected):
            error = OutcomeError(code=outcome.code, message=str(outcome))
            self.send_out(continued(deferred, "rejected", None, error))
        else:
            self.send_out(continued(deferred, "applied", msgspec.json.encode(outcome), None))

    def send_out(self, emission: Emission) -> None:
        """Put a command into the outbox. Raises ValueError for one to nobody, InvalidRow for one that does not fit."""
        entry = self._entry_of(emission)
        self.add_numbered(msgspec.structs.replace(entry, id=self.next_id(OUTBOX_SERIES)))

    def check_continuation(self, deferred: Deferred) -> None:
        """Raises ValueError for a continuation that can never be put into the outbox."""
        self._entry_of(continued(deferred, "applied", None, None))

    def _entry_of(self, emission: Emission) -> OutboxEntry:
        """Checked before it takes a number."""
        if self._targets is not None and emission.lane not in self._targets:
            raise ValueError(f"{emission.type}: there is no lane {emission.lane!r} here")
        if len(emission.arguments) > BODY_BYTES_MAX:
            # No lane takes it, and where the broker does not either, it would keep others from that target.
            text = f"its arguments have {len(emission.arguments)} bytes; at most {BODY_BYTES_MAX} can be sent"
            raise ValueError(f"{emission.type}: {text}")
        entry = OutboxEntry(
            id=1,
            lane=emission.lane,
            command_id=emission.command_id,
            type=emission.type,
            arguments=emission.arguments,
            created_at=self._now,
            continuation=emission.continuation,
            options=None if emission.options is NO_OPTIONS else emission.options.encode(),
        )
        self._kinds[OutboxEntry].check.new(entry)
        return entry

    def add_numbered(self, row: R) -> R:
        """Add a row of the lane's own under the next number of its series.

        Raises StoreUnavailable where there is such a row: another consumer has written it, since a lane knows its own.
        """
        held = self._kinds[type(row)].current.get(_key(row))
        if held is not None:
            text = f"{row.table} has a row {_key(row)!r} that this consumer did not write"
            # Whatever a handler makes of it.
            self.interruption = StoreUnavailable(text)
            raise self.interruption
        return self._add(row)

    def adopt(self, model: type[Row], key: int | str, row: Row | None) -> None:
        """Take a row, or its absence, as read: the lane knows it, being the only writer."""
        kind = self._kinds[model]
        kind.original[key] = kind.current[key] = row

    def insert_new(self, rows: Sequence[Row]) -> None:
        """Insert rows that are known not to exist, such as log entries."""
        for row in rows:
            kind = self._kinds[type(row)]
            key = _key(row)
            kind.original[key] = None
            kind.current[key] = row

    def keep(self, row: Row) -> None:
        """Insert or replace a row of the lane's own, whatever becomes of the command."""
        kind = self._kinds[type(row)]
        kind.original.setdefault(_key(row), None)
        kind.current[_key(row)] = row

    def drop(self, row: Row) -> None:
        """Delete a row of the lane's own, as it was committed or kept, whatever becomes of the command."""
        kind = self._kinds[type(row)]
        kind.original.setdefault(_key(row), row)
        kind.current[_key(row)] = None

    def changes(self) -> Changes:
        """The difference between what was read and what is now, by model."""
        deletes: list[list[Row]] = []
        updates: list[list[Row]] = []
        inserts: list[list[Row]] = []
        for kind in self._kinds.values():
            deleted: list[Row] = []
            updated: list[Row] = []
            inserted: list[Row] = []
            for key, now in kind.current.items():
                before = kind.original[key]
                if now is before:
                    continue
                if before is None:
                    inserted.append(now)
                elif now is None:
                    deleted.append(before)
                else:
                    updated.append(now)
            for rows, lists in ((deleted, deletes), (updated, updates), (inserted, inserts)):
                if rows:
                    lists.append(rows)
        return Changes(deletes, updates, inserts)

    def _load(self, wanted: Sequence[Read], others: Sequence[Read] = ()) -> list[list[Any]]:
        """Read rows into the map, but for the others, which are returned."""
        reads = [read for read in map(self._missing, wanted) if read.values]
        if not reads and not others:
            return []
        try:
            found = self._transaction.load([*reads, *others])
        except BaseException as error:
            self.interruption = error
            raise
        for read, rows in zip(reads, found, strict=False):
            self._take(read, rows)
        return found[len(reads) :]

    def _missing(self, read: Read) -> Read:
        """As much of a read as the map does not hold."""
        kind = self._kinds[read.model]
        held: Collection[int | str] = kind.current if read.column == read.model.key else kind.unique[read.column]
        if not held:
            return read
        return Read(read.model, read.column, [value for value in read.values if value not in held])

    def _take(self, read: Read, rows: Sequence[Row]) -> None:
        """Put what was read into the map. What the map holds already is newer than the database and wins."""
        model, column, kind = read.model, read.column, self._kinds[read.model]
        for row in rows:
            key = _key(row)
            if key in kind.current:
                continue
            kind.original[key] = kind.current[key] = row
            for unique, index in kind.unique.items():
                index.setdefault(getattr(row, unique), key)
        for value in read.values:
            if column == model.key:
                if value not in kind.current:
                    kind.original[value] = kind.current[value] = None
            else:
                kind.unique[column].setdefault(value, None)

    def _put(self, model: type[Row], key: int | str, row: Row | None) -> None:
        kind = self._kinds[model]
        before = kind.current[key]
        self._journal.append((kind.current, key, before))
        kind.current[key] = row
        for column, index in kind.unique.items():
            old = None if before is None else getattr(before, column)
            new = None if row is None else getattr(row, column)
            if old == new:
                continue
            if old is not None and index.get(old) == key:
                self._set(index, old, None)
            if new is not None:
                self._set(index, new, key)

    def _set(self, slots: _Slots, key: Any, value: Any) -> None:
        self._journal.append((slots, key, slots.get(key, _ABSENT)))
        slots[key] = value


def _key(row: Row) -> int | str:
    key: int | str = getattr(row, row.key)
    return key
