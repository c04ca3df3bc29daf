"""Makes the check of each field of a row, made of its annotation and its column."""

import types
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Meta
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, SmallInteger, String
from sqlalchemy.types import TypeEngine

from coordinator.service.limit_texts import with_short_patterns
from coordinator.stores.field_checks import FieldCheck
from coordinator.stores.field_types import field_type, literal_of
from coordinator.stores.value_types import UnknownType

INTEGER_BITS: Final = 64
"""The range of an integer that every database can store."""

CHECKED: Final = (int, str, bytes, datetime)
"""The types of values that are checked here; of others it is known how they are kept (`field_types.py`)."""


def field_check(name: str, hint: Any, column: Column[Any] | None, *, is_compared: bool, is_ordered: bool) -> FieldCheck:
    kinds, is_optional = _kinds(hint)
    values = None
    if not kinds:
        with suppress(UnknownType):
            known = field_type(hint)
            values, is_optional = known.values, known.is_optional
    kind = None if column is None else column.type
    bits = INTEGER_BITS
    if isinstance(kind, Integer) and not getattr(kind, "unsigned", False):
        bits = 16 if isinstance(kind, SmallInteger) else INTEGER_BITS if isinstance(kind, BigInteger) else 32
    return FieldCheck(
        name=name,
        kinds=kinds,
        is_optional=is_optional and (column is None or column.nullable is not False),
        is_ascii=isinstance(kind, String) and _is_ascii(kind),
        low=-(2 ** (bits - 1)),
        high=2 ** (bits - 1) - 1,
        width=_width(hint, kind),
        is_compared=is_compared,
        is_ordered=is_ordered,
        values=values,
        choices=literal_of(hint),
        broken=_broken(hint) if _is_limited(hint) else None,
    )


def _width(hint: Any, kind: TypeEngine[Any] | None) -> int | None:
    """How much fits both the annotation and the column."""
    widths = [kind.length] if isinstance(kind, String | LargeBinary) else []
    if literal_of(hint) is None:
        with suppress(UnknownType):
            widths.append(field_type(hint).width)
    return min((width for width in widths if width is not None), default=None)


def _is_limited(hint: Any) -> bool:
    """Whether an annotation says more than a type and a width."""
    notes = hint.__metadata__ if get_origin(hint) is Annotated else ()
    return any(
        limit is not None
        for note in notes
        if isinstance(note, Meta)
        for limit in (note.ge, note.gt, note.le, note.lt, note.multiple_of, note.pattern, note.min_length)
    ) or any(map(_is_limited, get_args(hint)))


def _broken(hint: Any) -> Callable[[Any], str | None]:
    def broken(value: Any) -> str | None:
        try:
            msgspec.convert(value, hint)
        except msgspec.ValidationError as error:
            return with_short_patterns(str(error))
        return None

    return broken


def _is_ascii(kind: String) -> bool:
    """Whether one of the databases takes only ASCII in this column."""
    variants = getattr(kind, "_variant_mapping", {})
    return any("ascii" in (getattr(variant, "collation", None) or "") for variant in (kind, *variants.values()))


def _kinds(hint: Any) -> tuple[tuple[type, ...], bool]:
    """The types that a field's annotation allows, and whether None is one of them."""
    origin = get_origin(hint)
    if origin is Annotated:
        return _kinds(get_args(hint)[0])
    if origin is Literal:
        values = get_args(hint)
        return tuple({type(value): None for value in values if value is not None}), None in values
    if origin in (Union, types.UnionType):
        parts = [_kinds(part) for part in get_args(hint)]
        kinds = tuple(kind for found, _ in parts for kind in found)
        is_known = all(found or is_optional for found, is_optional in parts)
        return (kinds if is_known else ()), any(is_optional for _, is_optional in parts)
    if hint is type(None):
        return (), True
    return ((hint,), False) if hint in CHECKED else ((), True)
