"""Sees rows that a handler changes in place, and does not save: what is in a list or a dict of a row can be changed.

The lane gives each handler rows of its own, so nobody ever sees such a change, and nothing says that it is lost.
"""

from collections.abc import Callable, Iterator
from typing import Any

from coordinator.service.rows import Key, R, Row, Value, key_of
from coordinator.service.service import Service
from coordinator.service.unit_of_work import UnitOfWork
from coordinator.stores.row_checks import RowChecks

Copies = dict[type[Row], Callable[[Any], Any]]
"""Of models whose rows can be changed in place: what makes a row that shares nothing with another."""


def copies_of(service: Service) -> Copies:
    """Those of a service."""
    checks = RowChecks(service)
    return {model: copied for model in service.models if (copied := checks.of(model).copied) is not None}


class NotingWork:
    """A unit of work that notes the rows that it gives out, and those that it is given, of models with copies."""

    def __init__(self, work: UnitOfWork, copies: Copies) -> None:
        self._work = work
        self._copies = copies
        self._noted: list[tuple[Row, Row]] = []
        """Each with what was in it then."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._work, name)

    def get(self, model: type[R], key: Key) -> R | None:
        return self._note(self._work.get(model, key))

    def find(self, model: type[R], column: str, value: Key) -> R | None:
        return self._note(self._work.find(model, column, value))

    def select(self, model: type[R], /, *, limit: int, after: Key | None = None, **equals: Value) -> list[R]:
        rows = self._work.select(model, limit=limit, after=after, **equals)
        for row in rows:
            self._note(row)
        return rows

    def add(self, row: R) -> R:
        self._note(row)
        return self._noted_now(self._work.add(row))

    def save(self, row: R) -> R:
        self._note(row)
        return self._noted_now(self._work.save(row))

    def _noted_now(self, row: R) -> R:
        self._note(row)
        return row

    def _note(self, row: R | None) -> R | None:
        if row is not None and (copied := self._copies.get(type(row))) is not None:
            self._noted.append((row, copied(row)))
        return row

    def lost(self) -> Iterator[str]:
        """The fields in which a change is lost, such as `Place 3.tags`."""
        for row, before in self._noted:
            changed = [name for name in row.__struct_fields__ if getattr(row, name) != getattr(before, name)]
            if not changed:
                continue
            key = key_of(row)
            now = self._work.get(type(row), key)
            for name in changed:
                if now is not None and getattr(now, name) != getattr(row, name):
                    yield f"{type(row).__name__} {key!r}.{name}"
