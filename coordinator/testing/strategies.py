"""Hypothesis strategies for the commands of a service, from the types of their fields.

A command's type says what its arguments may be, by msgspec's `Meta`, which hypothesis does not read. Half of all values
are among a few small ones: commands that are to meet each other name the same rows.
"""

import re
from collections.abc import Callable
from datetime import UTC, timedelta
from decimal import Decimal
from typing import Any, Final, TypeVar

import msgspec
from hypothesis import HealthCheck, Phase, given, reject, seed, settings
from hypothesis import strategies as st
from msgspec import NODEFAULT, inspect

from coordinator.service.commands import INTEGER_MAX, C, validated
from coordinator.service.errors import InvalidCommand
from coordinator.service.text import VISIBLE

Strategy = st.SearchStrategy[Any]
V = TypeVar("V")

_FEW: Final = 4
"""How many small values there are."""
_LENGTH_MAX: Final = 20
"""The longest texts, lists and so on, where the type names no other limit."""
_YEAR: Final = timedelta(days=365)
_ODD_TEXTS: Final = ("", " ", "a ", " a", "a b", "A", "\u00e9", "e\u0301", "a\n", "\u0628\u200c\u0628")
"""What some client sends: texts that columns take as others, or not at all."""
_LETTERS: Final = st.characters(codec="utf-8", exclude_categories=("C", "Z"))


def commands_of(command: type[C]) -> st.SearchStrategy[C]:
    """Commands of this type, as a lane takes them. Raises TypeError for a field of a type that is not known here."""
    made = _struct(command, {})

    def checked(fields: Any) -> C:
        try:
            return validated(command(**fields))[0]
        except (InvalidCommand, TypeError, ValueError):
            # Of its `__post_init__`: no type says that.
            reject()

    return made.map(checked)


