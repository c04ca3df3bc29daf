"""The rows of one batch: an identity map over a transaction, with an undo journal.

A row that many commands change is read once and written once. Since the lane is the only writer, what was read stays
true until the commit; the fence, checked in the same transaction, makes sure of it.
"""

from collections.abc import Collection, Sequence
from operator import attrgetter
from typing import Any, Final, Protocol

from coordinator.lane.model_rows import ModelRows, ModelsMet
from coordinator.service.rows import Key, KeyPart, R, Row, RowSelection, VersionedRow, key_of, next_version
from coordinator.stores.port import Changes, Read, Transaction
from coordinator.stores.row_checks import InvalidRow, RowChecks, WrongUse
from coordinator.stores.same_rows import is_same


class _Absent:
    """Marks a slot that a journal entry found empty."""


ABSENT = _Absent()
_PLACE: Final = attrgetter("place")


class _Slots(Protocol):
    """What a journal changes back: a dict, or `OrderedKeys`."""

    def __setitem__(self, key: Any, value: Any, /) -> None: ...

    def __delitem__(self, key: Any, /) -> None: ...


class IdentityMap:
    """Rows as a batch has read and changed them. `get` to `remove` work as in `UnitOfWork`, on any row."""

    def __init__(self, transaction: Transaction, checks: RowChecks | None = None) -> None:
        self.interruption: BaseException | None = None
        """The error of a read from the database. Even if a handler caught it, the batch cannot be settled now."""
        self._transaction = transaction
        self.kinds = ModelsMet(checks or RowChecks())
        """By model. Other classes only ask for a model's kind."""
        self._met = self.kinds.met
        self._journal: list[tuple[_Slots, Any, Any]] = []
        self._has_moves, self._anew = False, set[tuple[type[Row], Key]]()

    def undo(self) -> None:
        """Take back everything since `BatchWork.begin_command`."""
        for slots, key, previous in reversed(self._journal):
            if previous is ABSENT:
                del slots[key]
            else:
                slots[key] = previous
        self._journal.clear()

    def get(self, model: type[R], key: Key) -> R | None:
        row: R | None
        try:
            kind = self._met[model]
            row = kind.current[key]
            # What is equal to a key is not always one: True is 1.
            if (
                type(key) is kind.key_type
                if kind.first is None
                else type(key[0]) is kind.first  # type: ignore[index]
                and type(key[1]) is kind.second  # type: ignore[index]
                and (kind.third is None or type(key[2]) is kind.third)  # type: ignore[index]
            ):
                return row if kind.copied is None or row is None else kind.copied(row)
        except (KeyError, TypeError):
            pass
        kind = self.kinds[model]
        row = kind.current[self._loaded(kind.current, model, model.key, key)]
        return row if kind.copied is None or row is None else kind.copied(row)

    def find(self, model: type[R], column: str | tuple[str, ...], value: Key) -> R | None:
        row: R | None
        try:
            kind = self._met[model]
            found = kind.unique[column][value]  # type: ignore[index]  # of several columns none is found
            if type(value) is kind.types[column]:
                row = None if found is None else kind.current[found]
                return row if kind.copied is None or row is None else kind.copied(row)
        except (KeyError, TypeError):
            pass
        if column == model.key:
            return self.get(model, value)
        kind = self.kinds[model]
        index = kind.unique.get(column) if isinstance(column, str) else None
        if index is None:
            raise WrongUse(kind.check.not_found_by(column))
        found = index[self._loaded(index, model, column, value)]
        row = None if found is None else kind.current[found]
        return row if kind.copied is None or row is None else kind.copied(row)

    def _loaded(self, known: Collection[Key], model: type[Row], column: str | tuple[str, ...], given: Key) -> Key:
        """What is sought, as rows have it. The map has it then. Raises InvalidRow for what no row can have."""
        value: Key = self.kinds[model].check.key(column, given)
        if value not in known:
            self._load([Read(model, column, [value])])
        return value

    def add(self, row: R) -> R:
        model = type(row)
        kind = self.kinds[model]
        row = kind.check.new(row)
        key = key_of(row)
        if key not in kind.current:
            # Trust that the row is new: asking would cost a round trip a row, and the database refuses one that it has.
            self._set(kind.original, key, None)
            self._set(kind.current, key, None)
        elif kind.current[key] is not None:
            raise ValueError(
                f"{model.table} already has a row {key!r}: ask first (`work.get`), or number rows (`work.next_id`)"
            )
        elif kind.original[key] is not None:
            self._anew.add((model, key))
        self._put(model, key, row)
        return row if kind.copied is None else kind.copied(row)

    def save(self, row: R) -> R:
        model = type(row)
        kind = self.kinds[model]
        key = key_of(row)
        if key not in kind.current:
            key = self._loaded(kind.current, model, model.key, key)
        # Not a copy of it, as `get` makes one where values can be changed in place: nobody gets this row.
        before = kind.current[key]
        if before is None:
            kind.check.key(model.key, key)
            raise ValueError(f"{model.table} has no row {key!r} to save: a new one is added (`work.add`)")
        if isinstance(row, VersionedRow) and isinstance(before, VersionedRow):
            row = next_version(row, before)
        kept: R = kind.check.change(row, before)
        self._put(model, key if kept is row else key_of(kept), kept)
        return kept if kind.copied is None else kind.copied(kept)

    def remove(self, row: Row) -> None:
        model = type(row)
        # What is no row is said to be none.
        self.kinds[model]
        there = self.get(model, key_of(row))
        if there is None:
            raise ValueError(f"{model.table} has no row {key_of(row)!r} to remove")
        self._put(model, key_of(there), None)

    def keys_of(self, model: type[Row], column: str, value: KeyPart, limit: int) -> list[Key]:
        """The keys of the stored rows that have this value in this column; the map has the rows then.

        They are without what the map alone has, and with what was removed only there: ask it for each.
        """
        try:
            rows = self._transaction.scan(model, limit, where=(column, value))
        except BaseException as error:
            self.interruption = error
            raise
        self._take(Read(model, model.key, ()), rows)
        return [key_of(row) for row in rows]

    def has(self, row: Any) -> bool:
        """Whether this very row is what the batch has under its key."""
        kind = self.kinds.get(type(row))
        return kind is not None and kind.current.get(key_of(row)) is row

    def copied_from(self, row: Any) -> Row | None:
        """What the batch has under the key of this one, if handlers get copies of such rows."""
        kind = self.kinds.get(type(row))
        return None if kind is None or kind.copied is None else kind.current.get(key_of(row))

    def now_or_removed(self, row: R) -> R | None:
        """The row that is under the key of this one now, read if it must be, or else that which the command removed."""
        model, key = type(row), key_of(row)
        current = self.kinds[model].current
        now: R | None
        try:
            # Not a copy, as `get` makes one: it is compared only.
            now = current[self._loaded(current, model, model.key, key)]
        except InvalidRow:
            return None  # no row has such a key
        removed = self._befores(row)[-1:] if now is None else ()
        return removed[0] if removed else now

    def was(self, row: Row) -> bool:
        """Whether the command has changed or removed a row that was like this one."""
        return any(is_same(row, before) for before in self._befores(row))

    def _befores(self, row: R) -> list[R]:
        """What was under the key of this row before each of the command's changes."""
        current, key = self.kinds[type(row)].current, key_of(row)
        return [
            before
            for slots, of, before in self._journal
            if slots is current and of == key and before is not None and before is not ABSENT
        ]

    def changed(self, models: Collection[type[Row]]) -> list[tuple[type[Row], Key, Row | None, Row | None]]:
        """The rows of some models that the command has changed, in the order of their first changes: the model, the
        key, the row before the command, and the row that it leaves."""
        slots_of = {id(kind.current): (model, kind.current) for model in models if (kind := self._met.get(model))}
        befores: dict[tuple[int, Key], Any] = {}
        for slots, key, before in self._journal:
            if id(slots) in slots_of:
                befores.setdefault((id(slots), key), None if before is ABSENT else before)
        found = []
        for (slots_id, key), before in befores.items():
            model, current = slots_of[slots_id]
            if (now := current[key]) is not before:
                found.append((model, key, before, now))
        return found

    def last_number(self, model: type[Row]) -> int | None:
        """The largest key, a number, of the rows as they are now: as the database has them, but for the batch."""
        current = self.kinds[model].current
        removed = sum(row is None for row in current.values())
        keys: list[Any] = [key for key, row in current.items() if row is not None]
        # Of one row more than the batch has removed, one is still there.
        there = [key for key in self._last_numbers(model, removed + 1) if current.get(key, ABSENT) is not None]
        return max([*keys, *there], default=None)

    def known(self, row: R) -> R | None:
        """The row that the map has under the key of this one, without a look at the database."""
        found: R | None = self.kinds[type(row)].current.get(key_of(row))
        return found

    def check_new(self, row: Row) -> None:
        """Raises InvalidRow for a row that cannot be added, whatever its number."""
        self.kinds[type(row)].check.new(row)

    def replace(self, row: Row) -> None:
        """Replace a row that was read; the new row's fields are known to be sound."""
        self._put(type(row), key_of(row), row)

    def adopt(self, model: type[Row], key: Key, row: Row | None) -> None:
        """Take a row, or its absence, as read: the lane knows it, since it is the only writer."""
        kind = self.kinds[model]
        kind.original[key] = kind.current[key] = row

    def insert_new(self, rows: Sequence[Row]) -> None:
        """Insert rows that are known not to exist, such as log entries."""
        for row in rows:
            kind = self.kinds[type(row)]
            key = key_of(row)
            kind.original[key] = None
            kind.current[key] = row

    def keep(self, row: Row) -> None:
        """Insert or replace a row of the lane's own, whatever becomes of the command."""
        kind = self.kinds[type(row)]
        kind.original.setdefault(key_of(row), None)
        kind.current[key_of(row)] = row

    def drop(self, row: Row) -> None:
        """Delete a row of the lane's own, as it was committed or kept, whatever becomes of the command."""
        kind = self.kinds[type(row)]
        kind.original.setdefault(key_of(row), row)
        kind.current[key_of(row)] = None

    def changes(self) -> Changes:
        """The difference between what was read and what is now, by model, in the order in which they are declared.

        Deletes are in the opposite order: a row goes before the one that it refers to.
        """
        deletes: list[list[Row]] = []
        updates: list[list[Row]] = []
        inserts: list[list[Row]] = []
        for kind in sorted(self.kinds.values(), key=_PLACE):
            deleted, updated, inserted = list[Row](), list[Row](), list[Row]()
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
        deletes.reverse()
        again = [row for rows in updates for row in rows if self._anew and (type(row), key_of(row)) in self._anew]
        return Changes(deletes, updates, inserts, self._read, self._has_moves, again)

    def _read(self, row: Row) -> Row | None:
        """The row under this one's key, as the database has it."""
        read: Row | None = self.kinds[type(row)].original.get(key_of(row))
        return read

    def _last_numbers(self, model: type[Row], limit: int) -> list[int]:
        try:
            return self._transaction.last_numbers(model, limit)
        except BaseException as error:
            self.interruption = error
            raise

    def _load(self, wanted: Sequence[Read], others: Sequence[Read | RowSelection[Row]] = ()) -> list[list[Any]]:
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
        is_key = read.column == read.model.key
        known: Collection[Key] = kind.current if is_key else kind.unique[str(read.column)]
        if not known:
            return read
        return Read(read.model, read.column, [value for value in read.values if value not in known])

    def _take(self, read: Read, rows: Sequence[Row]) -> None:
        """Put the rows that were read into the map. A row that the map has already is newer, and wins."""
        model, column, kind = read.model, read.column, self.kinds[read.model]
        self._take_rows(kind, rows)
        for value in read.values:
            if column == model.key:
                if value not in kind.current:
                    kind.original[value] = kind.current[value] = None
            else:
                kind.unique[str(column)].setdefault(value, None)

    def _take_rows(self, kind: ModelRows, rows: Sequence[Row]) -> None:
        for row in rows:
            key = key_of(row)
            if key in kind.current:
                if kind.original[key] is None:
                    self._was_there(kind, key, row)
                continue
            kind.original[key] = kind.current[key] = row
            for unique, index in kind.unique.items():
                if (value := getattr(row, unique)) is not None:
                    index.setdefault(value, key)
            for known in kind.filed.values():
                known.add(key, row)

    def _put(self, model: type[Row], key: Key, row: Row | None) -> None:
        kind = self.kinds[model]
        before = kind.current[key]
        self._journal.append((kind.current, key, before))
        kind.current[key] = row
        if kind.filed:
            self._file(kind, key, before, row)
        for column, index in kind.unique.items():
            old = None if before is None else getattr(before, column)
            new = None if row is None else getattr(row, column)
            if old == new:
                continue
            if old is not None and index.get(old) == key:
                self._set(index, old, None)
            if new is not None:
                self._set(index, new, key)
                self._has_moves = self._has_moves or old is not None

    def _was_there(self, kind: ModelRows, key: Key, row: Row) -> None:
        """The row that was added is in the database already, which will refuse it: then, once it is undone, this one is
        in the map."""
        added = [
            place
            for place, (slots, of, before) in enumerate(self._journal)
            if before is ABSENT and of == key and (slots is kind.original or slots is kind.current)
        ]
        for place in added:
            self._journal[place] = (self._journal[place][0], key, row)
        if added:
            self._journal += [
                (index, value, key)
                for unique, index in kind.unique.items()
                if (value := getattr(row, unique)) is not None
            ]
            self._journal += [(known.of(known.values_of(row)), key, True) for known in kind.filed.values()]

    def _file(self, kind: ModelRows, key: Key, before: Row | None, row: Row | None) -> None:
        """File a row by what it is now, and no longer by what it was."""
        for known in kind.filed.values():
            old = None if before is None else known.values_of(before)
            new = None if row is None else known.values_of(row)
            if old == new:
                continue
            if old is not None:
                keys = known.of(old)
                del keys[key]
                self._journal.append((keys, key, True))
            if new is not None:
                keys = known.of(new)
                keys[key] = True
                self._journal.append((keys, key, ABSENT))

    def _set(self, slots: dict[Any, Any], key: Any, value: Any) -> None:
        self._journal.append((slots, key, slots.get(key, ABSENT)))
        slots[key] = value
