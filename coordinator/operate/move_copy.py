"""Copying the rows of a lane from one database to another, and comparing them, by what any store can do.

The lane may go on meanwhile: a page is read in one transaction, and the next one in another. Whatever changes in
between is brought later, by its key.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from functools import cache, partial
from hashlib import blake2b
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Struct

from coordinator.operate.move_left import Keys, in_words
from coordinator.operate.move_pages import in_transaction, last_rows, page_rows, pages
from coordinator.operate.move_steps import MoveRefused
from coordinator.service.rows import Key, R, Row, key_columns, key_of, shown_key
from coordinator.service.service import Service
from coordinator.stores.audit_tables import OperatorAct
from coordinator.stores.field_types import field_type, hints_of
from coordinator.stores.fingerprint_keys import FingerprintKey
from coordinator.stores.lane_tables import (
    LANE_MODELS,
    AnnouncedVersion,
    ApiKey,
    Cancellation,
    IdempotencySecret,
)
from coordinator.stores.move_tables import MoveNote
from coordinator.stores.port import Changes, Lease, Read, Refusal, RowFault, Store, Transaction
from coordinator.stores.same_rows import Order, is_same

_LANES_OWN: Final[frozenset[type[Row]]] = frozenset((*LANE_MODELS, ApiKey, IdempotencySecret))
CHANGED_PAST_THE_LANE: Final[tuple[type[Row], ...]] = (
    Cancellation,
    AnnouncedVersion,
    ApiKey,
    IdempotencySecret,
    FingerprintKey,
)
"""Rows that operators and migrations change, which note nothing. They are few."""
_UNREAD_MAX: Final = 20
"""How many rows that cannot be read one run names."""
ACTS_AT_THE_END: Final = 1000
"""How many of the last operators' acts are copied again once nothing commits any more."""


class TableRows(Struct, frozen=True, kw_only=True):
    """The rows of one table in one database: how many, and a digest of all of them, whatever their order."""

    rows: int
    digest: str


class TableComparison(Struct, frozen=True, kw_only=True):
    """One table in both databases, and the keys of the rows that only one has, or that differ."""

    table: str
    here: TableRows
    there: TableRows
    different: frozenset[Key]


