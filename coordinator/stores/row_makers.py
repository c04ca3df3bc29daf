"""Functions that make rows of what drivers return, and what drivers take of rows: each compiled for its model.

A model's expression names its fields one by one, which takes half as long as a loop over them; and only the fields of
the types that need it are looked at.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cache
from itertools import chain
from typing import Any, Final

import msgspec
from msgspec.structs import FieldInfo

from coordinator.service.rows import R, Row
from coordinator.stores.field_types import field_type, hints_of
from coordinator.stores.times import utc
from coordinator.stores.value_types import UnknownType, ValueType

Convert = Callable[[Any], Any]
_UNREADABLE: Final = (ValueError, TypeError, ArithmeticError, msgspec.MsgspecError)


class UnreadableRow(ValueError):
    """Raised for a row of the database that is none of its model; it names the column."""


@cache
def value_types_of(model: type[Row]) -> Mapping[str, ValueType]:
    """The fields whose values are more than plain, by name."""
    found: dict[str, ValueType] = {}
    hints = hints_of(model)
    for name in model.__struct_fields__:
        with suppress(UnknownType, KeyError):
            values = field_type(hints[name]).values
            if values is not None:
                found[name] = values
    return found


def rows_of(model: type[R], found: Iterable[Sequence[Any]], time: Convert | None = None) -> list[R]:
    """The rows of a result, whose values are in the order of the fields. Raises UnreadableRow.

    `time` makes times of what the driver returns for them.
    """
    make, results = _maker_of_sequences(model, time), list(found)
    try:
        return [make(values) for values in results]
    except _UNREADABLE as error:
        raise _unreadable(
            model, [zip(model.__struct_fields__, each, strict=True) for each in results], error
        ) from error


def row_of_mapping(model: type[R], values: Mapping[Any, Any]) -> R:
    """The row of a mapping by the names of its fields, with its times in UTC. Raises UnreadableRow."""
    try:
        row: R = _maker_of_mappings(model)(values)
    except _UNREADABLE as error:
        raise _unreadable(model, [values.items()], error) from error
    return row


@cache
def taker(model: type[Row], convert: Callable[[ValueType], Convert], time: Convert) -> Callable[[Row], tuple[Any, ...]]:
    """A function that takes the values of a row, in the order of its fields, in the form for a driver.

    `convert` says how the values of a type are converted, `time` how times are.
    """
    names: dict[str, Any] = {"time": time}
    parts: list[str] = []
    known, hints = value_types_of(model), hints_of(model)
    for number, name in enumerate(model.__struct_fields__):
        if name in known:
            names[f"convert_{number}"] = convert(known[name])
            parts.append(f"None if (value := row.{name}) is None else convert_{number}(value)")
        else:
            parts.append(f"row.{name}" if _is_plain(hints.get(name)) else f"time(row.{name})")
    return _compiled(f"lambda row: ({', '.join(parts)},)", names)


@cache
def _maker_of_sequences(model: type[Row], time: Convert | None) -> Callable[[Sequence[Any]], Any]:
    return _maker(model, [f"values[{place}]" for place in range(len(model.__struct_fields__))], time)


@cache
def _maker_of_mappings(model: type[Row]) -> Callable[[Mapping[Any, Any]], Any]:
    return _maker(model, [f"values[{name!r}]" for name in model.__struct_fields__], utc)


def _maker(model: type[Row], places: Sequence[str], time: Convert | None) -> Callable[[Any], Any]:
    names: dict[str, Any] = {"model": model, "time": time}
    known, hints = value_types_of(model), hints_of(model)
    parts: list[str] = []
    defaults = {field.name: field for field in msgspec.structs.fields(model) if _may_lack(field, hints)}
    for number, (name, place) in enumerate(zip(model.__struct_fields__, places, strict=True)):
        lacking = None
        if name in defaults:
            names[f"default_{number}"], lacking = _default(defaults[name])
            lacking = lacking.format(f"default_{number}")
        if name in known:
            names[f"read_{number}"] = known[name].read
            sound = known[name].sound_of(name, names)
            read = f"value if {sound} else read_{number}(value)"
            parts.append(f"{name}={lacking or 'None'} if (value := {place}) is None else {read}")
        elif lacking is not None:
            read = "value" if time is None or _is_plain(hints.get(name)) else "time(value)"
            parts.append(f"{name}={lacking} if (value := {place}) is None else {read}")
        elif time is None or _is_plain(hints.get(name)):
            parts.append(f"{name}={place}")
        else:
            parts.append(f"{name}=time({place})")
    return _compiled(f"lambda values: model({', '.join(parts)})", names)


def _may_lack(field: FieldInfo, hints: Mapping[str, Any]) -> bool:
    """Whether a row of before the field was there reads as its default: it has one, and may not be None."""
    if field.required:
        return False
    try:
        return not field_type(hints[field.name]).is_optional
    except (UnknownType, KeyError):
        return False


def _default(field: FieldInfo) -> tuple[Any, str]:
    """The default of a field, or what makes one, and the expression for it."""
    if field.default is not msgspec.NODEFAULT:
        return field.default, "{}"
    return field.default_factory, "{}()"


def _is_plain(hint: Any) -> bool:
    """Whether values of an annotation are certainly no times."""
    try:
        return field_type(hint).kind is not datetime
    except UnknownType:
        return False


def _compiled(expression: str, names: dict[str, Any]) -> Callable[[Any], Any]:
    # The names of fields are code, not input.
    made: Callable[[Any], Any] = eval(expression, names)  # noqa: S307
    return made


def _unreadable(model: type[Row], rows: Iterable[Iterable[tuple[str, Any]]], error: Exception) -> UnreadableRow:
    known = value_types_of(model)
    for name, value in chain.from_iterable(rows):
        try:
            if name in known and value is not None:
                known[name].read(value)
        except _UNREADABLE as problem:
            return UnreadableRow(f"{model.table}.{name} holds {value!r:.100}: {problem}")
    return UnreadableRow(f"{model.table}: {type(error).__name__}: {error}")
