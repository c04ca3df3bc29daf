"""The size of decimals that come from outside: a short text may mean a number that takes for ever to write out.

`1e99999999` is ten characters. The integer that it is has a hundred million digits, and `int` makes them all: whatever
does so stands still, be it a gateway or a lane. So no door takes such a number, and upgrades and handlers may calculate
with any that they get. Only a command's own `__post_init__` sees it before.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any, Final

import msgspec
from msgspec import Struct

from coordinator.service.errors import InvalidCommand

EXPONENT_MAX: Final = 400
"""Above that of each float, and of each column of decimals; the same below zero."""
_SHOWN_MAX: Final = 100


@cache
def has_decimals(model: type[Struct]) -> bool:
    """Whether some value of a command of this class is a Decimal."""
    return "DecimalType" in repr(msgspec.inspect.type_info(model))


def number(text: str) -> Decimal:
    """A number of JSON text with all of its digits: a float would round what a Decimal is to have. Raises ValueError.

    The number may still go through an author's function, whatever becomes of it then.
    """
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(_problem(text)) from None
    if not _is_sized(value):
        raise ValueError(_problem(text))
    return value


def check_sizes(command: Struct) -> None:
    """Raise InvalidCommand, which names the argument, for a command with a Decimal that is too large or too small."""
    for name in command.__struct_fields__:
        value = getattr(command, name)
        if isinstance(value, str | int | None):
            continue
        for each in _decimals(value):
            if not _is_sized(each):
                field = command.__struct_encode_fields__[command.__struct_fields__.index(name)]
                text = f"{_problem(str(each))} - at `$.{field}`"
                raise InvalidCommand(text, code="invalid_arguments", field=field)


def _decimals(value: Any) -> Iterator[Decimal]:
    """The decimals in a value, which is nested no deeper than JSON text may be."""
    if isinstance(value, Decimal):
        yield value
    elif isinstance(value, Struct):
        for name in value.__struct_fields__:
            yield from _decimals(getattr(value, name))
    elif is_dataclass(value):
        for each in fields(value):
            yield from _decimals(getattr(value, each.name))
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _decimals(key)
            yield from _decimals(each)
    elif isinstance(value, list | tuple | set | frozenset):
        for each in value:
            yield from _decimals(each)


def _is_sized(value: Decimal) -> bool:
    # That of what is no number is 0.
    return -EXPONENT_MAX <= value.adjusted() <= EXPONENT_MAX


def _problem(text: str) -> str:
    return (
        f"{text[:_SHOWN_MAX]} has an exponent that no number can have: it is to have at most {EXPONENT_MAX} digits "
        "before the point, and as many zeros after it"
    )
