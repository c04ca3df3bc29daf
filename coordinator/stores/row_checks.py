"""Checks a row before the database is asked: kinds, ranges and widths of its values, by the model and its table.

A row is kept as every database gives it back, so that no command sees whether its predecessor was in the same batch: a
time in another zone is one in UTC, and a decimal has all its digits after the point.

A value that the database would refuse fails the command that wrote it, at no cost to its neighbours, and on every store
alike. The database still checks the rules that only it knows, such as constraints.

The check of a model is one expression (`compiled_checks.py`), made once, and evaluated for every row written.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import cache
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin
from uuid import UUID

import msgspec
from msgspec import Meta, Struct
from sqlalchemy import Column

from coordinator.service.decimal_digits import TooFine
from coordinator.service.declared import DeclaredMeta
from coordinator.service.rows import R, Ref, Row, RowSelection, Value, indexed_columns, key_columns
from coordinator.service.service import Service
from coordinator.stores import lane_tables
from coordinator.stores.compiled_checks import compiled, copy_compiled, key_compiled, parts_compiled
from coordinator.stores.declared_fields import CHECKED, field_check
from coordinator.stores.field_checks import FieldCheck, canonical
from coordinator.stores.field_types import field_type, hints_of
from coordinator.stores.sql.declared_tables import columns_of
from coordinator.stores.value_types import UnknownType, WrongKind, WrongType

_INLINE_PARTS_MAX: Final = 3
"""Keys of more columns are looked at more slowly."""
_PLAIN: Final = frozenset({*CHECKED, *(kind | None for kind in CHECKED)})


class RefusedValue(Struct, frozen=True):
    """A value that a column refuses, though it is of its type, and why."""

    value: object
    why: str
    column: str


class InvalidRow(ValueError):
    """Raised for a row that no database would take; it names the column, and the kind of the value."""

    refused: RefusedValue | None = None
    """The value, if another of its type would do."""


class WrongValue(InvalidRow):
    """Raised where rows are asked for by a value that is none of its column's: whoever asks has a mistake."""

    def __init__(self, place: str, why: str) -> None:
        super().__init__(f"{place}: {why}")
        self.why = why


class WrongUse(TypeError):
    """Raised for a class that has no rows here, and for a column by which no row is found, whatever the values are."""