class MoveCopy:
    """Reads one database and writes the other, as the holder of the lane there. Raises StoreError."""

    def __init__(self, service: Service, source: Store, target: Store) -> None:
        self._source = source
        self._target = target
        own = tuple(model for model in LANE_MODELS if model is not MoveNote)
        self.models: tuple[type[Row], ...] = (*service.models, *own, ApiKey, IdempotencySecret)
        self._by_table = {model.table: model for model in self.models}
        self.lease: Lease | None = None
        """The right to write there."""
        self.refusals: dict[type[Row], tuple[Key, Refusal]] = {}
        """By model, of the last row that was refused there by itself."""
        self.unread: dict[type[Row], dict[Key, RowFault]] = {}
        """By model, the rows here that cannot be read."""

    def copy(self, model: type[Row], tell: Callable[[int], None], *, is_new: bool) -> tuple[int, set[Key]]:
        """Copy all rows of a table; return how many there were, and the keys of those that could not be written alone.

        `tell` is called with how many were copied so far. `is_new`: the table is empty there, so that nothing is
        compared. Those that cannot be read are in `unread`. Raises MoveRefused where they are too many.
        """
        count, left = 0, set[Key]()
        for rows in self._readable(model):
            count += len(rows)
            keys = [key_of(row) for row in rows]
            try:
                if is_new:
                    self._commit(Changes([], [], [rows]))
                    # The column there may round what is finer than a millisecond.
                    keys = [key_of(row) for row in rows if _as_brought(row) is not row]
            except Refusal:
                """Some of them may be written, each by itself."""
            left |= self._bring_what_can_be(model, keys)
            tell(count)
        return count, left

    def bring(self, keys: Keys, sequence: int | None = None) -> bool:
        """Make these rows there what they are here, in one transaction; whether anything was to be done.

        `sequence`: count the lease's sequence up to this one. Raises Refusal.
        """
        changes = self._changes(keys)
        is_news = bool(changes.deletes or changes.updates or changes.inserts)
        if is_news or sequence is not None:
            self._commit(changes, sequence)
        return is_news

    def bring_in_parts(self, keys: Keys, after_part: Callable[[], None]) -> dict[type[Row], set[Key]]:
        """The same in as many transactions as it takes; return the keys that could not be written in their part."""
        left: dict[type[Row], set[Key]] = {}
        for model, of_model in keys.items():
            ordered = list(of_model)
            for start in range(0, len(ordered), page_rows(model)):
                if some := self._bring_what_can_be(model, ordered[start : start + page_rows(model)]):
                    left.setdefault(model, set()).update(some)
                after_part()
        return left

    def differing(self, keys: Keys) -> dict[type[Row], set[Key]]:
        """Those of these rows that are not there what they are here."""
        found: dict[type[Row], set[Key]] = {}
        for model, of_model in keys.items():
            here, there = self._load(self._source, model, of_model), self._load(self._target, model, of_model)
            if different := {key for key in of_model if not _says_the_same(here.get(key), there.get(key))}:
                found[model] = different
        return found

    def unkept(self, keys: Keys) -> MoveRefused:
        """The error for rows that are not there what they are here, though they were brought, with their columns."""
        columns: dict[type[Row], list[str]] = {}
        for model, of_model in keys.items():
            some = sorted(of_model, key=repr)[: page_rows(model)]
            here, there = self._load(self._source, model, some), self._load(self._target, model, some)
            pairs = [(_as_brought(here[key]), there[key]) for key in some if key in here and key in there]
            columns[model] = [
                name
                for name in model.__struct_fields__
                if any(_comparable(getattr(row, name)) != _comparable(getattr(other, name)) for row, other in pairs)
            ]
        return MoveRefused(
            f"the database of --to does not keep rows of {in_words(keys, columns)} as they are here: change these "
            "columns there, have the lane write what they keep, or end whoever else writes there, and run this again, "
            "or with --cancel"
        )

    def compare(self, model: type[Row]) -> TableComparison:
        """Compare all rows of a table."""
        here, there = _Summing(), _Summing()
        different = set[Key]()
        for rows in pages(self._source, model):
            here.add(rows)
            others = self._load(self._target, model, [key_of(row) for row in rows])
            different |= {key_of(row) for row in rows if not _says_the_same(row, others.get(key_of(row)))}
        for rows in pages(self._target, model):
            known = self._load(self._source, model, [key_of(row) for row in rows])
            if model is OperatorAct:
                # What was done to the database there, before the lane came, stays on record.
                rows = [row for row in rows if key_of(row) in known]  # noqa: PLW2901
            there.add(rows)
            different |= {key_of(row) for row in rows if key_of(row) not in known}
        return TableComparison(table=model.table, here=here.sum(), there=there.sum(), different=frozenset(different))

    def changed_past_the_lane(self) -> dict[type[Row], set[Key]]:
        """The keys of all rows, here and there, whose changes nobody notes."""
        keys: dict[type[Row], set[Key]] = {}
        for store in (self._source, self._target):
            for model in CHANGED_PAST_THE_LANE:
                for rows in pages(store, model):
                    keys.setdefault(model, set()).update(map(key_of, rows))
        acts = last_rows(self._source, OperatorAct, ACTS_AT_THE_END)
        return keys | {OperatorAct: {key_of(act) for act in acts}}

    def first_table_with_rows(self, *, of_source: bool = False) -> str | None:
        """A table there that has rows, apart from those that a migration writes; None: there is none."""
        written = (AnnouncedVersion, IdempotencySecret, FingerprintKey, OperatorAct)
        for model in self.models:
            if model not in written and next(pages(self._source if of_source else self._target, model), None):
                return model.table
        return None

    def clear(self) -> list[str]:
        """Remove all rows there, but the record of what operators did; return the tables with rows that stay."""
        left = [model for model in self.models if model is not OperatorAct]
        for _ in self.models:
            # Rows of one table may refer to those of another: who cannot go yet goes in a later round.
            left = [model for model in left if not self._is_cleared(model)]
        return [model.table for model in left]

    def check_read(self, *, is_all: bool = True) -> None:
        """Raises MoveRefused where rows here cannot be read."""
        if self.unread:
            keys = {model: set(faults) for model, faults in self.unread.items()}
            all_of_them = [str(fault) for faults in self.unread.values() for fault in faults.values()]
            more = "" if is_all else "; there may be more"
            why = f"rows of {in_words(keys)} cannot be read here: {'; '.join(all_of_them)}{more}"
            phase = f"rows of {in_words(keys)} cannot be read"
            raise MoveRefused(f"{why}. Mend these rows, and run this again, or with --cancel", phase)

    def why_refused(self, models: Iterable[type[Row]]) -> str:
        """Why rows of these were refused there, with the key of one of each."""
        last = ((model, *self.refusals[model]) for model in models if model in self.refusals)
        return "; ".join(f"the row {shown_key(key)} of {model.table}: {error}" for model, key, error in last)

    def notes_after(self, after: tuple[int, int] | None) -> Iterator[list[MoveNote]]:
        """The notes of the lane that are there now, in order. It may add more meanwhile, faster than they are read."""
        return pages(self._source, MoveNote, after)

    def keys_in(self, changed: Iterable[tuple[str, Key]]) -> dict[type[Row], set[Key]]:
        """The rows of a note, by model."""
        keys: defaultdict[type[Row], set[Key]] = defaultdict(set)
        for table, key in changed:
            model = self._by_table.get(table)
            if model is not None:
                keys[model].add(_typed(key, _uuids_of(model)))
        return dict(keys)

    def _readable(self, model: type[R]) -> Iterator[list[R]]:
        """The rows here but for those that cannot be read, which one run finds. Raises MoveRefused."""
        try:
            yield from pages(self._source, model, pass_over=partial(self._pass_over, model))
        except RowFault as fault:
            # Its key cannot be read either, and so nobody knows what is behind it.
            self._pass_over(model, (), fault)
            self.check_read(is_all=False)

    def _pass_over(self, model: type[Row], key: Key, fault: RowFault) -> None:
        """Raises MoveRefused where they are too many to name."""
        self.unread.setdefault(model, {})[key] = fault
        if sum(map(len, self.unread.values())) >= _UNREAD_MAX:
            self.check_read(is_all=False)

    def _is_cleared(self, model: type[Row]) -> bool:
        try:
            for rows in pages(self._target, model):
                self._commit(Changes([rows], [], []))
        except Refusal:
            return False
        return True

    def _bring_what_can_be(self, model: type[Row], keys: Sequence[Key]) -> set[Key]:
        """Bring rows of a model; return the keys of those that the database there refuses, as they are by themselves.

        They may refer to rows that come later, or have a unique value that another row there still has.
        """
        try:
            self.bring({model: set(keys)})
        except Refusal as error:
            if len(keys) == 1:
                self.refusals[model] = keys[0], error
                return set(keys)
            half = len(keys) // 2
            return self._bring_what_can_be(model, keys[:half]) | self._bring_what_can_be(model, keys[half:])
        return set()

    def _changes(self, keys: Keys) -> Changes:
        deletes, updates, inserts = list[list[Row]](), list[list[Row]](), list[list[Row]]()
        before: dict[tuple[type[Row], Key], Row] = {}
        for model, of_model in keys.items():
            here, there = self._load(self._source, model, of_model), self._load(self._target, model, of_model)
            gone = [row for key, row in there.items() if key not in here]
            new = [row for key, row in here.items() if key not in there]
            changed = [_as_brought(row) for key, row in here.items() if key in there and not _is_kept(row, there[key])]
            before |= {(model, key_of(row)): there[key_of(row)] for row in changed}
            for rows, into in ((gone, deletes), (changed, updates), (new, inserts)):
                if rows:
                    into.append(rows)
        has_moves = any(model.unique for model, _ in before)
        return Changes(deletes, updates, inserts, lambda row: before.get((type(row), key_of(row))), has_moves)

    def _commit(self, changes: Changes, sequence: int | None = None) -> None:
        lease = self.lease
        if lease is None:
            raise AssertionError("the lane there is not held")
        reached = lease.sequence if sequence is None else sequence

        def write(transaction: Transaction) -> None:
            transaction.commit(lease, reached, changes)

        in_transaction(self._target, write)
        self.lease = msgspec.structs.replace(lease, sequence=reached)

    def _load(self, store: Store, model: type[R], keys: Iterable[Key]) -> dict[Key, R]:
        ordered = list(keys)
        found: dict[Key, R] = {}
        for start in range(0, len(ordered), page_rows(model)):
            some = ordered[start : start + page_rows(model)]
            (rows,) = in_transaction(store, partial(_loaded, Read(model, model.key, some)))
            found |= {key_of(row): row for row in rows}
        return found


