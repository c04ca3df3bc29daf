"""The rows of one batch: an identity map over a transaction, with an undo journal.

A row that many commands change is read once and written once. Since the lane is the only writer, what was read stays
true until the commit; the fence, checked in the same transaction, makes sure of it.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import msgspec

from coordinator.service.rows import Key, R, Ref, Row, VersionedRow
from coordinator.stores.port import Changes, Read, Transaction
from coordinator.stores.row_checks import RowCheck, RowChecks


class _Absent:
    """Marks a slot that a journal entry found empty."""


_ABSENT = _Absent()
_Slots = dict[Any, Any]


class _ModelRows:
    """The rows of one model: as the database has them, as they are now, and by their unique columns."""

    def __init__(self, model: type[Row], check: RowCheck) -> None:
        self.check = check
        self.is_the_lanes = check.is_the_lanes
        self.copied = check.copied
        self.original: dict[Key, Any] = {}
        self.current: dict[Key, Any] = {}
        self.unique: dict[str, dict[Key, Key | None]] = {column: {} for column in model.unique}


class _Models(dict[type[Row], _ModelRows]):
    """What the batch knows of each model it has met."""

    def __init__(self, checks: RowChecks) -> None:
        super().__init__()
        self._checks = checks

    def __missing__(self, model: type[Row]) -> _ModelRows:
        kind = self[model] = _ModelRows(model, self._checks.of(model))
        return kind


class IdentityMap:
    """Rows as a batch has read and changed them. `get` to `remove` work as in `UnitOfWork`, on any row."""

    def __init__(self, transaction: Transaction, checks: RowChecks | None = None) -> None:
        self.interruption: BaseException | None = None
        """The error of a read from the database. Even if a handler caught it, the batch cannot be settled now."""
        self._transaction = transaction
        self.kinds = _Models(checks or RowChecks())
        """By model. Other classes only ask for a model's kind."""
        self._journal: list[tuple[_Slots, Any, Any]] = []

    def undo(self) -> None:
        """Take back everything since `BatchWork.begin_command`."""
        for slots, key, previous in reversed(self._journal):
            if previous is _ABSENT:
                del slots[key]
            else:
                slots[key] = previous
        self._journal.clear()

    def prefetch(self, refs: Iterable[Ref[Row]], *others: Read) -> list[list[Any]]:
        """Read the rows in one go; the rows of `others` are only returned. `RowCheck.key` has passed the references."""
        wanted: dict[tuple[type[Row], str], dict[Key, None]] = {}
        for ref in refs:
            wanted.setdefault((ref.model, ref.column), {})[ref.value] = None
        return self._load([Read(model, column, list(values)) for (model, column), values in wanted.items()], others)

    def get(self, model: type[R], key: Key) -> R | None:
        kind = self.kinds[model]
        if key not in kind.current:
            kind.check.key(model.key, key)
            self._load([Read(model, model.key, [key])])
        row: R | None = kind.current[key]
        return row if kind.copied is None or row is None else kind.copied(row)

    def find(self, model: type[R], column: str, value: Key) -> R | None:
        if column == model.key:
            return self.get(model, value)
        kind = self.kinds[model]
        index = kind.unique[column]
        if value not in index:
            kind.check.key(column, value)
            self._load([Read(model, column, [value])])
        key = index[value]
        row: R | None = None if key is None else kind.current[key]
        return row if kind.copied is None or row is None else kind.copied(row)

    def add(self, row: R) -> R:
        model = type(row)
        kind = self.kinds[model]
        row = kind.check.new(row)
        key = _key(row)
        if key not in kind.current:
            # Trust that the row is new: asking would cost a round trip a row, and the database refuses one that it has.
            self._set(kind.original, key, None)
            self._set(kind.current, key, None)
        elif kind.current[key] is not None:
            raise ValueError(f"{model.table} already has a row {key!r}")
        self._put(model, key, row)
        return row if kind.copied is None else kind.copied(row)

    def save(self, row: R) -> R:
        model = type(row)
        kind = self.kinds[model]
        key = _key(row)
        before = self.get(model, key)
        if before is None:
            raise ValueError(f"{model.table} has no row {key!r} to save")
        if isinstance(row, VersionedRow) and isinstance(before, VersionedRow):
            row = msgspec.structs.replace(row, version=before.version + 1)
        row = kind.check.change(row, before)
        self._put(model, key, row)
        return row if kind.copied is None else kind.copied(row)

    def remove(self, row: Row) -> None:
        model = type(row)
        if self.get(model, _key(row)) is None:
            raise ValueError(f"{model.table} has no row {_key(row)!r} to remove")
        self._put(model, _key(row), None)

    def last_key(self, model: type[Row]) -> Key | None:
        """The largest key of the rows as they are now: as the database has them, but for the changes of the batch."""
        current = self.kinds[model].current
        removed = sum(row is None for row in current.values())
        keys = [key for key, row in current.items() if row is not None]
        # Of one row more than the batch has removed, one is still there.
        there = [key for row in self._last(model, removed + 1) if current.get(key := _key(row), row) is not None]
        return max([*keys, *there], default=None)

    def known(self, row: R) -> R | None:
        """The row that the map has under the key of this one, without a look at the database."""
        found: R | None = self.kinds[type(row)].current.get(_key(row))
        return found

    def check_new(self, row: Row) -> None:
        """Raises InvalidRow for a row that cannot be added, whatever its number."""
        self.kinds[type(row)].check.new(row)

    def replace(self, row: Row) -> None:
        """Replace a row that was read; the new row's fields are known to be sound."""
        self._put(type(row), _key(row), row)

    def adopt(self, model: type[Row], key: Key, row: Row | None) -> None:
        """Take a row, or its absence, as read: the lane knows it, since it is the only writer."""
        kind = self.kinds[model]
        kind.original[key] = kind.current[key] = row

    def insert_new(self, rows: Sequence[Row]) -> None:
        """Insert rows that are known not to exist, such as log entries."""
        for row in rows:
            kind = self.kinds[type(row)]
            key = _key(row)
            kind.original[key] = None
            kind.current[key] = row

    def keep(self, row: Row) -> None:
        """Insert or replace a row of the lane's own, whatever becomes of the command."""
        kind = self.kinds[type(row)]
        kind.original.setdefault(_key(row), None)
        kind.current[_key(row)] = row

    def drop(self, row: Row) -> None:
        """Delete a row of the lane's own, as it was committed or kept, whatever becomes of the command."""
        kind = self.kinds[type(row)]
        kind.original.setdefault(_key(row), row)
        kind.current[_key(row)] = None

    def changes(self) -> Changes:
        """The difference between what was read and what is now, by model."""
        deletes: list[list[Row]] = []
        updates: list[list[Row]] = []
        inserts: list[list[Row]] = []
        for kind in self.kinds.values():
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

    def _last(self, model: type[R], limit: int) -> list[R]:
        try:
            return self._transaction.last(model, limit)
        except BaseException as error:
            self.interruption = error
            raise

    def _load(self, wanted: Sequence[Read], others: Sequence[Read] = ()) -> list[list[Any]]:
        """Read rows into the map; the rows of `others` are returned instead."""
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
        """The part of a read that the map does not have."""
        kind = self.kinds[read.model]
        known: Collection[Key] = kind.current if read.column == read.model.key else kind.unique[read.column]
        if not known:
            return read
        return Read(read.model, read.column, [value for value in read.values if value not in known])

    def _take(self, read: Read, rows: Sequence[Row]) -> None:
        """Put the rows that were read into the map. A row that the map has already is newer, and wins."""
        model, column, kind = read.model, read.column, self.kinds[read.model]
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

    def _put(self, model: type[Row], key: Key, row: Row | None) -> None:
        kind = self.kinds[model]
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


def _key(row: Row) -> Key:
    key: Key = getattr(row, row.key)
    return key
