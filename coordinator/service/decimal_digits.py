"""How many digits a decimal may have where its annotation says so: `Annotated[Decimal, Digits(12, 2)]`."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Context, Decimal, Inexact, InvalidOperation
from functools import cache
from itertools import chain
from types import UnionType
from typing import Annotated, Any, ClassVar, TypeVar, Union, get_args, get_origin, get_type_hints, is_typeddict

from coordinator.service.leaves import has_fields
from coordinator.service.rows import Digits


class TooFine(ValueError):
    """Raised for a decimal with too many digits after the point. `rounding` is what rounds it, in Python."""

    def __init__(self, digits: Digits) -> None:
        super().__init__(f"a Decimal with more than {digits.scale} digits after the point")
        self.rounding = f'.quantize(Decimal("{_quantum(digits):f}"))'


@cache
def with_digits(digits: Digits) -> Callable[[Decimal], Decimal]:
    """Makes an equal decimal with all its digits after the point. Raises ValueError for one that does not fit."""
    before, quantum, exact = digits.precision - digits.scale, _quantum(digits), _context(digits)

    def made(value: Decimal) -> Decimal:
        if not value.is_finite():
            raise ValueError(f"the Decimal {value}, which no database keeps")
        try:
            # Databases keep no sign of a zero.
            return Decimal(value).quantize(quantum, context=exact) if value else quantum * 0
        except Inexact:
            raise TooFine(digits) from None
        except InvalidOperation:
            raise ValueError(f"a Decimal with more than {before} digits before the point") from None

    return made


def _quantum(digits: Digits) -> Decimal:
    return Decimal((0, (1,), -digits.scale))


def _context(digits: Digits) -> Context:
    return Context(prec=digits.precision, traps=[Inexact, InvalidOperation])


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
    _check_all(hint, [value])


def _check_all(hint: Any, values: list[Any]) -> None:
    """The same of many values of one annotation: what depends on the annotation alone is found out once for all."""
    if not values or not limits_digits(hint):
        return
    parts = get_args(hint)
    if get_origin(hint) is Annotated:
        for note in hint.__metadata__:
            if isinstance(note, Digits):
                _check_decimals(note, values)
        _check_all(parts[0], values)
    elif get_origin(hint) in (Union, UnionType):
        for part in parts:
            _check_all(part, values)
    else:
        for part, some in _parts(hint, parts, values):
            _check_all(part, some)


def _check_decimals(digits: Digits, values: Iterable[Any]) -> None:
    quantize, quantum, made = _context(digits).quantize, _quantum(digits), with_digits(digits)
    for value in values:
        if isinstance(value, Decimal):
            try:
                quantize(value, quantum)
            except (Inexact, InvalidOperation):
                made(value)


def _parts(hint: Any, parts: tuple[Any, ...], values: list[Any]) -> Iterator[tuple[Any, list[Any]]]:
    """What is directly within values, by its annotations. In one that is of another type there is nothing."""
    of: Any = get_origin(hint) or hint
    if is_typeddict(of):
        dicts = [each for each in values if isinstance(each, dict)]
        yield from ((part, [each[name] for each in dicts if name in each]) for name, part in _hints(of).items())
    elif isinstance(of, type) and (has_fields(of) or _is_named(of)):
        made = [each for each in values if type(each) is of]
        given = dict(zip(getattr(of, "__parameters__", ()), parts, strict=False))
        for name, part in _hints(of).items():
            found = given.get(part, part) if isinstance(part, TypeVar) else part
            # A class of attrs may have annotations that are no fields.
            yield found, [getattr(each, name) for each in made if hasattr(each, name)]
    elif of is tuple and parts[1:] != (...,):
        tuples = [each for each in values if isinstance(each, tuple)]
        yield from ((part, [each[place] for each in tuples if place < len(each)]) for place, part in enumerate(parts))
    elif parts:
        listed = [each for each in values if isinstance(each, list | tuple | set | frozenset)]
        yield parts[0], list(chain.from_iterable(listed))
        if len(parts) == 2:  # noqa: PLR2004  # of keys and of values
            mappings = [each for each in values if isinstance(each, Mapping)]
            yield parts[0], list(chain.from_iterable(mappings))
            yield parts[1], list(chain.from_iterable(each.values() for each in mappings))


def _limits(hint: Any, seen: set[Any]) -> bool:
    if has_digits(hint):
        return True
    if not isinstance(hint, type) or get_args(hint):
        return any(_limits(part, seen) for part in (get_origin(hint), *get_args(hint)) if part is not None)
    if hint in seen or not (has_fields(hint) or is_typeddict(hint) or _is_named(hint)):
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
