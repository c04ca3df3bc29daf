"""What the benchmark accepts as correct, and what it must not."""

import pytest
from msgspec.structs import replace

from tests.bench.invariants import State, verify

BEFORE = State(
    balance_sum=1000,
    version_sum=10,
    balance_min=100,
    orders=5,
    order_max=5,
    stock_sum=50,
    stock_min=5,
    sequence=7,
    logged=7,
)


def test_what_was_acknowledged_is_there() -> None:
    after = replace(BEFORE, balance_sum=1003)
    verdict = verify("hot-row", BEFORE, after, applied=3, unknown=0)
    assert (verdict.lost, verdict.violated) == (0, False)


def test_a_lost_update_is_found_and_counted() -> None:
    verdict = verify("hot-row", BEFORE, replace(BEFORE, balance_sum=1001), applied=3, unknown=5)
    assert (verdict.lost, verdict.violated) == (2, True)
    assert "2 of 3 acknowledged writes are lost" in verdict.text


@pytest.mark.parametrize(("unknown", "violated"), [(2, False), (1, True)])
def test_more_than_was_acknowledged_may_be_there_only_where_answers_are_missing(unknown: int, violated: bool) -> None:
    verdict = verify("hot-row", BEFORE, replace(BEFORE, balance_sum=1005), applied=3, unknown=unknown)
    assert verdict.violated is violated


def test_it_is_said_how_many_writes_had_no_answer() -> None:
    verdict = verify("hot-row", BEFORE, replace(BEFORE, balance_sum=1005), applied=3, unknown=64)
    assert verdict.text.endswith("5 higher (3 acknowledged; of at most 64 without an answer 2)")


def test_transfers_keep_the_sum() -> None:
    after = replace(BEFORE, version_sum=16)
    assert not verify("transfer", BEFORE, after, applied=3, unknown=0).violated
    assert verify("transfer", BEFORE, replace(after, balance_sum=999), applied=3, unknown=0).violated
    assert verify("transfer", BEFORE, replace(after, balance_min=-1), applied=3, unknown=0).violated
    assert verify("transfer", BEFORE, after, applied=4, unknown=0).lost == 1


def test_numbers_have_no_gaps() -> None:
    assert not verify("create", BEFORE, replace(BEFORE, orders=8, order_max=8), applied=3, unknown=0).violated
    assert verify("create", BEFORE, replace(BEFORE, orders=8, order_max=9), applied=3, unknown=0).violated


def test_nothing_is_sold_that_is_not_there() -> None:
    assert not verify("reserve", BEFORE, replace(BEFORE, stock_sum=47), applied=3, unknown=0).violated
    assert verify("reserve", BEFORE, replace(BEFORE, stock_sum=47, stock_min=-1), applied=3, unknown=0).violated
    assert verify("reserve", BEFORE, replace(BEFORE, stock_sum=48), applied=3, unknown=0).lost == 1


def test_the_log_has_every_sequence() -> None:
    after = replace(BEFORE, balance_sum=1003, sequence=10, logged=9)
    assert verify("hot-row", BEFORE, after, applied=3, unknown=0).violated
