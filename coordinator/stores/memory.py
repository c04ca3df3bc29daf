"""A store in memory: for tests, simulation and a monolith's first steps. It keeps nothing when the process ends."""

from collections import Counter as Counts
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain
from typing import Any

from coordinator.service.rows import Key, KeyPart, R, Row, RowSelection, Value, key_of
from coordinator.stores.lane_tables import LogEntry, OutboxEntry
from coordinator.stores.moves import LaneMove
from coordinator.stores.port import Backlog, BatchFault, Changes, Fenced, Lease, Read, Transaction

_ABSENT = object()
_Journal = list[tuple[dict[Any, Any], Any, Any]]


class _Indexes(dict[type[Row], dict[str, dict[Any, Key]]]):
    """By model and unique column: the key of the row that has a value."""

    def __missing__(self, model: type[Row]) -> dict[str, dict[Any, Key]]:
        indexes = self[model] = {column: {} for column in model.unique}
        return indexes


class MemoryDatabase:
    """The database that several stores share, such as the active consumer's and a standby's."""

    def __init__(self) -> None:
        self.tables: defaultdict[type[Row], dict[Key, Any]] = defaultdict(dict)
        self.indexes = _Indexes()
        self.epoch = 0
        self.sequence = 0
        self.revision = 0
        self.paused: str | None = None
        self.loss_accepted: int | None = None
        self.holder = ""
        self.move: LaneMove | None = None
        self.lineage: str | None = None
        self.supersedes: str | None = None
        self.proved: int | None = None
        """Set to a number, it is kept as PostgreSQL keeps it that waits for a synchronous standby."""

    def rows(self, model: type[R]) -> list[R]:
        """All rows of a model, in order of their keys."""
        return _in_order(self.tables[model].values())

    def selected(self, model: type[R], where: Sequence[tuple[str, Value]], after: Key | None, limit: int) -> list[R]:
        """The first rows of a model with these values, those after a key, in order of their keys."""
        found = [
            row
            for key, row in self.tables[model].items()
            if (after is None or key > after)  # type: ignore[operator]  # of one type
            and all(getattr(row, column) == value for column, value in where)
        ]
        return _in_order(found)[:limit]


class MemoryStore:
    """Implements `Store` on a MemoryDatabase."""

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database

    def check(self, models: Sequence[type[Row]], *, must_sync: bool = True) -> Sequence[str]:  # noqa: ARG002
        """Anything can be kept in memory."""
        return ()

    def take_over(self, holder: str, now: datetime, above: int = 0, lineage: str | None = None) -> Lease:  # noqa: ARG002
        self._database.epoch = max(self._database.epoch, above) + 1
        self._database.holder = holder
        self._database.lineage = self._database.lineage or lineage
        return self._lease()

    def renew(self, holder: str, now: datetime, epoch: int) -> Lease:
        if self._database.epoch != epoch:
            raise Fenced(f"epoch {epoch} is over; it is {self._database.epoch} now")
        return self.take_over(holder, now)

    def current(self) -> Lease | None:
        return self._lease() if self._database.epoch or self._database.revision else None

    def look(self) -> Lease | None:
        return self.current()

    def command_at(self, sequence: int) -> str | None:
        # The last ones are asked for.
        entries = reversed(self._database.tables[LogEntry].values())
        return next((entry.command_id for entry in entries if entry.sequence == sequence), None)

    def begin(self) -> Transaction:
        return MemoryTransaction(self._database)

    def close(self) -> None:
        """Nothing to close."""

    def _lease(self) -> Lease:
        of = self._database
        told = of.paused, of.loss_accepted, of.holder, of.move, of.proved, of.lineage, of.supersedes
        return Lease(of.epoch, of.sequence, of.revision, *told)


