"""What the annotation of a row's field says: its type, whether it may be None, and how wide it is."""

from datetime import datetime
from decimal import Decimal
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from msgspec import Meta, Struct

from coordinator.service.rows import DIGITS, Digits, Row
from coordinator.stores.json_values import is_json, json_type
from coordinator.stores.sql.column_types import COMPARED_CHARACTERS_MAX
from coordinator.stores.value_types import VALUE_TYPES, UnknownType, ValueType, decimal_type, enum_type

PLAIN_TYPES: Final = (int, str, bytes, datetime)
"""Every driver takes and returns these as they are."""


class FieldType(Struct, frozen=True):
    """The type of a field. `values` is None for a plain one."""

    kind: Any
    values: ValueType | None = None
    is_optional: bool = False
    width: int | None = None


def hints_of(model: type[Row]) -> dict[str, Any]:
    """The annotations of the fields; empty for a model whose annotations name what its module does not have."""
    try:
        return get_type_hints(model, include_extras=True)
    except NameError:
        return {}


def field_type(hint: Any) -> FieldType:
    """The type of a field with this annotation. Raises UnknownType."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _annotated(hint, field_type(arguments[0]), arguments[1:])
    if origin in (Union, UnionType):
        field = _one_of([part for part in arguments if part is not NoneType], hint)
        return FieldType(field.kind, field.values, NoneType in arguments, field.width)
    if origin is Literal:
        return _literal(hint, arguments)
    return FieldType(hint) if hint in PLAIN_TYPES else FieldType(hint, _values(hint))


def literal_of(hint: Any) -> frozenset[Any] | None:
    """The values of the `Literal` that an annotation is, or is beside None; None: it is none."""
    bare = _bare(hint)
    return frozenset(get_args(bare)) - {None} if get_origin(bare) is Literal else None


def choices_of(hint: Any) -> frozenset[Any] | None:
    """What is kept of the values that a `Literal` or an enum has, beside None; None: it is neither."""
    enum = enum_of(hint)
    return literal_of(hint) if enum is None else frozenset(member.value for member in enum)


def enum_of(hint: Any) -> type[Enum] | None:
    """The enum that an annotation is, or is beside None; None: it is none."""
    bare = _bare(hint)
    return bare if isinstance(bare, type) and issubclass(bare, Enum) else None


def _bare(hint: Any) -> Any:
    """An annotation without the notes on it, and without the None beside it; None where several types are left."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _bare(arguments[0])
    if origin in (Union, UnionType):
        parts = [part for part in arguments if part is not NoneType]
        return _bare(parts[0]) if len(parts) == 1 else None
    return hint


def bits_of(hint: Any) -> int | None:
    """How wide an integer column must be for all values of an annotation; None: it does not say."""
    if get_origin(hint) in (Union, UnionType):
        parts = [part for part in get_args(hint) if part is not NoneType]
        return bits_of(parts[0]) if len(parts) == 1 else None
    choices = choices_of(hint)
    if choices is not None:
        limits = [each for each in choices if isinstance(each, int)]
    else:
        notes = [note for note in get_args(hint)[1:] if isinstance(note, Meta)]
        lows = [note.ge for note in notes if note.ge is not None]
        lows += [note.gt + 1 for note in notes if note.gt is not None]
        highs = [note.le for note in notes if note.le is not None]
        highs += [note.lt - 1 for note in notes if note.lt is not None]
        limits = [int(max(lows)), int(min(highs))] if lows and highs else []
    return max((max(each, -each - 1).bit_length() + 1 for each in limits), default=None)


def _values(hint: Any) -> ValueType:
    if hint is Decimal:
        return decimal_type(DIGITS)
    if is_json(hint):
        return json_type(hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return enum_type(hint)
    try:
        return VALUE_TYPES[hint]
    except (KeyError, TypeError):
        raise UnknownType(
            f"a row cannot hold {getattr(hint, '__name__', hint)}: it holds int, str, bytes, bool, float, Decimal, "
            "datetime, date, time, timedelta, UUID, enums, and dicts, lists, tuples and Structs as JSON"
        ) from None


def _annotated(hint: Any, field: FieldType, notes: tuple[Any, ...]) -> FieldType:
    if field.values is not None and field.values.nested is not None:
        return FieldType(hint, json_type(hint), field.is_optional)
    digits = [note for note in notes if isinstance(note, Digits)]
    if digits and field.kind is Decimal:
        return FieldType(Decimal, decimal_type(digits[-1]), field.is_optional)
    widths = [note.max_length for note in notes if isinstance(note, Meta) and note.max_length is not None]
    return FieldType(field.kind, field.values, field.is_optional, min(widths)) if widths else field


def _one_of(parts: list[Any], hint: Any) -> FieldType:
    if len(parts) == 1:
        return field_type(parts[0])
    if not all(map(is_json, parts)):
        raise UnknownType(f"{hint} is of several types")
    one: Any = Union[tuple(parts)]  # noqa: UP007  # made at run time
    return FieldType(one, json_type(one))


def _literal(hint: Any, values: tuple[Any, ...]) -> FieldType:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {str}:
        # Not the longest one's: a later release may have longer ones.
        return FieldType(str, is_optional=None in values, width=COMPARED_CHARACTERS_MAX)
    if kinds == {int}:
        return FieldType(int, is_optional=None in values)
    raise UnknownType(f"{hint} is of several types")
