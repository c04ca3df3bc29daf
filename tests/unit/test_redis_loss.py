"""What the runs of a counter in Redis say of the numbers that somebody remembers."""

import pytest

from coordinator.transports.redis.loss import Loss, RunPlace, counted_of
from coordinator.transports.redis.lost_messages import LOST, report_lost
from coordinator.transports.redis.missing import given_out
from coordinator.transports.redis.outcomes import decoded_message, encoded_message
from coordinator.transports.redis.reading import merged
from coordinator.transports.redis.scripts import RUNS_MAX


@pytest.mark.parametrize(
    ("last", "runs", "place", "lost"),
    [
        (9, b"a=1", ("a", 9), None),
        (8, b"a=1", ("a", 9), Loss("", 9, 9)),
        # Restarted with all of it, or with less, and others were added since.
        (20, b"a=1 b=10", ("a", 9), None),
        (20, b"a=1 b=7", ("a", 9), Loss("b", 7, 9)),
        (20, b"a=1 b=7 c=15", ("a", 6), None),
        (20, b"a=1 b=7 c=12", ("b", 15), Loss("c", 12, 15)),
        # Made anew, by the same process and by another one.
        (0, b"a=1", ("a", 3), Loss("", 1, 3)),
        (5, b"b=1", ("a", 3), Loss("b", 1, 3)),
        (0, b"", ("a", 3), Loss("", 1, 3)),
        (500, b"x=300 y=400", ("a", 9), None),
        # Of a time before that run, and restarted since, once and twice.
        (20, b"x=1 y=10", ("a", 15), Loss("y", 10, 15)),
        (90, b"x=1 y=10 z=50", ("a", 15), Loss("y", 10, 15)),
        # Forgotten among many others: nothing is claimed.
        (500, b" ".join(b"x%d=%d" % (at, at) for at in range(1, RUNS_MAX + 1)), ("a", 450), None),
    ],
)
def test_a_loss_shows_by_where_a_run_ended(last: int, runs: bytes, place: tuple[str, int], lost: Loss | None) -> None:
    assert counted_of(last, runs).lost(RunPlace(*place)) == lost


def test_what_the_parts_of_a_process_see_of_one_loss_counts_once() -> None:
    lost = LOST.labels("seats-seen-by-two")._value
    for seen, counted in [
        (Loss("b", 7, 9), 3),
        (Loss("b", 7, 9), 3),
        (Loss("b", 7, 8), 3),
        # As far as another part had come.
        (Loss("b", 7, 11), 5),
        # The same file was put back once more, or a counter was deleted twice.
        (Loss("c", 7, 9), 8),
        (Loss("", 7, 9), 11),
        (Loss("", 7, 9), 14),
    ]:
        report_lost("seats-seen-by-two", seen)
        assert lost.get() == counted, seen


@pytest.mark.parametrize(
    ("missing", "last", "jumps", "lost"),
    [
        ((4, 6), b"9", b"", [(4, 6)]),
        ((4, 6), b"5", None, [(4, 5)]),
        ((4, 6), b"3", None, []),
        ((4, 6), None, None, []),
        # Some or all of them were passed over.
        ((4, 99), b"100", b"4=100", []),
        ((4, 99), b"100", b"1=3 6=100", [(4, 5)]),
        ((4, 99), b"100", b"6=50 60=90 100=200", [(4, 5), (50, 59), (90, 99)]),
        ((4, 99), b"100", b"2=8", [(8, 99)]),
        # What somebody has written there.
        ((4, 6), b"9", b"a=b", []),
        ((4, 6), b"many", b"", []),
        ((4, 6), b"9", b"7", []),
    ],
)
def test_of_missing_numbers_those_were_lost_that_were_given_out(
    missing: tuple[int, int], last: bytes | None, jumps: bytes | None, lost: list[tuple[int, int]]
) -> None:
    assert given_out(missing, last, jumps) == lost


@pytest.mark.parametrize("correlation_id", [None, "1", "a\nb", "\x00é"])
@pytest.mark.parametrize("is_pack", [True, False])
def test_a_message_of_outcomes_is_read_as_it_was_written(correlation_id: str | None, is_pack: bool) -> None:
    message = encoded_message(correlation_id, b"[1]\n", is_pack=is_pack)
    assert decoded_message(message) == (is_pack, correlation_id, b"[1]\n")


def test_of_two_streams_nothing_is_taken_beyond_what_is_known_of_both() -> None:
    public = [[b"1-0", []], [b"2-0", []], [b"5-0", []]]
    system = [[b"3-0", []], [b"7-0", []]]

    def read(count: int) -> list[bytes]:
        return [entry.id for entry in merged([(public[:count], False), (system[:count], True)], count)]

    assert read(9) == [b"1-0", b"2-0", b"3-0", b"5-0", b"7-0"]
    assert read(3) == [b"1-0", b"2-0", b"3-0", b"5-0"]
    assert read(2) == [b"1-0", b"2-0"]
    assert read(1) == [b"1-0"]