class _Summing:
    """Adds rows up to one digest, whatever their order is."""

    def __init__(self) -> None:
        self._rows = 0
        self._sum = 0

    def add(self, rows: Sequence[Row]) -> None:
        for row in rows:
            kept = _as_brought(row)
            values = [_comparable(getattr(kept, name)) for name in kept.__struct_fields__]
            encoded = msgspec.msgpack.encode(values, order="deterministic")
            self._sum += int.from_bytes(blake2b(encoded, digest_size=16).digest())
        self._rows += len(rows)

    def sum(self) -> TableRows:
        return TableRows(rows=self._rows, digest=f"{self._sum % (1 << 128):032x}")


def _comparable(value: Any) -> Any:
    """Values that are equal as one: a column of two decimals says 1.50 where another one says 1.5."""
    return value.normalize() if isinstance(value, Decimal) and value.is_finite() else value


def _is_kept(row: Row | None, there: Row | None, order: Order = None) -> bool:
    """Whether a row is there as it is here."""
    if row is None or there is None:
        return row is there
    return is_same(row if row == there else _as_brought(row), there, order)


def _says_the_same(row: Row | None, there: Row | None) -> bool:
    """The same for whoever looks whether it came: a column of parsed JSON, made by others, has an order of its own."""
    return _is_kept(row, there, order="deterministic")


