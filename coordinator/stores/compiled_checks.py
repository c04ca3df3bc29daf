"""The checks of `row_checks.py` as expressions: what they accept is as every database gives it back."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from coordinator.service.rows import R, Row
from coordinator.stores.field_checks import FieldCheck

_Check = Callable[[Row, Any], bool]
_NAMES: Final = {"utc": UTC, "datetime": datetime}
"""The names that the expressions use."""


def compiled(fields: list[FieldCheck], *, is_compared: bool) -> _Check:
    """One expression for all fields. `RowCheck` looks closely at a value that it does not accept at once."""
    parts: list[str] = []
    names = dict(_NAMES)
    for field in fields:
        sound = _sound(field, names)
        if not sound:
            if not field.is_optional:
                parts.append(f"row.{field.name} is not None")
            continue
        if field.is_optional:
            sound.insert(0, "value is None")
        if is_compared:
            parts.append(f"((value := row.{field.name}) is before.{field.name} or {' or '.join(sound)})")
        else:
            parts.append(f"((value := row.{field.name}) is None and {field.is_optional} or {' or '.join(sound)})")
    # The names of fields are code, not input.
    check: _Check = eval(f"lambda row, before: {' and '.join(parts) or 'True'}", names)  # noqa: S307
    return check


def key_compiled(field: FieldCheck) -> Callable[[Any], bool]:
    """Whether rows can be sought by a value of one field."""
    names = dict(_NAMES)
    sound = _sound(field, names)
    check: Callable[[Any], bool] = eval(f"lambda value: {' or '.join(sound) or 'False'}", names)  # noqa: S307
    return check


def parts_compiled(fields: list[FieldCheck]) -> Callable[[Any], bool]:
    """The same for a tuple with a value for each of several fields."""
    names = dict(_NAMES)
    parts = [
        f"((value := parts[{place}]) is None and False or {' or '.join(_sound(field, names)) or 'False'})"
        for place, field in enumerate(fields)
    ]
    is_tuple = f"type(parts) is tuple and len(parts) == {len(fields)}"
    check: Callable[[Any], bool] = eval(f"lambda parts: {is_tuple} and {' and '.join(parts)}", names)  # noqa: S307
    return check


def copy_compiled(copies: Mapping[str, Callable[[Any], Any]]) -> Callable[[R], R]:
    """Makes a row of its own of another one: `copies` makes the values of these fields."""
    names: dict[str, Any] = {"replace": msgspec.structs.replace}
    parts: list[str] = []
    for number, (field, copy) in enumerate(copies.items()):
        names[f"copy_{number}"] = copy
        parts.append(f"{field}=None if (value := row.{field}) is None else copy_{number}(value)")
    copied: Callable[[R], R] = eval(f"lambda row: replace(row, {', '.join(parts)})", names)  # noqa: S307
    return copied


def _sound(field: FieldCheck, names: dict[str, Any]) -> list[str]:
    """Expressions of which one is true of a sound value; `names` gets what they need. None: any value is one."""
    if field.values is None:
        sound = [_plain_sound(field, kind) for kind in field.kinds]
    else:
        sound = [field.values.sound_of(field.name, names)]
    if field.choices is not None:
        names[f"choices_{field.name}"] = field.choices
        sound = [f"{each} and value in choices_{field.name}" for each in sound]
    if field.broken is None:
        return sound
    names[f"broken_{field.name}"] = field.broken
    return [f"{each} and broken_{field.name}(value) is None" for each in sound]


def _plain_sound(field: FieldCheck, kind: type) -> str:
    if kind is int:
        return f"type(value) is int and {field.low} <= value <= {field.high}"
    if kind is str:
        width = "" if field.width is None else f" and len(value) <= {field.width}"
        end = " and value[-1:] != ' '" if field.is_compared else ""
        end += " and value.isprintable()" if field.is_ordered else ""
        return f"type(value) is str and value.isascii() and '\\0' not in value{end}{width}"
    if kind is bytes:
        width = "" if field.width is None else f" and len(value) <= {field.width}"
        return f"type(value) is bytes{width}"
    return "type(value) is datetime and value.tzinfo is utc and not value.microsecond % 1000"
