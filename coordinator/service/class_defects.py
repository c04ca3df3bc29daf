"""What is wrong with the class of a row or of a command: its fields, their types and defaults, and its options."""

import dataclasses
import random
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import date
from inspect import get_annotations
from typing import Any, Final, get_origin, get_type_hints

import msgspec
from msgspec import NODEFAULT, UNSET, Struct, inspect

from coordinator.service.decimal_digits import has_digits, is_decimal
from coordinator.service.limit_texts import limits_said_twice, with_short_patterns

_UNFIT: Final = (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError)
_CHANCE: Final = (
    "its default is another one each time, and a batch may be tried again: give it its value where it is made "
    "(in a handler work.now, or UUID(work.command_id))"
)
_DIFFER_EACH_TIME: Final = frozenset({"uuid", "random", "secrets", "time", "os", "posix"})
"""Modules whose functions return something else each time."""


def fields_of(declared: type[Struct]) -> Mapping[str, Any] | str:
    """The annotations of the fields, or why they cannot be read."""
    try:
        hints = get_type_hints(declared, include_extras=True)
    except (NameError, TypeError, SyntaxError) as error:
        return f"{error}; its fields' types must be found in its module, outside functions and `if TYPE_CHECKING`"
    return {name: hints[name] for name in declared.__struct_fields__}


def defects_of_class(
    declared: type[Struct], taken: Collection[str], hints: Mapping[str, Any], *, is_row: bool
) -> Iterator[str]:
    """Each defect as a line. `taken` are the names of what the class has of its own."""
    name, config = declared.__name__, declared.__struct_config__
    what = "row" if is_row else "command"
    if not config.frozen or not config.eq:
        yield f"{name}: a {what} is frozen and is compared by its fields: leave out frozen=False and eq=False"
    if config.array_like:
        yield f"{name}: a {what} is an object in JSON: leave out array_like"
    if is_row and (config.tag is not None or config.omit_defaults or _renames(declared)):
        yield f"{name}: a row has a column of the same name for each field: leave out rename, tag and omit_defaults"
    yield from (f"{name}.{field}: a {what} has that name for something else" for field in hints if field in taken)
    yield from _untyped(declared)
    for field, hint in hints.items():
        yield from (f"{name}.{field}: {problem}" for problem in _of_type(hint))
        if has_digits(hint) and not is_decimal(hint):
            yield f"{name}.{field}: Digits says how many digits a Decimal has, and this is none"
    if not any(problem for hint in hints.values() for problem in _of_type(hint)):
        yield from (f"{name}.{field}: {problem}" for field, problem in _of_defaults(declared, hints))


def _untyped(declared: type[Struct]) -> Iterator[str]:
    """Values in the bodies of a class and its bases that look like fields and are none.

    What has no type may be a method, or anything else that Python asks for a value (a descriptor), a class within the
    class, a private name, and a value for what is declared as a ClassVar.
    """
    typed = {base: get_annotations(base).keys() for base in declared.__mro__ if isinstance(base, msgspec.StructMeta)}
    of_the_class = {name for names in typed.values() for name in names} - {*declared.__struct_fields__}
    for body, names in typed.items():
        for name, value in vars(body).items():
            is_typed = name in names or name in of_the_class
            is_within = isinstance(value, type) and value.__qualname__ == f"{body.__qualname__}.{name}"
            is_asked = hasattr(type(value), "__get__")
            if not (name.startswith("_") or is_typed or is_within or is_asked):
                yield (
                    f"{body.__name__}.{name}: it has no type, so it is no field: write {name}: {_typed(value)}, or "
                    f"{name}: ClassVar[…] = … for one value of the whole class"
                )


def _typed(value: object) -> str:
    """What to write behind the name of a field with this default; or instead of this type."""
    if isinstance(value, type):
        return value.__name__
    if type(value) is type(msgspec.field()):
        return "… = msgspec.field(…)"
    if get_origin(value) is not None:
        return f"{value}".removeprefix("typing.")
    return "… | None = None" if value is None else f"{type(value).__name__} = {value!r:.100}"


def _renames(declared: type[Struct]) -> bool:
    return declared.__struct_fields__ != declared.__struct_encode_fields__


def _of_type(hint: Any) -> Iterator[str]:
    """Why msgspec cannot read values of a type."""
    try:
        msgspec.json.Decoder(hint)
        custom = _custom(inspect.type_info(hint), set())
    except _UNFIT as error:
        yield limits_said_twice(hint) or with_short_patterns(str(error))
        return
    if custom is not None:
        yield f"JSON has no form for {custom.__module__}.{custom.__qualname__}: take a Struct of its parts, or a text"


def _custom(info: Any, seen: set[Any]) -> type | None:
    """A class within a type that msgspec knows nothing of; None: there is none."""
    if isinstance(info, inspect.CustomType):
        return info.cls
    of = getattr(info, "cls", None)
    if of is not None and of in seen:
        return None
    seen.add(of)
    for field in info.__struct_fields__:
        part = getattr(info, field)
        for each in part if isinstance(part, tuple) else (part,):
            if isinstance(each, inspect.Type | inspect.Field) and (found := _custom(each, seen)) is not None:
                return found
    return None


def _of_defaults(declared: type[Struct], hints: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for field in msgspec.structs.fields(declared):
        if field.default is UNSET:
            continue
        if isinstance(field.default, dataclasses.Field):
            yield field.name, "its default is a field of dataclasses: write msgspec.field(…)"
        elif field.default is not NODEFAULT:
            try:
                msgspec.json.decode(msgspec.json.encode(field.default), type=hints[field.name])
            except _UNFIT as error:
                yield (
                    field.name,
                    f"its default {field.default!r:.100} is none of its type: {with_short_patterns(str(error))}",
                )
        elif field.default_factory is not NODEFAULT and _differs_each_time(field.default_factory):
            yield field.name, _CHANCE


def _differs_each_time(factory: Callable[[], Any]) -> bool:
    owner = getattr(factory, "__self__", None)
    if isinstance(owner, random.Random) or (isinstance(owner, type) and issubclass(owner, date)):
        return True
    return getattr(factory, "__module__", None) in _DIFFER_EACH_TIME and not isinstance(factory, type)
