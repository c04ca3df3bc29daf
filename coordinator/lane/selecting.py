"""The reads of a batch: all that its commands name at once, and selections, from what the map has as far as it goes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from coordinator.lane.identity_map import ABSENT, IdentityMap
from coordinator.lane.model_rows import ModelRows
from coordinator.lane.selections import Coverage, FiledRows, Stretch, filed
from coordinator.service.rows import Key, R, Ref, Row, RowSelection, Value, key_of
from coordinator.stores.port import Read

_Place = tuple[type[Row], tuple[tuple[str, Value], ...], Key | None]
"""A model, columns with their values, and a key."""


class SelectingMap(IdentityMap):
    """An identity map that also knows which rows have some values. `select` and `exists` are those of `UnitOfWork`."""

    def prefetch(self, refs: Iterable[Ref[Row] | RowSelection[Row]], *others: Read) -> list[list[Any]]:
        """Read the rows in one go; the rows of `others` are only returned.

        `RowChecks.reference` has passed the references and selections.
        """
        wanted: dict[tuple[type[Row], str | tuple[str, ...]], dict[Any, None]] = {}
        for ref in refs:
            wanted.setdefault((ref.model, ref.column), {})[ref.value] = None
        reads: list[Read] = []
        selections: list[RowSelection[Row]] = []
        for (model, column), values in wanted.items():
            if column:
                reads.append(Read(model, column, list(values)))
            else:
                selections += self._missing_of(values)
        found = self._load(reads, [*others, *selections])
        for selection, rows in zip(selections, found[len(others) :], strict=True):
            self._take_selected(selection, rows)
        if led_to := list(self._led_to(wanted)):
            self.prefetch(led_to)
        return found[: len(others)]

    def select(self, model: type[R], /, *, limit: int, after: Key | None = None, **equals: Value) -> list[R]:
        kind = self.kinds[model]
        keys = self._selected(kind, model.where(limit=limit, after=after, **equals))
        rows: list[R] = [kind.current[key] for key in keys]
        return rows if kind.copied is None else list(map(kind.copied, rows))

    def exists(self, model: type[R], /, **equals: Value) -> bool:
        return bool(self._selected(self.kinds[model], model.where(limit=1, after=None, **equals)))

    def _led_to(
        self, read: Mapping[tuple[type[Row], str | tuple[str, ...]], Iterable[Any]]
    ) -> Iterator[Ref[Row] | RowSelection[Row]]:
        """What rows lead to that were read by their keys."""
        for (model, column), keys in read.items():
            leads = model.__leads_to__
            if leads is None or column != model.key:
                continue
            current = self.kinds[model].current
            for key in keys:
                if (row := current.get(key)) is not None:
                    yield from leads(row, self.kinds.checks.models)

    def page(self, model: type[R], limit: int, after: Key) -> list[R]:
        """The first stored rows with a higher key, in order; the map has them then. What it alone has is not there."""
        try:
            rows = self._transaction.scan(model, limit, after)
        except BaseException as error:
            self.interruption = error
            raise
        self._take(Read(model, model.key, ()), rows)
        return rows

    def known_rows(self, prefetched: RowSelection[R]) -> list[R]:
        """The rows of a selection that was prefetched."""
        kind = self.kinds[prefetched.model]
        keys, _ = self._known_of(kind, kind.check.selection(prefetched))
        return [kind.current[key] for key in keys]

    def _selected(self, kind: ModelRows, given: RowSelection[Any]) -> Sequence[Key]:
        """The keys of the selected rows, which the map has then."""
        selection = kind.check.selection(given)
        while True:
            keys, stretch = self._known_of(kind, selection)
            if len(keys) == selection.limit or stretch.is_whole:
                return keys
            rest = _rest(selection, stretch, len(keys))
            (rows,) = self._load((), [rest])
            if not self._take_selected(rest, rows):
                names = ", ".join(repr(key_of(row)) for row in rows)
                raise ValueError(
                    f"{selection.model.table}: the database puts keys into another order than Python: {names:.300}"
                )

    def _known_of(self, kind: ModelRows, selection: RowSelection[Any]) -> tuple[Sequence[Key], Stretch]:
        """The keys of the selected rows that are known, and how far they are all that there are."""
        where = selection.where
        coverage = kind.covered.get(where)
        if coverage is None:
            coverage = kind.covered[where] = Coverage()
        stretch = coverage.behind(selection.after)
        keys = self._filed(kind, tuple(column for column, _ in where)).of(tuple(value for _, value in where))
        return keys.between(selection.after, stretch, selection.limit), stretch

    def _filed(self, kind: ModelRows, columns: tuple[str, ...]) -> FiledRows:
        """The rows of a model by these columns, from now on."""
        made = kind.filed.get(columns)
        if made is None:
            made = kind.filed[columns] = filed(columns, kind.current.items())
            if any(slots is kind.current for slots, _, _ in self._journal):
                # It has what this command has changed. If that is undone, it is made again.
                self._journal.append((kind.filed, columns, ABSENT))
        return made

    def _missing_of(self, given: Iterable[RowSelection[Row]]) -> Iterable[RowSelection[Row]]:
        """What is to be read for some selections: of those that begin at one place, the one with the most rows."""
        wanted: dict[_Place, RowSelection[Row]] = {}
        for each in given:
            kind = self.kinds[each.model]
            selection = kind.check.selection(each)
            keys, stretch = self._known_of(kind, selection)
            if len(keys) < selection.limit and not stretch.is_whole:
                rest = _rest(selection, stretch, len(keys))
                place = (rest.model, rest.where, rest.after)
                if place not in wanted or wanted[place].limit < rest.limit:
                    wanted[place] = rest
        return wanted.values()

    def _take_selected(self, read: RowSelection[Row], rows: Sequence[Row]) -> bool:
        """Put the rows that a selection has read into the map. False: they are not in Python's order of their keys."""
        kind = self.kinds[read.model]
        self._take_rows(kind, rows)
        return kind.covered[read.where].read(read.after, [key_of(row) for row in rows], read.limit)


def _rest(selection: RowSelection[Any], stretch: Stretch, known: int) -> RowSelection[Any]:
    """What is to be read next of a selection of which so many rows are known."""
    return RowSelection(selection.model, selection.where, stretch.missing(selection.limit - known), stretch.end)
