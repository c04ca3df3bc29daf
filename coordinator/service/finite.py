"""Floats that are no numbers: msgspec writes `null` for NaN and the infinities, so a reader would get None for one."""

from functools import cache
from math import isfinite
from typing import Any, Final

from msgspec import Struct, inspect
from msgspec.structs import astuple

from coordinator.service.leaves import leaves

_PLAIN: Final = frozenset({bool, int, str, type(None)})
_FLOATS: Final = ("FloatType", "AnyType", "RawType", "CustomType")
_PARTS: Final = ("ListType", "DictType", "TupleType", "SetType", "CollectionType", "DataclassType", "TypedDictType")


def may_lack_numbers(text: bytes) -> bool:
    """Whether the value of which msgspec has made this JSON text may have a float that is no number.

    That is `null` there, and as a key of a dict `"nan"`, `"inf"` or `"-inf"`: most texts have neither, so nobody looks
    through their values.
    """
    return b"null" in text or b'nan"' in text or b'inf"' in text


@cache
def is_flat(kind: Any) -> bool:
    """Whether values of a type have no floats, and no parts that have parts of their own."""
    shown = repr(inspect.type_info(kind))
    # A class within itself is shown as three dots.
    return shown.count("StructType(") <= 1 and not any(each in shown for each in (*_FLOATS, *_PARTS, "..."))


def field_not_finite(value: Struct) -> tuple[str, float] | None:
    """The first field with a float within it that is no number, and that float."""
    if _PLAIN.issuperset(map(type, astuple(value))):
        return None
    for name in value.__struct_fields__:
        found = not_finite(getattr(value, name))
        if found is not None:
            return name, found
    return None


def not_finite(value: Any) -> float | None:
    """A float within a value that is no number; None: there is none. Raises RecursionError for a value in itself."""
    return next((leaf for leaf in leaves(value) if isinstance(leaf, float) and not isfinite(leaf)), None)
