"""Timers, as the author of a service sees them: in the test kit."""

from datetime import UTC, datetime, timedelta

import pytest

from coordinator.stores.lane_tables import TIMERS_WAITING, LogEntry, Series, Timer
from coordinator.testing import LaneInMemory
from coordinator.testing.lane import NOW
from tests.support.timers import PAY_WITHIN, SEATS, Ask, Cancel, Hold, Pay, Seat

MS = timedelta(milliseconds=1)


@pytest.fixture
def lane() -> LaneInMemory:
    return LaneInMemory(SEATS)


def holder(lane: LaneInMemory, number: int = 1) -> str | None:
    seat = lane.row(Seat, number)
    assert seat is not None
    return seat.holder


def waiting(lane: LaneInMemory) -> int:
    """How many timers there are, as it is counted."""
    counted = lane.row(Series, TIMERS_WAITING)
    assert (0 if counted is None else counted.value) == len(lane.rows(Timer))
    return len(lane.rows(Timer))


def test_a_timer_becomes_a_command_when_it_is_due_and_not_before(lane: LaneInMemory) -> None:
    tried = lane.apply(Hold(id=1))
    assert [(each.type, each.at, each.target) for each in tried.emitted] == [
        ("seats.release", NOW + PAY_WITHIN, "seats")
    ]
    lane.now = NOW + PAY_WITHIN - MS
    assert lane.deliver() == []
    assert (holder(lane), waiting(lane)) == ("ada", 1)
    lane.now += MS
    (released,) = lane.deliver()
    assert (released.applied, holder(lane), waiting(lane)) == (True, None, 0)
    assert lane.deliver() == []


def test_the_id_of_the_command_is_the_one_that_emit_returned(lane: LaneInMemory) -> None:
    lane.apply(Hold(id=1))
    seat = lane.row(Seat, 1)
    (released,) = lane.advance(PAY_WITHIN)
    assert seat is not None
    assert released.outcome.command_id == seat.timer


def test_time_passes_from_timer_to_timer(lane: LaneInMemory) -> None:
    lane.apply(Hold(id=1, holder="late", after_ms=3000))
    lane.apply(Hold(id=2, holder="early", after_ms=1000))
    lane.apply(Hold(id=3, holder="early too", after_ms=1000))
    found = lane.advance(timedelta(seconds=2))
    assert [tried.result(Seat).id for tried in found] == [2, 3]
    released = [entry for entry in lane.rows(LogEntry) if entry.type == "seats.release"]
    assert {entry.settled_at for entry in released} == {NOW + timedelta(seconds=1)}
    assert lane.now == NOW + timedelta(seconds=2)
    assert [tried.result(Seat).id for tried in lane.advance(timedelta(seconds=1))] == [1]


def test_a_timer_that_is_taken_back_never_comes(lane: LaneInMemory) -> None:
    lane.apply(Hold(id=1))
    assert lane.apply(Pay(id=1)).applied
    assert waiting(lane) == 0
    assert lane.advance(timedelta(days=1)) == []
    assert holder(lane) == "ada"