def _as_brought(row: R) -> R:
    """The row itself, or one of the lane's own with times to the millisecond: more of them says nothing to anybody.

    A service's may have finer ones, where its table was there before its lane, and these are its own.
    """
    if type(row) not in _LANES_OWN:
        return row
    finer = {
        name: value.replace(microsecond=value.microsecond // 1000 * 1000)
        for name in row.__struct_fields__
        if isinstance(value := getattr(row, name), datetime) and value.microsecond % 1000
    }
    return msgspec.structs.replace(row, **finer) if finer else row


@cache
def _uuids_of(model: type[Row]) -> tuple[bool, ...]:
    """Of each column of the key, whether it is a UUID; empty where none is."""
    hints = hints_of(model)
    are = tuple(name in hints and field_type(hints[name]).kind is UUID for name in key_columns(model))
    return are if any(are) else ()


def _typed(key: Key, are_uuids: Sequence[bool]) -> Key:
    """A key with its UUIDs, which a note has as text."""
    if not are_uuids:
        return key
    parts = key if isinstance(key, tuple) else (key,)
    typed = [UUID(str(part)) if is_uuid else part for part, is_uuid in zip(parts, are_uuids, strict=True)]
    return tuple(typed) if isinstance(key, tuple) else typed[0]


def _loaded(read: Read, transaction: Transaction) -> list[list[Any]]:
    return transaction.load([read])
