"""The order in which the changes of a batch are written, so that foreign keys and unique columns let them pass.

Rows are deleted first, then changed, then inserted: what was unique of a row that goes is free for one that comes.
Where that is not enough, single rows wait: a row that refers to another is written once that one is there, and a row
goes once nothing refers to it any more; a unique value is taken once it is free. Only these cost further statements.

There is no such order where rows wait for each other, as two do that swap a unique value. They are written in the usual
order, for constraints that are checked at the commit. If the database refuses that, the lane tries fewer commands.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Any, Final, Literal, TypeAlias

from msgspec import Struct

from coordinator.service.rows import Row, key_columns
from coordinator.stores.port import Changes

WriteKind: TypeAlias = Literal["delete", "update", "insert"]
Step: TypeAlias = tuple[WriteKind, Sequence[Row]]
"""Rows of one model that are written at once. Inserts, and all rows where these are written one by one, are in an order
in which each could be written by itself."""

_Found: TypeAlias = Iterator[tuple[Any, int]]
"""Values, and the number of the row that has or had them."""
_Waits: TypeAlias = Iterator[tuple[int, int]]
"""The numbers of a row that waits, and of the one for which it does."""
_BEFORE_ALL: Final = -1


class Reference(Struct, frozen=True):
    """A foreign key: rows of `model` refer by `columns` to rows of `other`, which have the values in `others`.

    `follows`: where a row of `other` goes, the database itself removes or changes those that refer to it.
    """

    model: type[Row]
    columns: tuple[str, ...]
    other: type[Row]
    others: tuple[str, ...]
    follows: bool = False


class Uniqueness(Struct, frozen=True):
    """No two rows of `model` have the same values in `columns`."""

    model: type[Row]
    columns: tuple[str, ...]


class WriteOrder:
    """Made once, of what is known of a database. It costs nothing where there are no references, and nothing moves."""

    def __init__(
        self,
        models: Sequence[type[Row]] = (),
        references: Sequence[Reference] = (),
        uniques: Sequence[Uniqueness] = (),
        *,
        one_by_one: bool = False,
    ) -> None:
        """`one_by_one`: the rows of every step are written in their order, and not as one set."""
        self._one_by_one = one_by_one
        self._references = references
        self._uniques = uniques
        self._unnoted = {each.model for each in uniques if not _is_declared(each)}
        """Of their updates `has_moves` does not say all."""
        self._ranks = _ranks(models, references)

    def steps(self, changes: Changes) -> list[Step]:
        """All changes. Lists in which no row waits are written whole."""
        may_move = changes.has_moves or any(type(rows[0]) in self._unnoted for rows in changes.updates)
        if not (self._references or may_move):
            return _in_phases(changes.deletes, changes.updates, changes.inserts)
        steps = _in_phases(
            sorted(changes.deletes, key=lambda rows: -self._rank(type(rows[0]))),
            sorted(changes.updates, key=lambda rows: self._rank(type(rows[0]))),
            sorted(changes.inserts, key=lambda rows: self._rank(type(rows[0]))),
        )
        numbered = _Numbered(steps, changes.before)
        # The ranks keep the others, as long as no row waits.
        kept, asking = list[Reference](), list[Reference]()
        for each in self._references:
            is_kept = self._rank(each.other) < self._rank(each.model) and not numbered.has("update", each.model)
            (kept if is_kept else asking).append(each)
        waits = [pair for each in asking for pair in _of_reference(numbered, each)]
        if waits or may_move:
            waits += [pair for each in self._uniques for pair in _of_uniqueness(numbered, each)]
        if not waits:
            return steps
        waits += [pair for each in kept for pair in _of_reference(numbered, each)]
        return _scheduled(numbered, waits, one_by_one=self._one_by_one)

    def _rank(self, model: type[Row]) -> int:
        """Where the rows of a model come among those that are inserted; the lane's own come first."""
        return self._ranks.get(model, _BEFORE_ALL)


def _is_declared(unique: Uniqueness) -> bool:
    """Whether its class says so, and not only the database."""
    return len(unique.columns) == 1 and unique.columns[0] in unique.model.unique


def _of_reference(rows: "_Numbered", reference: Reference) -> _Waits:
    made = dict(rows.taking(reference.other, reference.others))
    if made:
        for value, number in rows.taking(reference.model, reference.columns):
            if (there := made.get(value, number)) != number:
                yield number, there
    # What follows may have been moved away before the other row went, or not: then the database tells by a refusal.
    lost = {} if reference.follows else dict(rows.leaving(reference.other, reference.others))
    if lost:
        for value, number in rows.leaving(reference.model, reference.columns):
            if (gone := lost.get(value, number)) != number:
                yield gone, number


def _of_uniqueness(rows: "_Numbered", unique: Uniqueness) -> _Waits:
    freed = dict(rows.leaving(unique.model, unique.columns))
    if freed:
        for value, number in rows.taking(unique.model, unique.columns):
            if (before := freed.get(value, number)) != number:
                yield number, before


