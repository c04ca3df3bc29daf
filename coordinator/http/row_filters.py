"""Which rows of a list a request asks for: `?holder=ada`, by the columns of an index."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from enum import Enum
from types import MappingProxyType, NoneType
from typing import Annotated, Any, Final, TypeAlias, get_type_hints

import msgspec
from msgspec import Meta, Struct

from coordinator.http.problems import RequestRefused
from coordinator.service.decimal_sizes import number
from coordinator.service.declared import kinds_of
from coordinator.service.paging import PAGE_DEFAULT, PAGE_MAX
from coordinator.service.rows import Row, Value, WrongSelection, indexed_columns

_SHOWN_MAX: Final = 40
_Reader: TypeAlias = Callable[[str], Value]


class RowsQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which part of a table: at most `limit` rows behind the key `after`."""

    after: str | None = None
    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX)] = PAGE_DEFAULT


class RowFilters:
    """The columns of one model by whose values its rows may be asked for, and `query`, the parameters of its list."""

    def __init__(self, model: type[Row], whole_number: Callable[[str], int]) -> None:
        hints = get_type_hints(model, include_extras=True)
        columns = sorted({*indexed_columns(model), *model.unique})
        readers = {column: _reader(hints[column], whole_number) for column in columns}
        self._model = model
        self._readers: Mapping[str, _Reader] = MappingProxyType(
            {column: reader for column, reader in readers.items() if reader is not None}
        )
        made: Any = msgspec.defstruct(
            f"{model.__name__}Query",
            [(column, str | None, None) for column in self._readers],
            bases=(RowsQuery,),
            namespace={"__doc__": RowsQuery.__doc__},
            frozen=True,
            forbid_unknown_fields=True,
            kw_only=True,
        )
        self.query: type[RowsQuery] = made

    def condition(self, query: RowsQuery, shown: Mapping[str, Value]) -> Mapping[str, Value] | None:
        """The values that the rows have which are asked for, of those that are `shown`; None: there are none.

        Raises RequestRefused (400), which names the parameter at fault.
        """
        asked = {column: text for column in self._readers if (text := getattr(query, column)) is not None}
        wanted = dict(shown)
        for column, text in asked.items():
            value = self._read(column, text)
            if wanted.setdefault(column, value) != value:
                return None
        if asked:
            try:
                self._model.where(limit=1, after=None, **wanted)
            except WrongSelection as error:
                raise RequestRefused(400, "invalid_query", str(error), field=next(iter(asked))) from None
        return wanted

    def _read(self, column: str, text: str) -> Value:
        try:
            return self._readers[column](text)
        except ValueError:
            wrong = f"{column} cannot be {text[:_SHOWN_MAX]!a}"
            raise RequestRefused(400, "invalid_query", wrong, field=column) from None


def _reader(hint: Any, whole_number: Callable[[str], int]) -> _Reader | None:
    """What makes a value of a text; None: a text does not say which type is meant."""
    kinds = kinds_of(hint) - {NoneType}
    if len(kinds) != 1:
        return None
    (kind,) = kinds
    if kind is str:
        return str
    if kind is int:
        return whole_number
    if kind is Decimal:
        return number
    if isinstance(kind, type) and issubclass(kind, Enum) and all(isinstance(each.value, int) for each in kind):
        return lambda text: kind(whole_number(text))
    return lambda text: msgspec.convert(text, kind, strict=False)
