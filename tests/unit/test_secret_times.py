"""Which secret of idempotency keys counts: of all gateways of a lane none uses another than the others."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.access.secret_times import SecretTimes
from coordinator.stores.idempotency import SECRET_COUNTS_S, SECRET_SETTLES_S, counts_from, first_secrets, new_secret
from coordinator.stores.lane_tables import IdempotencySecret

START = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
"""The moment 0.0."""
FIRST = IdempotencySecret(id=1, secret="1" * 64, made_at=START - timedelta(days=1))


def made(number: int, moment: float) -> IdempotencySecret:
    return new_secret(number).replace(made_at=START + timedelta(seconds=moment))


def look(
    times: SecretTimes, secrets: Sequence[IdempotencySecret], moment: float, took: float = 0.0, clock: float = 0.0
) -> bool:
    """`clock` is by how much that of the gateway's machine is ahead."""
    ended = moment + took
    return times.take(
        sorted(secrets, key=lambda each: -each.id),
        began=moment,
        ended=ended,
        now=START + timedelta(seconds=ended + clock),
    )


def used(times: SecretTimes, moment: float) -> int | None:
    known = times.at(moment)
    return known[0].id if known else None


def test_nothing_counts_before_they_are_read_and_the_first_one_counts_at_once() -> None:
    times = SecretTimes()
    assert times.at(0) == ()
    assert times.is_old(0)
    rows = [row.replace(made_at=START) for row in first_secrets(is_new=False)]
    assert not look(times, rows, 0)
    assert times.at(0) == (rows[1], rows[0])


def test_what_was_read_counts_for_so_long() -> None:
    times = SecretTimes()
    look(times, [FIRST], 0, took=5)
    assert used(times, SECRET_COUNTS_S - 1) == 1
    assert used(times, SECRET_COUNTS_S) is None
    assert times.is_old(SECRET_COUNTS_S)
    look(times, [FIRST], SECRET_COUNTS_S + 1)
    assert used(times, SECRET_COUNTS_S + 1) == 1


def test_one_takes_over_from_the_other() -> None:
    times = SecretTimes()
    second = made(2, 7)
    look(times, [FIRST], 5)
    assert look(times, [FIRST, second], 10, took=1)
    assert not look(times, [FIRST, second], 15)
    for moment in range(16, 700, 5):
        look(times, [FIRST, second], moment)
    assert times.at(604.9) == (FIRST,)
    assert times.at(605) == times.at(640.9) == ()
    assert times.at(641) == (second, FIRST)
    assert counts_from(second) == START + timedelta(seconds=637)


def test_one_that_is_forgotten_counts_to_its_end_and_is_none_of_before_then() -> None:
    times = SecretTimes()
    look(times, [FIRST], 0)
    second = made(2, 1)
    for moment in range(5, 700, 5):
        look(times, [second], moment)
    assert used(times, 599) in (1, None)
    times = SecretTimes()
    look(times, [FIRST], 0)
    look(times, [second], 5)
    assert times.at(599) == (FIRST,)
    for moment in range(10, 700, 5):
        look(times, [second], moment)
    assert times.at(700) == (second,)


def test_a_database_of_before_has_the_secrets_of_before() -> None:
    times = SecretTimes()
    look(times, [FIRST, made(2, -9000)], 0)
    assert used(times, 0) == 2
    look(times, [FIRST], 5)
    assert used(times, 5) == 1
    other = made(2, 6)
    look(times, [FIRST, other], 10)
    assert used(times, 10) == 1


@pytest.mark.parametrize("clock", [-60, 0, 60])
def test_one_that_starts_meanwhile_uses_neither_too_long_nor_too_early(clock: float) -> None:
    times = SecretTimes()
    second = made(2, 0)
    look(times, [FIRST, second], 300, clock=clock)
    assert used(times, 300) == 1
    assert used(times, SECRET_COUNTS_S) is None
    for moment in range(301, 800, 7):
        look(times, [FIRST, second], moment, clock=clock)
    assert used(times, SECRET_COUNTS_S + SECRET_SETTLES_S - 1) is None
    assert used(times, SECRET_COUNTS_S + SECRET_SETTLES_S + 121) == 2


_CHANGES = st.lists(st.floats(0, 3000), max_size=4)
_LOOKS = st.lists(st.tuples(st.floats(-500, 4000), st.floats(0, 30), st.floats(0, 1)), min_size=1, max_size=60)
_GATEWAYS = st.lists(st.tuples(_LOOKS, st.floats(-60, 60)), min_size=1, max_size=3)


@given(_CHANGES, _GATEWAYS, st.booleans())
def test_no_two_gateways_ever_differ(
    changes: list[float], gateways: list[tuple[list[tuple[float, float, float]], float]], is_forgetful: bool
) -> None:
    """Each looks when it can, for as long as it takes; their clocks and that of the database differ."""
    secrets = [FIRST, *(made(number + 2, moment) for number, moment in enumerate(sorted(changes)))]

    def there(moment: float) -> list[IdempotencySecret]:
        found = [each for each in secrets if each.made_at <= START + timedelta(seconds=moment)]
        return found[-1:] if is_forgetful else found

    ends = dict[int, float]()
    begins = dict[int, float]()
    for looks, clock in gateways:
        for number, since, until in _uses(looks, clock, there):
            begins[number] = min(since, begins.get(number, since))
            ends[number] = max(until, ends.get(number, until))
    for former, following in pairwise(sorted(begins)):
        assert begins[following] - ends[former] >= SECRET_SETTLES_S - 1.0


def _uses(looks: list[tuple[float, float, float]], clock: float, there: object) -> Iterator[tuple[int, float, float]]:
    """Which secret a gateway used, from a moment to another, to within a second."""
    assert callable(there)
    times = SecretTimes()
    ends = -1000.0
    planned = list[tuple[float, float, float]]()
    for began, took, share in sorted(looks):
        if began >= ends:
            planned.append((began, took, share))
            ends = began + took
    for (began, took, share), following in zip(planned, [*planned[1:], (5000.0, 0, 0)], strict=True):
        look(times, there(began + took * share), began, took, clock)
        ended = following[0] + following[1]
        moment = began + took
        while moment < ended:
            number = used(times, moment)
            if number is not None:
                yield number, moment, moment
            moment += 1.0