def _in_phases(
    deletes: Sequence[Sequence[Row]], updates: Sequence[Sequence[Row]], inserts: Sequence[Sequence[Row]]
) -> list[Step]:
    steps: list[Step] = [("delete", rows) for rows in deletes]
    steps += [("update", rows) for rows in updates]
    steps += [("insert", rows) for rows in inserts]
    return steps


def _ranks(models: Sequence[type[Row]], references: Sequence[Reference]) -> dict[type[Row], int]:
    """The places of models in an order in which each refers only to earlier ones, as far as there is one."""
    left, ranks = list(models), dict[type[Row], int]()
    while left:
        waiting = {each.model for each in references if each.other in left and each.other is not each.model}
        first = next((model for model in left if model not in waiting), left[0])
        ranks[first] = len(ranks)
        left.remove(first)
    return ranks


class _Numbered:
    """The rows of some steps, numbered from 0 on."""

    def __init__(self, steps: Sequence[Step], before: Callable[[Row], Row | None]) -> None:
        self.steps = steps
        self._before = before
        self._firsts: dict[tuple[WriteKind, type[Row]], list[tuple[int, Sequence[Row]]]] = {}
        first = 0
        for kind, rows in steps:
            self._firsts.setdefault((kind, type(rows[0])), []).append((first, rows))
            first += len(rows)

    def has(self, kind: WriteKind, model: type[Row]) -> bool:
        return (kind, model) in self._firsts

    def taking(self, model: type[Row], columns: tuple[str, ...]) -> _Found:
        """The rows that have other values in these columns than before, with these; none of them is None."""
        values_of = attrgetter(*columns)
        for number, row in self._of("insert", model):
            if not _lacks(values := values_of(row)):
                yield values, number
        for number, row, before in self._changed(model, columns):
            if not _lacks(values := values_of(row)) and (before is None or values_of(before) != values):
                yield values, number

    def leaving(self, model: type[Row], columns: tuple[str, ...]) -> _Found:
        """The rows that do not have these values any more."""
        values_of = attrgetter(*columns)
        for number, row in self._of("delete", model):
            if not _lacks(values := values_of(row)):
                yield values, number
        for number, row, before in self._changed(model, columns):
            if before is not None and not _lacks(values := values_of(before)) and values_of(row) != values:
                yield values, number

    def _of(self, kind: WriteKind, model: type[Row]) -> Iterator[tuple[int, Row]]:
        for first, rows in self._firsts.get((kind, model), ()):
            yield from enumerate(rows, first)

    def _changed(self, model: type[Row], columns: tuple[str, ...]) -> Iterator[tuple[int, Row, Row | None]]:
        if set(columns) <= set(key_columns(model)):
            # A key never changes.
            return
        for number, row in self._of("update", model):
            yield number, row, self._before(row)


def _lacks(values: Any) -> bool:
    return values is None or (isinstance(values, tuple) and None in values)


def _scheduled(numbered: _Numbered, waits: Sequence[tuple[int, int]], *, one_by_one: bool) -> list[Step]:
    """The steps again and again, each time with the rows that have nothing to wait for any more."""
    schedule = _Schedule(numbered, waits)
    scheduled: list[Step] = []
    while schedule.has_ready:
        for place, (kind, _) in enumerate(numbered.steps):
            # A row that is inserted may refer to one before it in the same statement.
            if rows := schedule.take(place, grows=one_by_one or kind == "insert"):
                scheduled.append((kind, rows))
    scheduled += [(kind, rows) for place, (kind, _) in enumerate(numbered.steps) if (rows := schedule.stuck(place))]
    return scheduled


class _Schedule:
    """Which rows of each step are ready to be written, while others are."""

    def __init__(self, numbered: _Numbered, waits: Sequence[tuple[int, int]]) -> None:
        self._steps = [place for place, (_, rows) in enumerate(numbered.steps) for _ in rows]
        self._rows = [row for _, rows in numbered.steps for row in rows]
        self._followers: dict[int, list[int]] = {}
        self._awaited = [0] * len(self._rows)
        for later, earlier in waits:
            self._followers.setdefault(earlier, []).append(later)
            self._awaited[later] += 1
        self._ready: list[deque[int]] = [deque() for _ in numbered.steps]
        for number, count in enumerate(self._awaited):
            if not count:
                self._ready[self._steps[number]].append(number)

    @property
    def has_ready(self) -> bool:
        return any(self._ready)

    def take(self, place: int, *, grows: bool) -> list[Row]:
        """The ready rows of a step; with `grows`, also those that become ready by them."""
        ready, taken = self._ready[place], list[Row]()
        count = len(ready)
        while ready and (grows or len(taken) < count):
            number = ready.popleft()
            taken.append(self._rows[number])
            for follower in self._followers.get(number, ()):
                self._awaited[follower] -= 1
                if not self._awaited[follower]:
                    self._ready[self._steps[follower]].append(follower)
        return taken

    def stuck(self, place: int) -> list[Row]:
        """The rows of a step that wait for each other."""
        return [
            self._rows[number] for number, count in enumerate(self._awaited) if count and self._steps[number] == place
        ]
