"""Fields that are kept as JSON: dicts, lists, tuples and msgspec's Structs, with anything in them that msgspec writes.

SQL databases keep the text that was written. Their own types for parsed JSON change it: the order of keys, numbers that
are large or end in a zero. MongoDB keeps a document or an array.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any, Final, get_origin

import msgspec
from msgspec import Struct, inspect

from coordinator.service.nesting import is_too_deep
from coordinator.stores.sql.column_types import JSON_TEXTS
from coordinator.stores.value_types import INTEGER_MAX, UnknownType, ValueType

LEVELS_MAX: Final = 64
"""The most dicts and lists within each other."""

READ_LEVELS_MAX: Final = 400
"""The most that are read of what others have written. How many a decoder takes depends on the stack where it runs."""

_SHORT_MAX: Final = 2 * READ_LEVELS_MAX
"""The most characters of a text that certainly has no more levels, unless it is malformed."""
_NO_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in b"[]{}")
_DIGITS: Final = bytes.maketrans(b"123456789", b"000000000")
_LONG_INTEGER: Final = b"0" * 19
_CHANGEABLE: Final = (
    *(inspect.AnyType, inspect.ListType, inspect.DictType),
    *(inspect.TypedDictType, inspect.DataclassType),
)
_ERRORS: Final = (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError)


def is_json(hint: Any) -> bool:
    """Whether a field with this annotation is kept as JSON."""
    of = get_origin(hint) or hint
    return isinstance(of, type) and issubclass(of, dict | list | tuple | Struct)


@cache
def json_type(hint: Any) -> ValueType:
    """The values of an annotation, kept as JSON. Raises UnknownType for one that msgspec does not read."""
    parts = list(_checked(hint))
    decoder = msgspec.json.Decoder(hint)

    def canonical(value: Any) -> Any:
        try:
            text = msgspec.json.encode(value)
            same = decoder.decode(text)
        except _ERRORS as error:
            raise ValueError(f"a value that JSON does not hold: {error}") from None
        if same != value:
            raise ValueError("a value that JSON does not give back as it is")
        if _is_suspect(text):
            _check(msgspec.json.decode(text), LEVELS_MAX)
        return same

    def read(value: Any) -> Any:
        if isinstance(value, str | bytes):
            if len(value) > _SHORT_MAX:
                _check_nesting(value if isinstance(value, bytes) else value.encode())
            return decoder.decode(value)
        return msgspec.convert(value, hint, str_keys=True)

    return ValueType(
        kind=dict,
        canonical=canonical,
        # Only what JSON gives back is certain to be so.
        sound="False",
        plain=lambda value: msgspec.json.encode(value).decode(),
        read=read,
        column=JSON_TEXTS,
        copy=(lambda value: decoder.decode(msgspec.json.encode(value))) if any(map(_can_change, parts)) else None,
        nested=lambda value: msgspec.to_builtins(value, str_keys=True),
    )


def _is_suspect(text: bytes) -> bool:
    """Whether JSON may have a text, a key or an integer that some database does not keep, or too many levels."""
    # Each by itself: one expression for all takes twice as long.
    return (
        text.find(b"\\u0000") >= 0
        or text.find(b'"$') >= 0
        or (len(text) > LEVELS_MAX and text.count(b"[") + text.count(b"{") > LEVELS_MAX)
        # An expression takes ten times as long.
        or _LONG_INTEGER in text.translate(_DIGITS)
    )


def _check_nesting(text: bytes) -> None:
    """Raises ValueError for JSON with more than READ_LEVELS_MAX levels.

    Pairs of brackets are taken out, from within: a few passes for most texts, in a fraction of the time of a decoder.
    Those within strings may keep what is left from being empty, so that is looked at again; or they may hide levels,
    which the decoder finds then.
    """
    left = text.translate(None, _NO_BRACKETS)
    # Each pass takes out one level, or two.
    for levels_out_max in range(0, READ_LEVELS_MAX, 2):
        if levels_out_max + len(left) <= READ_LEVELS_MAX:
            return
        before, left = left, left.replace(b"[]", b"").replace(b"{}", b"")
        if len(left) == len(before):
            break
    if is_too_deep(text, READ_LEVELS_MAX):
        raise ValueError(f"JSON with more than {READ_LEVELS_MAX} levels")


def _check(value: Any, levels: int) -> None:
    """Raises ValueError for what some database does not keep in JSON."""
    if isinstance(value, dict | list) and levels == 0:
        raise ValueError(f"JSON with more than {LEVELS_MAX} levels")
    if isinstance(value, dict):
        for key, each in value.items():
            if key.startswith("$"):
                raise ValueError(f"JSON with the key {key!r:.100}: MongoDB keeps $ for itself")
            _check(key, levels - 1)
            _check(each, levels - 1)
    elif isinstance(value, list):
        for each in value:
            _check(each, levels - 1)
    elif isinstance(value, str) and "\0" in value:
        raise ValueError("JSON with a NUL character in a text")
    elif isinstance(value, int) and not -INTEGER_MAX - 1 <= value <= INTEGER_MAX:
        raise ValueError(f"JSON with an integer out of range: {-INTEGER_MAX - 1} to {INTEGER_MAX}")


def _checked(hint: Any) -> Iterator[Any]:
    """All types within a type. Raises UnknownType for one that JSON does not hold."""
    try:
        info = inspect.type_info(hint)
        msgspec.json.Decoder(hint)
    except (TypeError, NameError) as error:
        raise UnknownType(str(error)) from None
    for part in _parts(info, set()):
        if isinstance(part, inspect.SetType | inspect.FrozenSetType):
            raise UnknownType(f"{hint} has a set: its values come in another order in each process")
        if isinstance(part, inspect.CustomType | inspect.RawType):
            raise UnknownType(f"{hint} has a type that JSON does not hold")
        yield part


def _parts(info: Any, seen: set[type]) -> Iterator[Any]:
    """A type, and all types within it."""
    of = getattr(info, "cls", None)
    if of in seen:
        return
    if of is not None:
        seen.add(of)
    yield info
    for name in info.__struct_fields__:
        part = getattr(info, name)
        for each in part if isinstance(part, tuple) else (part,):
            if isinstance(each, inspect.Type | inspect.Field):
                yield from _parts(each, seen)


def _can_change(part: Any) -> bool:
    """Whether a value of this type, without what is in it, can be changed in place."""
    if isinstance(part, inspect.StructType):
        return not part.cls.__struct_config__.frozen
    return isinstance(part, _CHANGEABLE)
