"""Functions that make rows of what drivers return, and what drivers take of rows: each compiled for its model.

A model's expression names its fields one by one, which takes half as long as a loop over them; and only the fields of
the types that need it are looked at.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import FieldInfo

from coordinator.service.errors import UnreadableRow
from coordinator.service.rows import R, Row, key_columns
from coordinator.stores.field_types import field_type, hints_of
from coordinator.stores.times import read_utc, utc
from coordinator.stores.value_types import UnknownType, ValueType, wrong_type

Convert = Callable[[Any], Any]


class Undecodable(Struct, frozen=True):
    """Stands for a value that a driver cannot decode, such as PostgreSQL's `infinity`. It is of no field's type."""


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


def rows_of(
    model: type[R], found: Iterable[Sequence[Any]], time: Convert | None = None, *, is_loose: bool = False
) -> list[R]:
    """The rows of a result, whose values are in the order of the fields. Raises UnreadableRow.

    `time` makes times of what the driver returns for them; it may raise an error. `is_loose`: the database keeps values
    of any type in any column.
    """
    make, results = _maker_of_sequences(model, time, is_loose), list(found)
    try:
        return [make(values) for values in results]
    except BaseException as error:  # of the row's own class
        raise unreadable_of(model, results, time, is_loose=is_loose) from error


def numbers_of(model: type[Row], found: Iterable[Sequence[Any]]) -> list[int]:
    """The keys of a result that has nothing else, which are numbers. Raises UnreadableRow."""
    values = [value for (value,) in found]
    try:
        return [_read_int(value) for value in values]
    except (ValueError, ArithmeticError) as error:
        raise UnreadableRow(model.table, None, str(model.key), "holds what is no number") from error


def is_readable(hint: Any, value: Any) -> bool:
    """Whether a field with this annotation takes a value that a driver, or SQLAlchemy, returns."""
    read = _reader(hint, field_type(hint).values, read_utc)
    try:
        return read is None or read(value) is not None
    except (TypeError, ValueError, ArithmeticError):
        return False


def unreadable_of(
    model: type[Row], found: Iterable[Sequence[Any]], time: Convert | None = None, *, is_loose: bool = False
) -> UnreadableRow:
    """The error for the first row of a result that cannot be read."""
    make, names = _maker_of_sequences(model, time, is_loose), model.__struct_fields__
    for values in found:
        try:
            if not any(isinstance(value, Undecodable) for value in values):
                make(values)
                continue
        except BaseException as error:  # noqa: BLE001  # of the row's own class
            return _unreadable(model, dict(zip(names, values, strict=False)), time, error)
        return _unreadable(model, dict(zip(names, values, strict=False)), time)
    return UnreadableRow(model.table)


def row_of_mapping(model: type[R], values: Mapping[Any, Any]) -> R:
    """The row of a mapping by the names of its fields, with its times in UTC. Raises UnreadableRow."""
    try:
        row: R = _maker_of_mappings(model)(values)
    except BaseException as error:  # of the row's own class
        raise _unreadable(model, values, read_utc, error) from error
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
def _maker_of_sequences(model: type[Row], time: Convert | None, is_loose: bool) -> Callable[[Sequence[Any]], Any]:
    return _maker(model, [f"values[{place}]" for place in range(len(model.__struct_fields__))], time, is_loose=is_loose)


@cache
def _maker_of_mappings(model: type[Row]) -> Callable[[Mapping[Any, Any]], Any]:
    return _maker(model, [f"values[{name!r}]" for name in model.__struct_fields__], read_utc, is_loose=True)


def _maker(model: type[Row], places: Sequence[str], time: Convert | None, *, is_loose: bool) -> Callable[[Any], Any]:
    names: dict[str, Any] = {"model": model, "json_nulls": _JSON_NULLS}
    known, hints, nullable = value_types_of(model), hints_of(model), _nullable_json(model)
    parts: list[str] = []
    defaults = {field.name: field for field in msgspec.structs.fields(model) if _may_lack(field, hints)}
    for number, (name, place) in enumerate(zip(model.__struct_fields__, places, strict=True)):
        lacking = "None"
        if name in defaults:
            names[f"default_{number}"], lacking = _default(defaults[name])
            lacking = lacking.format(f"default_{number}")
        sound = known[name].sound_of(name, names) if name in known else "False"
        read = _reader(hints.get(name), known.get(name), time)
        if read in _PLAIN_READERS:
            sound = f"type(value) is {_PLAIN_READERS[read].__name__}" if is_loose else "True"
        if read is None or sound == "True":
            given = place if lacking == "None" else f"{lacking} if (value := {place}) is None else value"
        elif sound == "False":
            names[f"read_{number}"] = read
            is_lacking = f"(value := {place}) is None{' or value in json_nulls' if name in nullable else ''}"
            given = f"{lacking} if {is_lacking} else read_{number}(value)"
        else:
            # Every one begins so, and most values are sound.
            names[f"read_{number}"] = read
            sound = sound.replace("type(value)", f"type(value := {place})", 1)
            given = f"value if {sound} else {lacking} if value is None else read_{number}(value)"
        parts.append(f"{name}={given}")
    return _compiled(f"lambda values: model({', '.join(parts)})", names)


def _reader(hint: Any, values: ValueType | None, time: Convert | None) -> Convert | None:
    """What makes a field's value of what a driver returns; None: it is as it is."""
    if values is not None:
        return values.read
    try:
        kind = field_type(hint).kind
    except UnknownType:
        # It may hold anything, times too.
        return None if time is None else utc if time is read_utc else time
    return time if kind is datetime else _OF_PLAIN.get(kind)