class RowCheck:
    """The check of one model's rows."""

    def __init__(self, model: type[Row], columns: Mapping[str, Column[Any]]) -> None:
        self._model = model
        self.is_the_lanes = issubclass(model, lane_tables.LANE_MODELS)
        """Whether the model's rows are the lane's own, such as log entries."""
        hints = hints_of(model)
        key, selected_by = key_columns(model), indexed_columns(model)
        found_by = frozenset((*key, *model.unique))
        self._fields = [
            field_check(
                name,
                hints.get(name, Any),
                columns.get(name),
                is_compared=name in found_by or name in selected_by,
                is_ordered=name in key and bool(selected_by),
            )
            for name in model.__struct_fields__
        ]
        parts = {field.name: field for field in self._fields if field.name in key}
        self._key_parts = [_sought(parts[name]) for name in key if name in parts]
        self._ordered = [
            (place, msgspec.structs.replace(self._key_parts[place], is_ordered=True))
            for place, name in enumerate(key)
            if name in parts and parts[name].is_ordered and str in parts[name].kinds
        ]
        """The texts in the key of rows that are put in order, by their places."""
        self._keys = {
            field.name: field
            for field in self._fields
            if field.name in (*model.unique, *(key if len(key) == 1 else ()))
        }
        self._selected_by = {
            # A selection is of what the column may have, and a `Literal` says what that is.
            field.name: msgspec.structs.replace(_sought(field), choices=field.choices)
            for field in self._fields
            if field.is_compared
        }
        self.has_number_key = [field.kinds for field in self._fields if field.name == model.key] == [(int,)]
        """Whether the key is an int, so that its rows can be numbered."""
        self.is_key_sound: dict[str | tuple[str, ...], Callable[[Any], bool]] = {
            name: key_compiled(_sought(field)) for name, field in self._keys.items()
        }
        self.types: dict[str | tuple[str, ...], type | None] = {
            field.name: _type_of(field) for field in self._fields if field.name in found_by
        }
        """The type of each column by which rows are found; None: it has values of several types."""
        self.part_types = tuple(map(_type_of, self._key_parts))
        """Those of the columns of the key, in their order."""
        self.key_type = self.types.get(model.key)
        """That of all keys; None: they are tuples, or of several types."""
        inline = self.part_types if isinstance(model.key, tuple) and len(model.key) <= _INLINE_PARTS_MAX else ()
        first, second, third = (*inline, None, None, None)[:_INLINE_PARTS_MAX]
        self.inline_parts = first, second, third
        """Those of the parts of all keys; None: keys have no parts, or more, or of several types."""
        if len(key) > 1:
            self.is_key_sound[key] = parts_compiled(self._key_parts)
        self.place = 0
        """Where the service declares the model, from 1: rows of earlier ones are inserted first, and deleted last."""
        self._nested = [field for field in self._fields if field.values and field.values.nested]
        """The fields that are looked at whenever they are written, since they can be changed in place."""
        rest = [field for field in self._fields if field not in self._nested]
        # Those first, since none of them is sound without a look.
        self._is_new_sound = compiled([*self._nested, *rest], is_compared=False)
        self._is_change_sound = compiled([*self._nested, *rest], is_compared=True)
        self._is_new_rest_sound = compiled(rest, is_compared=False)
        self._is_changed_rest_sound = compiled(rest, is_compared=True)
        copies = {field.name: field.values.copy for field in self._fields if field.values and field.values.copy}
        self.copied = copy_compiled(copies) if copies else None
        """Makes a row of its own for a handler, which may change what is in a dict or a list; None: it cannot."""

    def new(self, row: R) -> R:
        """The row as every database gives it back: an equal one. Raises InvalidRow if there is none."""
        return row if self._is_new_sound(row, row) else self._canonical(row, None)

    def change(self, row: R, before: R) -> R:
        """As `new`, but the values that the row had before are accepted."""
        return row if self._is_change_sound(row, before) else self._canonical(row, before)

    def key(self, column: str | tuple[str, ...], value: Any) -> Any:
        """The value as rows have it, by which they are found.

        Raises InvalidRow unless rows can be found by this value, and WrongUse unless they can by this column.
        """
        is_sound = self.is_key_sound.get(column)
        if is_sound is not None and is_sound(value):
            return value
        if not isinstance(column, str) and column == self._model.key:
            if not isinstance(value, tuple) or len(value) != len(column):
                names = ", ".join(column)
                raise InvalidRow(f"{self._model.table}: its key is a tuple of {names}, and {value!r:.100} is none")
            return tuple(self._sought_part(field, part) for field, part in zip(self._key_parts, value, strict=True))
        found = self._keys.get(column) if isinstance(column, str) else None
        if found is None:
            raise WrongUse(self.not_found_by(column))
        return self._sought_part(_sought(found), value)

    def key_of_json(self, column: str | tuple[str, ...], value: Any) -> Any:
        """As `key`, of a value as JSON has it: UUIDs are texts there, and what has several columns is an array.

        Raises InvalidRow and WrongUse as it does.
        """
        if isinstance(value, list):
            kinds = self.part_types if column == self._model.key else ()
            return self.key(column, tuple(map(_of_json, value, (*kinds, *(None for _ in value)))))
        return self.key(column, _of_json(value, self.types.get(column)))

    def _sought_part(self, field: FieldCheck, value: object) -> Any:
        if value is None:
            raise InvalidRow(f"{self._model.table}.{field.name}: it is None")
        try:
            return canonical(field, value)
        except ValueError as error:
            raise _invalid(f"{self._model.table}.{field.name}: {error}", value, field.name, error) from None

    def selection(self, selection: RowSelection[R]) -> RowSelection[R]:
        """The selection with its values as the database keeps them.

        Raises InvalidRow for one that has no such form, and WrongValue for one that is none of its column's.
        """
        if self.is_the_lanes:
            raise WrongUse(f"{self._model.table} is the lane's own table: nothing is selected from it")
        after = None if selection.after is None else self._begun(self.key(self._model.key, selection.after))
        where = tuple((column, self._sought_value(column, value)) for column, value in selection.where)
        return RowSelection(selection.model, where, selection.limit, after)

    def found_by(self, column: str) -> FieldCheck | None:
        """What fits a column by which rows are found, whatever its annotation says beside type and width."""
        found = next((field for field in self._fields if field.name == column and field.is_compared), None)
        return None if found is None else msgspec.structs.replace(found, broken=None, choices=None)

    def is_never_none(self, column: str) -> bool:
        """Whether each row has a value in a column by which rows are selected."""
        field = self._selected_by.get(column)
        return field is not None and not field.is_optional

    def _begun(self, after: Any) -> Any:
        """The key behind which a selection begins. Databases agree on where that is only if rows can have the key."""
        for place, field in self._ordered:
            self._sought_part(field, after[place] if isinstance(after, tuple) else after)
        return after

    def _sought_value(self, column: str, value: Value) -> Value:
        field = self._selected_by.get(column)
        if field is None:
            raise WrongUse(f"{self._model.table} has no index with a column {column!r:.100}")
        if value is None:
            return None
        if field.values is None and isinstance(value, Enum):
            value = value.value
        try:
            sought: Value = canonical(field, value)
        except WrongType as error:
            raise WrongValue(f"{self._model.table}.{column}", str(error)) from None
        except ValueError as error:
            raise _invalid(f"{self._model.table}.{column}: {error}", value, column, error) from None
        return sought

    def not_found_by(self, column: object) -> str:
        """Why no row can be found by a column: it is neither the key nor unique."""
        known = ", ".join(repr(name) for name in self.is_key_sound)
        name = self._model.__name__
        return f"{name} is found by {known}, and {column!r:.100} is none of them: name it in `unique` of {name}"

    def _canonical(self, row: R, before: R | None) -> R:
        changes: dict[str, Any] = {}
        is_rest_sound = self._nested and (
            self._is_new_rest_sound(row, row) if before is None else self._is_changed_rest_sound(row, before)
        )
        for field in self._nested if is_rest_sound else self._fields:
            value = getattr(row, field.name)
            if before is not None and value is getattr(before, field.name):
                continue
            values = None if value is None else field.values
            try:
                # Every JSON value comes here, and few have limits of their own.
                kept = canonical(field, value) if values is None or field.broken else values.canonical(value)
            except ValueError as error:
                advice = f": {error.rounding} rounds it" if isinstance(error, TooFine) else ""
                text = f"{self._model.table}.{field.name}: {error}{advice} (class {self._model.__name__})"
                raise _invalid(text, value, field.name, error) from None
            if kept is not value:
                changes[field.name] = kept
        return msgspec.structs.replace(row, **changes) if changes else row


