"""A store in memory: for tests, simulation and a monolith's first steps. It keeps nothing when the process ends."""

import itertools
from collections.abc import Sequence
from datetime import datetime
from typing import cast

from coordinator.stores.port import BatchFault, Changes, Fenced, Lease, Transaction
from shared.rows import R, Row

Tables = dict[type[Row], dict[int | str, Row]]


class MemoryDatabase:
    """What several stores, the active consumer's and a standby's, share."""

    def __init__(self) -> None:
        self.tables: Tables = {}
        self.epoch = 0
        self.sequence = 0
        self.revision = 0
        self.paused: str | None = None

    def rows(self, model: type[R]) -> list[R]:
        """All rows of a model, in order of their keys."""
        table = self.tables.get(model, {})
        return [cast("R", table[key]) for key in sorted(table, key=lambda key: (isinstance(key, str), key))]


class MemoryStore:
    """Implements `Store` on a MemoryDatabase."""

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database

    def check(self, models: Sequence[type[Row]], *, must_sync: bool = True) -> None:
        """Anything can be kept in memory."""

    def take_over(self, holder: str, now: datetime) -> Lease:  # noqa: ARG002
        self._database.epoch += 1
        database = self._database
        return Lease(database.epoch, database.sequence, database.revision, database.paused)

    def renew(self, holder: str, now: datetime, epoch: int) -> Lease:
        if self._database.epoch != epoch:
            raise Fenced(f"epoch {epoch} is over; it is {self._database.epoch} now")
        return self.take_over(holder, now)

    def begin(self) -> Transaction:
        return MemoryTransaction(self._database)

    def close(self) -> None:
        """Nothing to close."""


class MemoryTransaction:
    """Implements `Transaction`; a commit is checked whole before anything of it is kept."""

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database

    def load(self, model: type[R], column: str, values: Sequence[int | str]) -> list[R]:
        table = self._database.tables.get(model, {})
        if column == model.key:
            return [cast("R", table[value]) for value in values if value in table]
        wanted = set(values)
        return [cast("R", row) for row in table.values() if getattr(row, column) in wanted]

    def scan(self, model: type[R], limit: int, after: int | str | None = None) -> list[R]:
        rows = self._database.rows(model)
        if after is not None:
            rows = [row for row in rows if getattr(row, row.key) > after]
        return rows[:limit]

    def commit(self, lease: Lease, sequence: int, changes: Changes) -> None:
        database = self._database
        if (database.epoch, database.sequence, database.revision) != (lease.epoch, lease.sequence, lease.revision):
            raise Fenced(f"epoch {lease.epoch} is over; it is {database.epoch} now")
        after: Tables = {model: dict(table) for model, table in database.tables.items()}
        for row in itertools.chain.from_iterable(changes.deletes):
            after.get(type(row), {}).pop(getattr(row, row.key), None)
        for row in itertools.chain.from_iterable(changes.updates):
            after.setdefault(type(row), {})[getattr(row, row.key)] = row
        for row in itertools.chain.from_iterable(changes.inserts):
            table = after.setdefault(type(row), {})
            if getattr(row, row.key) in table:
                raise BatchFault(f"{row.table}: duplicate key {getattr(row, row.key)!r}")
            table[getattr(row, row.key)] = row
        _check_unique(after)
        database.tables = after
        database.sequence = sequence

    def rollback(self) -> None:
        """Nothing was kept."""


def _check_unique(tables: Tables) -> None:
    for model, table in tables.items():
        for column in model.unique:
            values = [getattr(row, column) for row in table.values()]
            if len(set(values)) != len(values):
                raise BatchFault(f"{model.table}: duplicate {column}")
