"""Rows in values of any type: whether a type may have some, and the same value with some of them shortened."""

import copy
from collections.abc import Callable, Collection
from functools import cache
from typing import Any

import msgspec
from msgspec import Struct, inspect

from coordinator.service.rows import Row


def may_have_rows(promised: Any, models: Collection[type[Row]] = (Row,)) -> bool:
    """Whether a value of this type may be a row of these classes, or have one in it.

    Raises TypeError for a type that is none.
    """
    return _may_have_cached(promised, tuple(models))


@cache
def _may_have_cached(promised: Any, models: tuple[type[Row], ...]) -> bool:
    return _may_have(inspect.type_info(promised), models, set())


def _may_have(info: Any, models: tuple[type[Row], ...], seen: set[Any]) -> bool:
    of = getattr(info, "cls", None)
    if isinstance(of, type):
        if issubclass(of, models):
            return True
        if of in seen:
            return False
        seen.add(of)
    parts = [getattr(info, field) for field in info.__struct_fields__]
    return any(
        isinstance(each, inspect.Type | inspect.Field) and _may_have(each, models, seen)
        for part in parts
        for each in (part if isinstance(part, tuple) else (part,))
    )


def without_rows(value: Any, shortened: Callable[[Row], Any]) -> Any:
    """The value with what `shortened` makes of each row in it; the very same value if that is always the row itself.

    It is for writing out: what stands for a row need not be of the type that its place has.
    """
    if isinstance(value, Row) and (short := shortened(value)) is not value:
        return short
    if isinstance(value, Struct):
        return _of_struct(value, shortened)
    if isinstance(value, dict):
        parts = {name: without_rows(part, shortened) for name, part in value.items()}
        return value if all(parts[name] is part for name, part in value.items()) else parts
    if isinstance(value, list | tuple | set | frozenset):
        inner = list(value)
        made = [without_rows(part, shortened) for part in inner]
        return value if all(new is old for new, old in zip(made, inner, strict=True)) else made
    return value


def _of_struct(value: Struct, shortened: Callable[[Row], Any]) -> Struct:
    made = value
    for field in value.__struct_fields__:
        part = getattr(value, field)
        new = without_rows(part, shortened)
        if new is not part:
            # A copy that nobody checks: it is written out, and forgotten.
            made = copy.copy(value) if made is value else made
            msgspec.structs.force_setattr(made, field, new)
    return made