def _invalid(text: str, value: object, column: str, error: ValueError) -> InvalidRow:
    invalid = InvalidRow(text)
    if value is not None and not isinstance(error, WrongKind):
        invalid.refused = RefusedValue(value, str(error), column)
    return invalid


@cache
def is_read_back(model: type[Row]) -> bool:
    """Whether the class reads the JSON text of each of its rows that has passed its check."""
    hints = hints_of(model)
    return all(name in hints and _is_read_back(hints[name]) for name in model.__struct_fields__)


def _is_read_back(hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return all(part is type(None) or _is_read_back(part) for part in arguments)
    if origin is Annotated and any(isinstance(note, Meta) for note in arguments[1:]):
        return False
    try:
        found = field_type(hint)
    except UnknownType:
        return False
    return hint in _PLAIN or found.values is not None


class RowChecks:
    """The checks of one service's models and of the lane's own, each made when it is first needed.

    Without a service any model is taken.
    """

    def __init__(self, service: Service | None = None) -> None:
        self._service = service
        self._known: dict[type[Row], RowCheck] = {}
        self.models: Sequence[type[Row]] = () if service is None else service.models
        """The service's."""
        self.audited: Sequence[type[Row]] = tuple(model for model in self.models if model.__audited__)
        """Those of the service's models of which every change is written down."""

    def of(self, model: type[Row]) -> RowCheck:
        """Raises WrongUse for a class that is no model, or another service's."""
        known = self._known.get(model)
        if known is None:
            known = self._known[model] = self._made(model)
        return known

    def reference(self, ref: Ref[Row] | RowSelection[Row]) -> Ref[Row] | RowSelection[Row]:
        """A reference, or a selection, with its values as rows have them.

        Raises an error of any kind for one by which no row can be read.
        """
        known = self._known.get(ref.model)
        is_sound = None if known is None else known.is_key_sound.get(ref.column)
        if is_sound is not None and is_sound(ref.value):
            return ref
        check = self.of(ref.model)
        if isinstance(ref, RowSelection):
            return check.selection(ref)
        return Ref(ref.model, ref.column, check.key(ref.column, ref.value))

    def _made(self, model: object) -> RowCheck:
        if not (isinstance(model, type) and issubclass(model, Row) and hasattr(model, "table")):
            raise WrongUse(_no_model(model))
        table = lane_tables.metadata.tables.get(model.table)
        service = self._service
        if table is None and service is not None:
            if model not in service.models:
                raise WrongUse(f"{model.__name__} is no row of service {service.name}: declare it with its `row`")
            table = None if service.metadata is None else service.metadata.tables.get(model.table)
        table = model.__table__ if table is None else table
        check = RowCheck(model, columns_of(model) if table is None else dict(table.columns.items()))
        if service is not None and model in service.models:
            check.place = service.models.index(model) + 1
        return check


def _no_model(given: object) -> str:
    if given is type(None):
        return "the unit of work was given None where a row belongs: `get` and `find` return it where there is no row"
    if isinstance(given, type) and issubclass(given, DeclaredMeta):
        # The type of what was given instead of a row.
        return "the unit of work was given a class where a row belongs: make one, such as Seat(id=1)"
    if isinstance(given, type):
        return f"{given.__name__} is no class of rows: derive it from Row, with a table and a key"
    return f"{given!r:.100} is no class of rows"


def _sought(field: FieldCheck) -> FieldCheck:
    """What may be looked for: what does not fit the column, or is not as it is kept, is not found in it."""
    return msgspec.structs.replace(field, width=None, is_compared=False, is_ordered=False, choices=None, broken=None)


def _of_json(value: object, kind: type | None) -> object:
    if kind is UUID and isinstance(value, str):
        try:
            return UUID(value)
        except ValueError:
            return value
    return value


def _type_of(field: FieldCheck) -> type | None:
    """The type of all values of a field by which rows are found."""
    if field.values is not None:
        return UUID if field.values.kind is UUID else None
    return field.kinds[0] if len(field.kinds) == 1 else None
