"""Which rows of a list a request asks for: `?holder=ada`, by the columns of an index."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from enum import Enum
from types import MappingProxyType, NoneType
from typing import Any, Final, TypeAlias, get_type_hints

import msgspec

from coordinator.http.key_pages import KeyPageQuery
from coordinator.http.problems import RequestRefused
from coordinator.service.decimal_sizes import number
from coordinator.service.declared import kinds_of
from coordinator.service.rows import Row, RowSelection, Value, WrongSelection, indexed_columns
from coordinator.stores.row_checks import InvalidRow, RowCheck, WrongValue

_SHOWN_MAX: Final = 40
_Reader: TypeAlias = Callable[[str], Value]


class RowFilters:
    """The columns of one model by whose values its rows may be asked for, and `query`, the parameters of its list."""

    def __init__(self, model: type[Row], check: RowCheck, whole_number: Callable[[str], int]) -> None:
        hints = get_type_hints(model, include_extras=True)
        # A list has its own parameters, whatever a column of a key is called.
        columns = sorted({*indexed_columns(model), *model.unique} - {*KeyPageQuery.__struct_fields__})
        readers = {column: _reader(hints[column], whole_number) for column in columns}
        self._model = model
        self._check = check
        self._readers: Mapping[str, _Reader] = MappingProxyType(
            {column: reader for column, reader in readers.items() if reader is not None}
        )
        made: Any = msgspec.defstruct(
            f"{model.__name__}Query",
            [(column, str | None, None) for column in self._readers],
            bases=(KeyPageQuery,),
            namespace={"__doc__": KeyPageQuery.__doc__},
            frozen=True,
            forbid_unknown_fields=True,
            kw_only=True,
        )
        self.query: type[KeyPageQuery] = made

    def conditions(self, query: KeyPageQuery, shown: Mapping[str, Value]) -> Sequence[Mapping[str, Value]]:
        """What the rows have that are asked for, of those that are `shown`: the values of columns, by index.

        Raises RequestRefused (400), which names the parameter at fault, and nothing that was not asked for.
        """
        texts = {column: text for column in self._readers if (text := getattr(query, column)) is not None}
        asked = {column: self._read(column, text) for column, text in texts.items()}
        if not asked:
            return (shown,)
        if not asked.keys() & shown.keys():
            # An index over what is shown and what is asked for serves best.
            with suppress(WrongSelection):
                self._model.where(limit=1, after=None, **shown, **asked)
                return ({**shown, **asked},)
        try:
            self._model.where(limit=1, after=None, **asked)
        except WrongSelection:
            names = " and ".join(asked)
            wrong = f"no index serves a list by {names}{' alone' if len(asked) == 1 else ' together'}"
            raise RequestRefused(400, "invalid_query", wrong, field=next(iter(asked))) from None
        return (shown, asked)

    def _read(self, column: str, text: str) -> Value:
        why = ""
        try:
            value = self._readers[column](text)
            self._check.selection(RowSelection(self._model, ((column, value),), 1))
        except WrongValue as error:
            why = f": {error.why}"
        except InvalidRow:
            # None has it.
            return value
        except ValueError:
            pass
        else:
            return value
        wrong = f"{column} cannot be {text[:_SHOWN_MAX]!a}{why}"
        raise RequestRefused(400, "invalid_query", wrong, field=column)


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