def drawn(strategy: st.SearchStrategy[V], number: int, seeded_with: int) -> list[V]:
    """So many values of a strategy, the same each time. Fewer where it has no more."""
    values: list[V] = []

    @seed(seeded_with)
    @settings(
        max_examples=number,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def draw(value: V) -> None:
        values.append(value)

    draw()
    return values


def _struct(model: type, known: dict[type, Strategy]) -> Strategy:
    """The fields of a struct, by name. Some of those that have a default are left out."""
    info = inspect.type_info(model)
    if not isinstance(info, inspect.StructType):
        raise TypeError(f"{model.__name__} is no struct")
    needed: dict[str, Strategy] = {}
    others: dict[str, Strategy] = {}
    for field in info.fields:
        has_default = field.default is not NODEFAULT or field.default_factory is not NODEFAULT
        try:
            (others if has_default else needed)[field.name] = _of(field.type, known)
        except TypeError as error:
            raise TypeError(f"{model.__name__}.{field.name}: {error}") from None
    return st.fixed_dictionaries(needed, optional=others)


def _of(kind: inspect.Type, known: dict[type, Strategy]) -> Strategy:
    make = _MAKERS.get(type(kind))
    if make is None:
        name = type(kind).__name__.removesuffix("Type")
        raise TypeError(f"no strategy is known for its type ({name}): give `simulate` commands of this type")
    return make(kind, known)


def _nested(kind: inspect.StructType, known: dict[type, Strategy]) -> Strategy:
    model = kind.cls

    def checked(fields: Any) -> Any:
        try:
            return model(**fields)
        except (TypeError, ValueError):
            # Of its `__post_init__`, as that of a command.
            reject()

    if model not in known:
        # A struct may be within itself.
        known[model] = st.deferred(lambda: made)
        made = _struct(model, known).map(checked)
    return known[model]


def _list(kind: Any, known: dict[type, Strategy]) -> Strategy:
    return st.lists(_of(kind.item_type, known), min_size=kind.min_length or 0, max_size=_longest(kind))


def _set(kind: Any, known: dict[type, Strategy]) -> Strategy:
    return st.sets(_of(kind.item_type, known), min_size=kind.min_length or 0, max_size=_longest(kind))


def _dictionary(kind: inspect.DictType, known: dict[type, Strategy]) -> Strategy:
    keys, values = _of(kind.key_type, known), _of(kind.value_type, known)
    return st.dictionaries(keys, values, min_size=kind.min_length or 0, max_size=_longest(kind))


def _longest(kind: Any) -> int:
    shortest: int = kind.min_length or 0
    longest: int | None = kind.max_length
    return shortest + _LENGTH_MAX if longest is None else min(longest, shortest + _LENGTH_MAX)


def _integers(kind: inspect.IntType, _: object) -> Strategy:
    step = kind.multiple_of or 1
    low, high = -INTEGER_MAX, INTEGER_MAX
    lows = [each for each in (kind.ge, None if kind.gt is None else kind.gt + 1) if each is not None]
    highs = [each for each in (kind.le, None if kind.lt is None else kind.lt - 1) if each is not None]
    low, high = -(-max(lows, default=low) // step), min(highs, default=high) // step
    first = min(max(low, 1), high)
    values = st.integers(first, min(high, first + _FEW - 1)) | st.integers(low, high)
    return values.map(lambda value: value * step)


def _floats(kind: inspect.FloatType, _: object) -> Strategy:
    low = kind.ge if kind.ge is not None else kind.gt
    high = kind.le if kind.le is not None else kind.lt
    values = st.floats(
        low,
        high,
        exclude_min=kind.ge is None and kind.gt is not None,
        exclude_max=kind.le is None and kind.lt is not None,
        allow_nan=False,
        allow_infinity=False,
    )
    return values if kind.multiple_of is None else _multiples(kind.multiple_of, low, high)


def _multiples(step: float, low: float | None, high: float | None) -> Strategy:
    first = 0 if low is None else int(low // step) + 1
    last = first + 1000 if high is None else int(high // step) - 1
    return st.integers(first, last).map(lambda value: value * step)


def _texts(kind: inspect.StrType, _: object) -> Strategy:
    shortest, longest = kind.min_length or 0, _longest(kind)
    readable = [letter * max(1, shortest) for letter in "abcdABCD1234"]
    if kind.pattern in (None, VISIBLE):
        # Hypothesis takes some ten seconds for VISIBLE, since it goes through each character that a pattern excludes.
        # It sees the pattern in a filter, too, if that is a pattern's own method.
        pattern = re.compile(kind.pattern or "")

        def is_taken(text: str) -> bool:
            return pattern.search(text) is not None

        odd = [text for text in _ODD_TEXTS if shortest <= len(text) <= longest and is_taken(text)]
        drawn_texts = st.text(_LETTERS, min_size=shortest, max_size=longest).filter(is_taken)
        return st.sampled_from(readable[:_FEW]) | (drawn_texts | st.sampled_from(odd) if odd else drawn_texts)
    limit = longest if kind.max_length is None else kind.max_length
    matching = st.from_regex(kind.pattern, alphabet=st.characters(codec="utf-8")).filter(
        lambda text: shortest <= len(text) <= limit
    )
    few = [text for text in readable if len(text) <= limit and re.search(kind.pattern, text)][:_FEW]
    # The same few for every field of this form.
    return st.sampled_from(few or drawn(matching, _FEW, 0)) | matching


def _moments(kind: inspect.DateTimeType, _: object) -> Strategy:
    return st.datetimes() if kind.tz is False else st.datetimes(timezones=st.just(UTC))


def _times_of_day(kind: inspect.TimeType, _: object) -> Strategy:
    return st.times() if kind.tz is False else st.times(timezones=st.just(UTC))


def _anything(*_: object) -> Strategy:
    return st.none() | st.booleans() | st.integers(0, _FEW) | st.text(_LETTERS, max_size=_LENGTH_MAX)


_MAKERS: Final[dict[type[inspect.Type], Callable[[Any, dict[type, Strategy]], Strategy]]] = {
    inspect.Metadata: lambda kind, known: _of(kind.type, known),
    inspect.AnyType: _anything,
    inspect.NoneType: lambda *_: st.none(),
    inspect.BoolType: lambda *_: st.booleans(),
    inspect.IntType: _integers,
    inspect.FloatType: _floats,
    # The few small ones have few digits, too.
    inspect.DecimalType: lambda *_: st.integers(1, _FEW).map(Decimal) | st.decimals(-(10**12), 10**12, places=2),
    inspect.StrType: _texts,
    inspect.BytesType: lambda kind, _: st.binary(min_size=kind.min_length or 0, max_size=_longest(kind)),
    inspect.UUIDType: lambda *_: st.uuids(),
    inspect.DateType: lambda *_: st.dates(),
    inspect.DateTimeType: _moments,
    inspect.TimeType: _times_of_day,
    inspect.TimeDeltaType: lambda *_: st.timedeltas(-_YEAR, _YEAR),
    inspect.LiteralType: lambda kind, _: st.sampled_from(kind.values),
    inspect.EnumType: lambda kind, _: st.sampled_from(list(kind.cls)),
    inspect.UnionType: lambda kind, known: st.one_of([_of(each, known) for each in kind.types]),
    inspect.ListType: _list,
    inspect.VarTupleType: lambda kind, known: _list(kind, known).map(tuple),
    inspect.TupleType: lambda kind, known: st.tuples(*(_of(each, known) for each in kind.item_types)),
    inspect.SetType: _set,
    inspect.FrozenSetType: lambda kind, known: _set(kind, known).map(frozenset),
    inspect.DictType: _dictionary,
    inspect.StructType: _nested,
    inspect.RawType: lambda *_: st.sampled_from([msgspec.Raw(text) for text in (b"null", b"1", b'{"id":1}')]),
}
"""By the kind of a type: its strategy. Those of structs that are known already come from `known`."""
