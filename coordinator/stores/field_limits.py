"""What the annotation of a row's field says beside its type and its width."""

import types
from collections.abc import Callable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Meta


def choices_of(hint: Any) -> frozenset[Any] | None:
    """The values of the `Literal` that an annotation is, or is beside None."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return choices_of(arguments[0])
    if origin is Literal:
        return frozenset(arguments) - {None}
    if origin in (Union, types.UnionType):
        found = [choices_of(part) for part in arguments if part is not type(None)]
        return found[0] if len(found) == 1 else None
    return None


def is_limited(hint: Any) -> bool:
    """Whether an annotation says more than a type and a width."""
    notes = hint.__metadata__ if get_origin(hint) is Annotated else ()
    return any(
        limit is not None
        for note in notes
        if isinstance(note, Meta)
        for limit in (note.ge, note.gt, note.le, note.lt, note.multiple_of, note.pattern, note.min_length)
    ) or any(map(is_limited, get_args(hint)))


def broken_by(hint: Any) -> Callable[[Any], str | None]:
    """Which limit of an annotation a value breaks, in words; None: none."""

    def broken(value: Any) -> str | None:
        try:
            msgspec.convert(value, hint)
        except msgspec.ValidationError as error:
            return str(error)
        return None

    return broken
