"""Rows in values of any type: whether a type may have some, and the same value with some of them shortened."""

import copy
from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import Any

import msgspec
from msgspec import Struct, inspect

from coordinator.service.leaves import field_names
from coordinator.service.rows import Row


def may_have_rows(promised: Any, models: Collection[type[Row]] = (Row,)) -> bool:
    """Whether a value that is read as this type may be a row of these classes, or have one in it.

    What is read as `Any` has dicts and no rows. Raises TypeError for a type that is none.
    """
    return _has_class(promised, tuple(models), _is_one_of)


def may_pass_for_rows(promised: Any, models: Collection[type[Row]]) -> bool:
    """Whether this type is, or has in it, a base of these classes: whoever reads a row as its base does not know it.

    Raises TypeError for a type that is none.
    """
    return _has_class(promised, tuple(models), _is_base_of)


def may_return_rows(promised: Any) -> bool:
    """Whether what a handler returns as this type may be a row, or have one in it: `Any` and `object` take one, too.

    Raises TypeError for a type that is none.
    """
    return any(_has_class(promised, (Row,), matches) for matches in (_is_one_of, _is_base_of, _takes_anything))


_Matches = Callable[[type, tuple[type[Row], ...]], bool]


def _is_one_of(of: type, models: tuple[type[Row], ...]) -> bool:
    return issubclass(of, models)


def _is_base_of(of: type, models: tuple[type[Row], ...]) -> bool:
    # Not by issubclass: of a TypedDict, and of many a Protocol, nobody may ask that.
    return of is not object and of not in models and any(of in model.__mro__ for model in models)


def _takes_anything(of: type, models: tuple[type[Row], ...]) -> bool:  # noqa: ARG001
    return of is object


@cache
def _has_class(promised: Any, models: tuple[type[Row], ...], matches: _Matches) -> bool:
    return _has(inspect.type_info(promised), models, matches, set())


def _has(info: Any, models: tuple[type[Row], ...], matches: _Matches, seen: set[Any]) -> bool:
    of = object if isinstance(info, inspect.AnyType) else getattr(info, "cls", None)
    if isinstance(of, type):
        if matches(of, models):
            return True
        if of in seen:
            return False
        seen.add(of)
    parts = [getattr(info, field) for field in info.__struct_fields__]
    return any(
        isinstance(each, inspect.Type | inspect.Field) and _has(each, models, matches, seen)
        for part in parts
        for each in (part if isinstance(part, tuple) else (part,))
    )


def without_rows(value: Any, shortened: Callable[[Row], Any]) -> Any:
    """The value with what `shortened` makes of each row in it; the very same value if that is always the row itself.

    It is for writing out: what stands for a row need not be of the type that its place has.
    """
    if isinstance(value, Row) and (short := shortened(value)) is not value:
        return short
    if isinstance(value, dict):
        parts = {name: without_rows(part, shortened) for name, part in value.items()}
        return value if all(parts[name] is part for name, part in value.items()) else parts
    if isinstance(value, list | tuple | set | frozenset):
        inner = list(value)
        made = [without_rows(part, shortened) for part in inner]
        return value if all(new is old for new, old in zip(made, inner, strict=True)) else made
    names = field_names(value)
    return value if names is None else _of_fields(value, names, shortened)


def _of_fields(value: Any, names: Sequence[str], shortened: Callable[[Row], Any]) -> Any:
    made = value
    for field in names:
        part = getattr(value, field)
        new = without_rows(part, shortened)
        if new is not part:
            # A copy that nobody checks: it is written out, and forgotten.
            made = copy.copy(value) if made is value else made
            _set_field(made, field, new)
    return made


def _set_field(made: Any, field: str, value: Any) -> None:
    """Set a field, also of what is frozen."""
    if isinstance(made, Struct):
        msgspec.structs.force_setattr(made, field, value)
    else:
        object.__setattr__(made, field, value)
