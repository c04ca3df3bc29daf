"""How many digits a decimal may have where its annotation says so: `Annotated[Decimal, Digits(12, 2)]`."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from decimal import Context, Decimal, Inexact, InvalidOperation
from functools import cache
from types import UnionType
from typing import Annotated, Any, ClassVar, TypeVar, Union, get_args, get_origin, get_type_hints, is_typeddict

from msgspec import Struct

from coordinator.service.rows import Digits


@cache
def with_digits(digits: Digits) -> Callable[[Decimal], Decimal]:
    """Makes an equal decimal with all its digits after the point. Raises ValueError for one that does not fit."""
    before, quantum = digits.precision - digits.scale, Decimal((0, (1,), -digits.scale))
    exact = Context(prec=digits.precision, traps=[Inexact, InvalidOperation])

    def made(value: Decimal) -> Decimal:
        if not value.is_finite():
            raise ValueError(f"the Decimal {value}, which no database keeps")
        try:
            # Databases keep no sign of a zero.
            return Decimal(value).quantize(quantum, context=exact) if value else quantum * 0
        except Inexact:
            raise ValueError(f"a Decimal with more than {digits.scale} digits after the point") from None
        except InvalidOperation:
            raise ValueError(f"a Decimal with more than {before} digits before the point") from None

    return made


def has_digits(hint: Any) -> bool:
    """Whether some part of an annotation says how many digits it has."""
    if get_origin(hint) is Annotated and any(isinstance(note, Digits) for note in hint.__metadata__):
        return True
    return any(map(has_digits, get_args(hint)))


def is_decimal(hint: Any) -> bool:
    """Whether some part of an annotation is a decimal."""
    return hint is Decimal or any(map(is_decimal, get_args(hint)))


@cache
def limits_digits(hint: Any) -> bool:
    """Whether some value of an annotation has to have no more digits than it says, in a class within it, too."""
    return _limits(hint, set())


def check_digits(hint: Any, value: Any) -> None:
    """Raise ValueError, which says what is wrong, for a value of an annotation with a decimal of too many digits."""
    parts = get_args(hint)
    if get_origin(hint) is Annotated:
        for note in hint.__metadata__:
            if isinstance(note, Digits) and isinstance(value, Decimal):
                with_digits(note)(value)
        check_digits(parts[0], value)
    elif get_origin(hint) in (Union, UnionType):
        for part in parts:
            check_digits(part, value)
    else:
        for part, each in _parts(hint, parts, value):
            check_digits(part, each)


def _parts(hint: Any, parts: tuple[Any, ...], value: Any) -> Iterator[tuple[Any, Any]]:
    """The values directly within a value, with their annotations. Of one that is of another type there are none."""
    of: Any = type(value)
    if is_typeddict(hint) and isinstance(value, dict):
        yield from ((each, value[name]) for name, each in _hints(hint).items() if name in value)
    elif isinstance(value, Struct) or is_dataclass(value) or hasattr(value, "_fields"):
        if of in (hint, get_origin(hint)):
            given = dict(zip(getattr(of, "__parameters__", ()), parts, strict=False))
            for name, each in _hints(of).items():
                yield given.get(each, each) if isinstance(each, TypeVar) else each, getattr(value, name)
    elif isinstance(value, Mapping) and len(parts) == 2:  # noqa: PLR2004  # of keys and of values
        for key, each in value.items():
            yield parts[0], key
            yield parts[1], each
    elif isinstance(value, tuple) and get_origin(hint) is tuple and parts[1:] != (...,):
        yield from zip(parts, value, strict=False)
    elif isinstance(value, list | tuple | set | frozenset) and parts:
        yield from ((parts[0], each) for each in value)


def _limits(hint: Any, seen: set[Any]) -> bool:
    if has_digits(hint):
        return True
    if not isinstance(hint, type) or get_args(hint):
        return any(_limits(part, seen) for part in (get_origin(hint), *get_args(hint)) if part is not None)
    if hint in seen or not (issubclass(hint, Struct) or is_dataclass(hint) or is_typeddict(hint) or _is_named(hint)):
        return False
    seen.add(hint)
    return any(_limits(part, seen) for part in _hints(hint).values())


def _is_named(hint: type) -> bool:
    return issubclass(hint, tuple) and hasattr(hint, "_fields")


@cache
def _hints(of: Any) -> Mapping[str, Any]:
    """The annotations of a class's fields."""
    return {
        name: hint
        for name, hint in get_type_hints(of, include_extras=True).items()
        if get_origin(hint) is not ClassVar and hint is not ClassVar
    }
