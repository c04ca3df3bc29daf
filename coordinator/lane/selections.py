"""What a batch knows of the rows that have some values in some columns.

A selection is answered from the map alone: `FiledRows` has the keys of the map's rows by their values, as they are now,
and `Coverage` says between which keys the map has all rows that the database has with these values.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, Final

from coordinator.service.rows import SELECTED_MAX, Key, Row, Value

Values = tuple[Value, ...]
_GROWTH: Final = 3
"""A selection that goes on is read in pieces of so many times the rows that were read: a hot one is read a few times a
batch, however many commands take rows out of it."""


class OrderedKeys:
    """Keys in order. They are changed like those of a dict, so the journal of a batch takes their changes back."""

    __slots__ = ("_keys",)

    def __init__(self) -> None:
        self._keys: list[Any] = []

    def __setitem__(self, key: Key, there: object) -> None:
        insort(self._keys, key)

    def __delitem__(self, key: Key) -> None:
        del self._keys[bisect_left(self._keys, key)]

    def between(self, after: Key | None, stretch: "Stretch", limit: int) -> Sequence[Key]:
        """The first of them behind a key, up to the end of a stretch."""
        keys = self._keys
        start = 0 if after is None else bisect_right(keys, after)
        if stretch.is_whole:
            return keys[start : start + limit]
        end = 0 if stretch.end is None else bisect_right(keys, stretch.end)
        return keys[start : min(end, start + limit)]


class FiledRows:
    """The rows of one model, as a batch has them now, by their values in some columns."""

    __slots__ = ("_by_values", "values_of")

    def __init__(self, columns: tuple[str, ...]) -> None:
        self.values_of: Callable[[Row], Values] = _getter(columns)
        self._by_values: dict[Values, OrderedKeys] = {}

    def of(self, values: Values) -> OrderedKeys:
        """The keys of the rows with these values."""
        keys = self._by_values.get(values)
        if keys is None:
            keys = self._by_values[values] = OrderedKeys()
        return keys

    def add(self, key: Key, row: Row) -> None:
        """File a row that the database has."""
        self.of(self.values_of(row))[key] = True


class Stretch:
    """A range of keys: behind `start`, up to `end` and with it. None is before all keys.

    `is_whole`: up to the last key. `rows` counts those that were read.
    """

    __slots__ = ("end", "is_whole", "rows", "start")

    def __init__(self, start: Key | None) -> None:
        self.start = self.end = start
        self.is_whole = False
        self.rows = 0

    def missing(self, limit: int) -> int:
        """How many rows to read next, where a selection lacks at least so many."""
        return min(max(limit, _GROWTH * self.rows), SELECTED_MAX)


class Coverage:
    """The stretches of keys of which the map has all rows that the database has with some values."""

    __slots__ = ("_stretches",)

    def __init__(self) -> None:
        self._stretches: list[Stretch] = []
        """In order of their starts."""

    def behind(self, after: Key | None) -> Stretch:
        """The stretch that has what follows a key; a new one, if none has."""
        place = bisect_right(self._stretches, _rank(after), key=lambda stretch: _rank(stretch.start))
        if place:
            stretch = self._stretches[place - 1]
            if stretch.is_whole or _rank(after) <= _rank(stretch.end):
                return stretch
        stretch = Stretch(after)
        self._stretches.insert(place, stretch)
        return stretch

    def read(self, after: Key | None, keys: Sequence[Any], limit: int) -> bool:
        """The first rows behind a key were read, at most so many. False: Python puts their keys into another order."""
        before = after
        for key in keys:
            if before is not None and not before < key:
                return False
            before = key
        stretch = self.behind(after)
        stretch.end = max(stretch.end, before, key=_rank)
        stretch.is_whole = stretch.is_whole or len(keys) < limit
        stretch.rows += len(keys)
        self._absorb(stretch)
        return True

    def _absorb(self, stretch: Stretch) -> None:
        """No stretch begins within another."""
        stretches = self._stretches
        place = stretches.index(stretch) + 1
        while place < len(stretches) and (stretch.is_whole or _rank(stretches[place].start) <= _rank(stretch.end)):
            other = stretches.pop(place)
            stretch.end = max(stretch.end, other.end, key=_rank)
            stretch.is_whole = stretch.is_whole or other.is_whole
            stretch.rows += other.rows


def _rank(key: Key | None) -> tuple[Any, ...]:
    return () if key is None else (key,)


def _getter(columns: tuple[str, ...]) -> Callable[[Row], Values]:
    match columns:
        case ():
            return lambda row: ()  # noqa: ARG005
        case (column,):
            return lambda row: (getattr(row, column),)
    return attrgetter(*columns)


def filed(columns: tuple[str, ...], rows: Iterable[tuple[Key, Row | None]]) -> FiledRows:
    """The rows that are there, filed by these columns."""
    made = FiledRows(columns)
    for key, row in rows:
        if row is not None:
            made.add(key, row)
    return made
