"""What is in a value of an author's: whatever has no parts, however deep within lists, dicts and classes it is."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from itertools import chain
from typing import Any

from msgspec import Struct


def leaves(value: Any) -> Iterator[Any]:
    """All of them, keys of dicts too, of a value that is nested no deeper than JSON text may be."""
    parts = _parts(value)
    if parts is None:
        yield value
    else:
        for part in parts:
            yield from leaves(part)


def _parts(value: Any) -> Iterable[Any] | None:
    if isinstance(value, Struct):
        return (getattr(value, name) for name in value.__struct_fields__)
    if isinstance(value, list | tuple | set | frozenset):
        return value
    if isinstance(value, Mapping):
        return chain(value.keys(), value.values())
    if is_dataclass(value) and not isinstance(value, type):
        return (getattr(value, field.name) for field in fields(value))
    return None
