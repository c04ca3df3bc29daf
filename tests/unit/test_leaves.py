"""What is in a value is found the same, one by one and many at a time."""

from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from coordinator.service import leaves as leaves_module
from coordinator.service.leaves import leaves, runs


class Branch(Struct):
    one: Any
    two: Any = 0


@dataclass
class Twig:
    one: Any


class Fork(NamedTuple):
    one: Any
    two: Any


ENDS = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.text(max_size=2), st.decimals(allow_nan=False))
VALUES = st.recursive(
    ENDS,
    lambda within: st.one_of(
        st.lists(within, max_size=4),
        st.lists(within, max_size=4).map(tuple),
        st.sets(ENDS, max_size=4),
        st.frozensets(ENDS, max_size=4),
        st.dictionaries(ENDS, within, max_size=4),
        st.dictionaries(ENDS, within, max_size=4).map(MappingProxyType),
        st.builds(Branch, within, within),
        st.builds(Twig, within),
        st.builds(Fork, within, within),
    ),
    max_leaves=20,
)


@given(VALUES)
def test_runs_have_the_leaves_of_a_value_and_no_others(value: Any) -> None:
    found = list(runs(value))
    assert Counter((type(each), repr(each)) for run in found for each in run) == Counter(
        (type(each), repr(each)) for each in leaves(value)
    )
    assert all(len(set(map(type, run))) == 1 for run in found), "each is of one type"


@given(VALUES)
def test_what_is_whole_is_a_leaf_and_is_not_looked_into(value: Any) -> None:
    whole = (Branch, Fork)
    found = [each for run in runs(value, whole) for each in run]
    assert Counter((type(each), repr(each)) for each in found) == Counter(
        (type(each), repr(each)) for each in leaves(value, whole)
    )
    assert list(leaves([Branch([value])], whole)) == [Branch([value])]


def test_a_value_within_itself_ends_as_an_error() -> None:
    endless: list[Any] = [1]
    endless += [endless, endless]
    with pytest.raises(RecursionError):
        list(runs(endless))


def test_what_is_too_wide_or_too_deep_to_be_looked_at_at_once_is_looked_at_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leaves_module, "_LEVEL_VALUES_MAX", 10)
    wide = [[Decimal(number)] for number in range(20)]
    assert {each for run in runs(wide) for each in run} == set(map(Decimal, range(20)))
    deep: Any = Decimal(1)
    for _ in range(leaves_module._LEVELS_MAX + 5):
        deep = [deep]
    assert [each for run in runs(deep) for each in run] == [Decimal(1)]
