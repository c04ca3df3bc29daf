"""What is in a value of an author's: whatever has no parts, however deep within lists, dicts and classes it is."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from itertools import chain, islice
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import astuple

_LEVELS_MAX: Final = 200
_LEVEL_VALUES_MAX: Final = 1 << 22
"""What is deeper or wider may be within itself, and is looked through one by one."""


def leaves(value: Any, whole: tuple[type, ...] = ()) -> Iterator[Any]:
    """All of them, keys of dicts too, of a value that is nested no deeper than JSON text may be. What is of the classes
    `whole` is one, and is not looked into."""
    parts = None if isinstance(value, whole) else _parts(value)
    if parts is None:
        yield value
    else:
        for part in parts:
            yield from leaves(part, whole)


def runs(value: Any, whole: tuple[type, ...] = ()) -> Iterator[list[Any]]:
    """The same leaves, many at a time, each run of one type. It costs a tenth: a message may have a lot of them."""
    level = [value]
    for _ in range(_LEVELS_MAX):
        below: list[Any] = []
        kinds = dict.fromkeys(map(type, level))
        for kind in kinds:
            run = level if len(kinds) == 1 else [each for each in level if type(each) is kind]
            parts = None if issubclass(kind, whole) else _parts_of_all(run)
            if parts is None:
                yield run
            else:
                below += islice(parts, _LEVEL_VALUES_MAX + 1 - len(below))
        if not below:
            return
        if len(below) > _LEVEL_VALUES_MAX:
            break
        level = below
    yield from ([leaf] for leaf in leaves(value, whole))


def _parts_of_all(run: list[Any]) -> Iterable[Any] | None:
    """What is directly in values of one type; None: they have no parts."""
    first = run[0]
    if isinstance(first, Struct):
        return chain.from_iterable(map(astuple, run))
    if type(first) in (list, tuple, set, frozenset):
        return chain.from_iterable(run)
    if type(first) is dict:
        return chain(chain.from_iterable(run), chain.from_iterable(map(dict.values, run)))
    if _parts(first) is None:
        return None
    return chain.from_iterable(_parts(each) or () for each in run)


def _parts(value: Any) -> Iterable[Any] | None:
    """What is directly in a value, keys of dicts too; None: it has no parts."""
    if isinstance(value, list | tuple | set | frozenset):
        return value
    if isinstance(value, Mapping):
        return chain(value.keys(), value.values())
    names = field_names(value)
    return None if names is None else (getattr(value, name) for name in names)


def field_names(value: Any) -> Sequence[str] | None:
    """The fields of a value of any kind of class that msgspec writes by its fields; None: it has none."""
    if isinstance(value, Struct):
        return value.__struct_fields__
    kind = type(value)
    if not has_fields(kind):
        return None
    declared = fields(kind) if is_dataclass(kind) else kind.__attrs_attrs__
    return [each.name for each in declared if hasattr(value, each.name)]


def has_fields(kind: type) -> bool:
    """Whether msgspec reads and writes what is of this class by its fields."""
    # A class of attrs says it itself, so nothing of attrs is needed.
    return issubclass(kind, Struct) or is_dataclass(kind) or hasattr(kind, "__attrs_attrs__")
