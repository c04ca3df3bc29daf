"""How many requests a token bucket lets through, whatever comes when."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from coordinator.runtime.token_bucket import TokenBucket

RATES = st.integers(1, 50)
BURSTS = st.integers(1, 20)
TICKS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 8)), max_size=60)
"""Sixteenths of a second until the next request, and what it costs beside its token: no float is rounded."""


@given(RATES, BURSTS, TICKS)
def test_in_no_time_more_is_taken_than_was_full_and_came_in_it(
    rate: int, burst: int, requests: list[tuple[int, int]]
) -> None:
    """A request may cost more than there is once, and is paid for before the next one."""
    now, bucket = 0.0, TokenBucket(rate, burst, 0.0)
    taken: list[tuple[float, int]] = []
    for ticks, others in requests:
        now += ticks / 16
        if bucket.take(now):
            bucket.pay(others)
            taken.append((now, 1 + others))
    for first in range(len(taken)):
        spent = 0
        for at, cost in taken[first:]:
            # Whatever the last one costs beside its token is its debt.
            assert spent + 1 <= burst + rate * Fraction(at - taken[first][0])
            spent += cost


@given(RATES, BURSTS, TICKS)
def test_nobody_is_refused_who_keeps_to_what_he_was_told(
    rate: int, burst: int, requests: list[tuple[int, int]]
) -> None:
    now, bucket = 0.0, TokenBucket(rate, burst, 0.0)
    for ticks, others in requests:
        now += ticks / 16
        taken = bucket.take(now)
        if not taken:
            told_s = bucket.more_in_s
            assert bucket.left == 0
            assert not bucket.take(now + told_s * 0.9)
            now += told_s + 1e-6
            assert bucket.take(now)
        elif bucket.left:
            assert bucket.take(now)
        bucket.pay(others)


def test_it_begins_full_and_gets_no_fuller() -> None:
    bucket = TokenBucket(2, 3, 100.0)
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert (bucket.left, bucket.more_in_s) == (0, 0.5)
    assert [bucket.take(1000.0) for _ in range(4)] == [True, True, True, False]


def test_a_clock_that_goes_back_adds_nothing_and_takes_nothing() -> None:
    bucket = TokenBucket(1, 2, 100.0)
    assert bucket.take(100.0)
    assert bucket.take(50.0)
    assert not bucket.take(50.0)
    assert not bucket.take(100.5)
    assert bucket.take(101.0)