def _read_int(value: Any) -> int:
    """Sums are Decimals, and a driver may have a class of its own for some integers."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or int(value) != value:
        raise wrong_type(value, "an int")
    return int(value)


def _read_str(value: Any) -> str:
    if not isinstance(value, str):
        raise wrong_type(value, "a str")
    return str(value)


def _read_bytes(value: Any) -> bytes:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise wrong_type(value, "bytes")
    return bytes(value)


_OF_PLAIN: Final[Mapping[Any, Convert]] = {int: _read_int, str: _read_str, bytes: _read_bytes}
_JSON_NULLS: Final = ("null", b"null")
_PLAIN_READERS: Final[Mapping[Any, type]] = {_read_int: int, _read_str: str, _read_bytes: bytes}


def _may_lack(field: FieldInfo, hints: Mapping[str, Any]) -> bool:
    """Whether a row of before the field was there reads as its default: it has one, and may not be None."""
    if field.required:
        return False
    try:
        return not field_type(hints[field.name]).is_optional
    except (UnknownType, KeyError):
        return False


def _nullable_json(model: type[Row]) -> frozenset[str]:
    """The fields kept as JSON that may lack a value, or be None: JSON's `null` is no value, as SQLAlchemy writes it."""
    known, hints = value_types_of(model), hints_of(model)
    return frozenset(
        field.name
        for field in msgspec.structs.fields(model)
        if field.name in known
        and known[field.name].nested is not None
        and (_may_lack(field, hints) or field_type(hints[field.name]).is_optional)
    )


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


def _unreadable(
    model: type[Row], values: Mapping[Any, Any], time: Convert | None, error: BaseException | None = None
) -> UnreadableRow:
    """The error for a row that cannot be read, which is a mapping by the names of fields. No value is shown.

    Neither is the text of `error`, which its class has raised. Raises KeyError for a field that is not in the mapping.
    """
    known, hints, nullable = value_types_of(model), hints_of(model), _nullable_json(model)
    wrong: dict[str, Any] = {}
    key: dict[str, Any] = {}
    for name in model.__struct_fields__:
        value = values[name]
        if isinstance(value, Undecodable):
            wrong[name] = value
            continue
        try:
            read = _reader(hints.get(name), known.get(name), time)
            is_null = value is None or (name in nullable and value in _JSON_NULLS)
            read_value = value if is_null or read is None else read(value)
        except BaseException:  # noqa: BLE001  # such as of an enum's own class
            wrong[name] = value
        else:
            if name in key_columns(model):
                key[name] = read_value
    columns = key_columns(model)
    # In the order of the key, which is not always that of the fields.
    parts = tuple(key[name] for name in columns) if len(key) == len(columns) else None
    known_key = parts if parts is None or isinstance(model.key, tuple) else parts[0]
    for name, value in wrong.items():
        what = f"a {type(value).__name__} that is none of its values"
        if isinstance(value, Undecodable):
            what = "what Python has no value for"
        return UnreadableRow(model.table, known_key, name, f"holds {what}")
    return UnreadableRow(model.table, known_key, why="" if error is None else f"(it raises {type(error).__name__})")