class MemoryTransaction:
    """Implements `Transaction`; a refused commit keeps nothing."""

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database

    def load(self, reads: Sequence[Read | RowSelection[Row]]) -> list[list[Any]]:
        try:
            return [self._load(read) for read in reads]
        except Exception as error:
            raise BatchFault(f"{type(error).__name__}: {error}") from error

    def scan(
        self, model: type[R], limit: int, after: Key | None = None, where: tuple[str, KeyPart] | None = None
    ) -> list[R]:
        return self._database.selected(model, () if where is None else (where,), after, limit)

    def last(self, model: type[R], limit: int) -> list[R]:
        return self._database.rows(model)[::-1][:limit]

    def last_numbers(self, model: type[Row], limit: int) -> list[int]:
        keys: Any = [key_of(row) for row in self.last(model, limit)]
        return list(keys)

    def backlog(self) -> list[Backlog]:
        rows = self._database.rows(OutboxEntry)
        counts = Counts(row.lane for row in rows)
        oldest = {row.lane: row.created_at for row in reversed(rows)}
        return [Backlog(target, count, oldest[target]) for target, count in counts.items()]

    def commit(self, lease: Lease, sequence: int, changes: Changes) -> None:
        database = self._database
        if (database.epoch, database.sequence, database.revision) != (lease.epoch, lease.sequence, lease.revision):
            raise Fenced(f"epoch {lease.epoch} is over; it is {database.epoch} now")
        journal: _Journal = []
        try:
            _write(database, changes, journal)
        except Exception as error:
            for slots, key, before in reversed(journal):
                if before is _ABSENT:
                    del slots[key]
                else:
                    slots[key] = before
            if isinstance(error, BatchFault):
                raise
            # Such as a key that cannot be one.
            raise BatchFault(f"{type(error).__name__}: {error}") from error
        if database.proved is not None:
            database.proved = database.sequence
        database.sequence = sequence

    def rollback(self) -> None:
        """Nothing was kept."""

    def _load(self, read: Read | RowSelection[Row]) -> list[Any]:
        if isinstance(read, RowSelection):
            return self._database.selected(read.model, read.where, read.after, read.limit)
        table = self._database.tables[read.model]
        if read.column == read.model.key:
            return [table[value] for value in read.values if value in table]
        index = self._database.indexes[read.model][str(read.column)]
        return [table[index[value]] for value in read.values if value in index]


def _in_order(rows: Iterable[R]) -> list[R]:
    return sorted(rows, key=lambda row: (isinstance(key := key_of(row), str), key))


def _write(database: MemoryDatabase, changes: Changes, journal: _Journal) -> None:
    """Write the changes in place, so that a commit's cost depends on the changes only. The journal undoes them."""
    for row in chain.from_iterable(changes.deletes):
        _take_out(database, row, journal)
    for row in chain.from_iterable(changes.updates):
        if not _take_out(database, row, journal):
            raise BatchFault(f"{row.table}: there is no row {key_of(row)!r} to change")
    for rows in (*changes.updates, *changes.inserts):
        for row in rows:
            table, key = database.tables[type(row)], key_of(row)
            if key in table:
                advice = "a handler asks first (`work.get`), or numbers its rows (`work.next_id`)"
                raise BatchFault(f"{row.table}: duplicate key {key!r}: {advice}")
            _put(journal, table, key, row)
            for index, value in _indexed(database, row):
                if value in index:
                    advice = "a handler asks first (`work.find`)"
                    raise BatchFault(f"{row.table}: duplicate {value!r} in a unique column: {advice}")
                _put(journal, index, value, key)


def _take_out(database: MemoryDatabase, row: Row, journal: _Journal) -> bool:
    table, key = database.tables[type(row)], key_of(row)
    before = table.get(key)
    if before is None:
        return False
    _pop(journal, table, key)
    for index, value in _indexed(database, before):
        _pop(journal, index, value)
    return True


def _indexed(database: MemoryDatabase, row: Row) -> Iterator[tuple[dict[Any, Key], Any]]:
    """The unique columns of a row that have a value: as in SQL, any number of rows may have none."""
    for column, index in database.indexes[type(row)].items():
        value = getattr(row, column)
        if value is not None:
            yield index, value


def _put(journal: _Journal, slots: dict[Any, Any], key: Any, value: Any) -> None:
    journal.append((slots, key, _ABSENT))
    slots[key] = value


def _pop(journal: _Journal, slots: dict[Any, Any], key: Any) -> None:
    journal.append((slots, key, slots.pop(key)))