def test_it_is_too_late_to_take_a_timer_back_that_is_on_its_way(lane: LaneInMemory) -> None:
    lane.apply(Hold(id=1))
    lane.apply(Hold(id=2, holder="bob", after_ms=PAY_WITHIN // MS + 1))
    lane.now += PAY_WITHIN
    lane.deliver()
    assert lane.apply(Pay(id=1)).rejected_with("too_late")
    assert lane.apply(Pay(id=2)).applied


@pytest.mark.parametrize("then", ["cancel", "cancel twice"])
def test_a_command_takes_back_what_it_has_set_itself(lane: LaneInMemory, then: str) -> None:
    assert lane.apply(Hold(id=1, then=then)).emitted == []
    assert waiting(lane) == 0
    assert lane.advance(timedelta(days=1)) == []


def test_the_timers_of_a_refused_command_are_undone(lane: LaneInMemory) -> None:
    assert lane.apply(Hold(id=1, then="refuse")).rejected_with("refused")
    assert waiting(lane) == 0


def test_what_a_refused_command_has_taken_back_waits_again(lane: LaneInMemory) -> None:
    lane.apply(Hold(id=1))
    assert lane.apply(Cancel(id=1, then_refuse=True)).rejected_with("refused")
    assert waiting(lane) == 1
    assert len(lane.advance(PAY_WITHIN)) == 1


def test_a_time_that_is_over_is_due_at_once(lane: LaneInMemory) -> None:
    (emitted,) = lane.apply(Hold(id=1, at=datetime(1900, 1, 1, tzinfo=UTC))).emitted
    assert emitted.at == NOW
    lane.apply(Hold(id=2, after_ms=-5))
    lane.apply(Hold(id=3, after_ms=0))
    assert [tried.result(Seat).id for tried in lane.deliver()] == [1, 2, 3]


def test_a_time_with_another_zone_and_a_part_of_a_millisecond(lane: LaneInMemory) -> None:
    at = datetime(2026, 1, 1, 14, 0, 0, 1, tzinfo=UTC) + timedelta(0)
    (emitted,) = lane.apply(Hold(id=1, at=at)).emitted
    assert emitted.at == datetime(2026, 1, 1, 14, 0, 0, 1000, tzinfo=UTC)


def test_an_effect_waits_for_its_time(lane: LaneInMemory) -> None:
    tried = lane.apply(Hold(id=1, then="remind"))
    assert [(each.target, each.at) for each in tried.emitted] == [
        ("seats", NOW + PAY_WITHIN),
        ("effects.seats", NOW + PAY_WITHIN),
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"at": datetime(2026, 1, 1, 14)}, "time zone"),  # noqa: DTZ001  # it is what is refused
        ({"after_ms": 10**15}, "end of time"),
    ],
)
def test_a_time_that_is_none_is_a_defect_of_the_handler(
    lane: LaneInMemory, arguments: dict[str, object], says: str
) -> None:
    tried = lane.apply(Hold(id=1, **arguments))  # type: ignore[arg-type]
    assert tried.failed_with("handler_error")
    assert says in (tried.reason or "")
    assert waiting(lane) == 0


def test_a_limit_brings_a_continuation_that_says_that_there_was_no_answer(lane: LaneInMemory) -> None:
    tried = lane.apply(Ask(id=1, limit_ms=500))
    assert [(each.type, each.at) for each in tried.emitted] == [
        ("trains.question", None),
        ("seats.answered", NOW + timedelta(milliseconds=500)),
    ]
    (answered,) = lane.advance(timedelta(milliseconds=500))
    assert answered.applied
    seat = lane.row(Seat, 1)
    assert seat is not None
    assert seat.answers == "nothing"


def test_a_limit_counts_from_when_the_command_is_due(lane: LaneInMemory) -> None:
    tried = lane.apply(Ask(id=1, limit_ms=500, after_ms=1000))
    assert [each.at for each in tried.emitted] == [NOW + 1000 * MS, NOW + 1500 * MS]


def test_taking_a_command_back_takes_its_limit_back(lane: LaneInMemory) -> None:
    lane.apply(Ask(id=1, limit_ms=500, after_ms=1000))
    assert waiting(lane) == 2
    assert lane.apply(Cancel(id=1)).applied
    assert waiting(lane) == 0


def test_a_limit_is_taken_back_though_the_command_is_on_its_way(lane: LaneInMemory) -> None:
    lane.apply(Ask(id=1, limit_ms=500))
    # Only the limit waited, and the command did not.
    assert lane.apply(Cancel(id=1)).rejected_with("too_late")
    assert waiting(lane) == 1


def test_a_limit_of_no_time_is_a_defect_of_the_handler(lane: LaneInMemory) -> None:
    assert "limit" in (lane.apply(Ask(id=1, limit_ms=0)).reason or "")
