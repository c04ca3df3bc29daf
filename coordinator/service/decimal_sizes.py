"""The size and the form of decimals that come from outside: a short text may mean one that takes for ever to write out.

`1e99999999` is ten characters. The integer that it is has a hundred million digits, and `int` makes them all: whatever
does so stands still, be it a gateway or a lane. And what is called a number and is none, `NaN`, raises an error where
it is compared, and an infinity where it becomes an `int`: a handler would fail, which is not the fault of its author.
So no door takes either, and upgrades, handlers and the `__post_init__` of a class may calculate with any that they get.

Python also takes `1_000`, ` 1`, `.5`, `+1` and the digits of other scripts for numbers, in which other readers see
another one, or none. A text is a decimal if it would be a number of JSON, with zeros before it or without.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal, InvalidOperation
from functools import cache
from itertools import chain
from typing import Any, Final, get_type_hints

import msgspec
from msgspec import Struct, inspect

from coordinator.service.decimal_digits import check_digits, limits_digits
from coordinator.service.declared import undescribed
from coordinator.service.errors import InvalidCommand
from coordinator.service.leaves import runs

EXPONENT_MAX: Final = 400
"""Above that of each float, and of each column of decimals; the same below zero."""
_SHOWN_MAX: Final = 100
_SUSPECT: Final = re.compile(rb"[eE\\][+-]?[0-9_u\x80-\xff]{3}|[nN][aA][nN]|[iI][nN][fF]")
"""Found in all JSON text with a number of an exponent beyond 99, or with what is called a number and is none: Python
also takes the digits of other scripts, and underscores between them, and JSON text may have any character as `\\u` and
a number."""

_NUMBER: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_ODD: Final = re.compile(rb'"(?:-?[_.\\\x80-\xff]|[ +]|-?[0-9]++(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]*+)?+[_. \\\x80-\xff])')
"""Found in all JSON text with a text that Python takes for a decimal, and that is no number of JSON."""


class SizeChecks(Struct, frozen=True):
    """The checks of one class of commands. Both raise InvalidCommand, which names the argument."""

    made: Callable[[Any], None]
    """Of a command."""
    sent: Callable[[bytes | dict[str, Any]], None]
    """Of arguments, before the class gets them. What is not as the class says is not its concern."""


def has_decimals(model: type[Struct]) -> bool:
    """Whether some value of a command of this class is a Decimal."""
    return _has_decimals(inspect.type_info(model))


def number(text: str) -> Decimal:
    """A number of JSON text with all of its digits: a float would round what a Decimal is to have. Raises ValueError.

    The number may still go through an author's function, whatever becomes of it then.
    """
    if _NUMBER.fullmatch(text) is None:
        raise ValueError(f"{_shown(text)} is not written as a number")
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(_problem(text)) from None
    if not _is_sized(value):
        raise ValueError(_problem(text))
    return value


def number_hook(text: str) -> Decimal:
    """`number` of what a parser has found to be one: a third of its time, and a message may have a lot of them."""
    try:
        value = Decimal(text)
        if -EXPONENT_MAX <= value.adjusted() <= EXPONENT_MAX:
            return value
    except InvalidOperation:
        pass
    raise ValueError(_problem(text))


@cache
def size_checks(model: type[Struct]) -> SizeChecks | None:
    """None: no value of such a command is a Decimal."""
    info: Any = inspect.type_info(model)
    if not _has_decimals(info):
        return None
    suspects = [field for field in info.fields if _has_decimals(field.type)]
    hints = get_type_hints(model, include_extras=True)
    limited = [(field, hints[field.name]) for field in suspects if limits_digits(hints[field.name])]
    has_author = any(hasattr(kind, "__post_init__") for kind in _classes(info, set()))
    return SizeChecks(_made_check(suspects, limited), _sent_check(suspects, has_author=has_author))


def _made_check(suspects: list[inspect.Field], limited: list[tuple[inspect.Field, Any]]) -> Callable[[Any], None]:
    names = [(field.name, field.encode_name) for field in suspects]

    def check(command: Any) -> None:
        for name, encoded in names:
            value = getattr(command, name)
            if type(value) is Decimal:
                # Most are. That of what is no number is 0.
                if not (-EXPONENT_MAX <= value.adjusted() <= EXPONENT_MAX and value.is_finite()):
                    raise _refused(value, encoded)
            elif value is not None:
                for run in runs(value):
                    if isinstance(run[0], Decimal) and not _are_sized(run):
                        raise _refused(next(each for each in run if not _is_sized(each)), encoded)
        for field, hint in limited:
            try:
                check_digits(hint, getattr(command, field.name))
            except ValueError as error:
                raise _at_fault(str(error), field.encode_name) from None

    return check


def _sent_check(suspects: list[inspect.Field], *, has_author: bool) -> Callable[[bytes | dict[str, Any]], None]:
    decoder = msgspec.json.Decoder(float_hook=_any_number)

    def check(arguments: bytes | dict[str, Any]) -> None:
        given: Any = arguments
        if isinstance(arguments, bytes):
            # Of a class without code of its own the sizes are looked at once it is made.
            if _ODD.search(arguments) is None and not (has_author and _SUSPECT.search(arguments)):
                return
            try:
                given = decoder.decode(arguments)
            except (msgspec.MsgspecError, UnicodeError, RecursionError):
                return
        if not isinstance(given, dict):
            return
        for field in suspects:
            for run in _sent(field.type, [given.get(field.encode_name)]):
                _check_sent(run, field.encode_name)

    return check


def _check_sent(run: Iterable[str | Decimal], field: str) -> None:
    is_number = _NUMBER.fullmatch
    for each in run:
        try:
            value = Decimal(each)
        except InvalidOperation:
            # The class is not given it either.
            continue
        if not (-EXPONENT_MAX <= value.adjusted() <= EXPONENT_MAX and value.is_finite()):
            raise _refused(value, field)
        if isinstance(each, str) and is_number(each) is None:
            text = f"{_shown(each)!a} is not written as a number: digits, and a point between them if need be"
            raise _at_fault(text, field)


def _any_number(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        # A class is not given it either.
        return Decimal(0)


def _has_decimals(info: inspect.Type) -> bool:
    return "DecimalType" in repr(info)


def _classes(info: Any, seen: set[type]) -> set[type]:
    """All classes with fields within a type."""
    of = getattr(info, "cls", None)
    if of in seen:
        return seen
    if of is not None:
        seen.add(of)
    for name in info.__struct_fields__:
        part = getattr(info, name)
        for each in part if isinstance(part, tuple) else (part,):
            if isinstance(each, inspect.Type | inspect.Field):
                _classes(each, seen)
    return seen


def _sent(kind: inspect.Type, given: list[Any]) -> Iterator[list[str | Decimal]]:
    """Of values that JSON text says where a type is wanted, that of which a class gets decimals, many at a time.

    Of what does not fit the type there is none.
    """
    kind = undescribed(kind)
    if not given:
        return
    if isinstance(kind, inspect.DecimalType):
        yield [each for each in given if isinstance(each, str | Decimal)]
    elif isinstance(kind, inspect.UnionType):
        for each in kind.types:
            yield from _sent(each, given)
    else:
        dicts = [each for each in given if isinstance(each, dict)]
        lists = [each for each in given if isinstance(each, list | tuple)]
        for part, values in chain(_sent_in_dicts(kind, dicts), _sent_in_lists(kind, lists)):
            yield from _sent(part, values)


def _sent_in_dicts(kind: Any, given: list[dict[str, Any]]) -> Iterator[tuple[inspect.Type, list[Any]]]:
    """What is directly in objects of JSON text, with the types that it has there."""
    tag_field = getattr(kind, "tag_field", None)
    if tag_field is not None:
        given = [each for each in given if each.get(tag_field) == kind.tag]
    for field in getattr(kind, "fields", ()):
        name = field.encode_name
        yield field.type, [each[name] for each in given if name in each]
    if isinstance(kind, inspect.DictType | inspect.FrozenDictType):
        yield kind.key_type, list(chain.from_iterable(given))
        yield kind.value_type, list(chain.from_iterable(map(dict.values, given)))


def _sent_in_lists(kind: Any, given: list[list[Any] | tuple[Any, ...]]) -> Iterator[tuple[inspect.Type, list[Any]]]:
    """What is directly in arrays."""
    types = (*getattr(kind, "item_types", ()), *(field.type for field in getattr(kind, "fields", ())))
    # A class that is written as an array has its tag first.
    first = int(getattr(kind, "tag", None) is not None)
    for place, part in enumerate(types, first):
        yield part, [each[place] for each in given if place < len(each)]
    if hasattr(kind, "item_type"):
        yield kind.item_type, list(chain.from_iterable(given))


def _is_sized(value: Decimal) -> bool:
    return -EXPONENT_MAX <= value.adjusted() <= EXPONENT_MAX and value.is_finite()


def _are_sized(run: Iterable[Decimal]) -> bool:
    exponents = set(map(Decimal.adjusted, run))
    return min(exponents) >= -EXPONENT_MAX and max(exponents) <= EXPONENT_MAX and all(map(Decimal.is_finite, run))


def _refused(value: Decimal, field: str) -> InvalidCommand:
    if not value.is_finite():
        return _at_fault(f"{_shown(str(value))} is no finite number", field)
    return _at_fault(_problem(str(value)), field)


def _at_fault(text: str, field: str) -> InvalidCommand:
    return InvalidCommand(f"{text} - at `$.{field}`", code="invalid_arguments", field=field)


def _problem(text: str) -> str:
    what = "an exponent that no number can have" if "e" in text.lower() else "too many digits"
    limits = f"at most {EXPONENT_MAX} digits before the point, and as many zeros after it"
    return f"{_shown(text)} has {what}: it is to have {limits}"


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}…"
