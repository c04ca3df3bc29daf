"""Each error that suspends a lane has a cause, which metrics and alerts name."""

import pytest

from coordinator.lane.basis import Blocked, HeldByMove, Outdated, PausedByOperator
from coordinator.lane.delivery import SuspensionCause
from coordinator.lane.high_water import CommitsLost, MarkOutdated
from coordinator.lane.pauses import Pauses
from coordinator.runtime.settings import LaneSettings
from coordinator.stores.port import AnotherLanes, BatchFault, BatchRefused, Conflict, NotAdmitted, StoreUnavailable


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        (StoreUnavailable, "database"),
        (NotAdmitted, "database"),
        (AnotherLanes, "database"),
        (MarkOutdated, "database"),
        (BatchFault, "refusal"),
        (BatchRefused, "refusal"),
        (Conflict, "conflict"),
        (PausedByOperator, "paused"),
        (HeldByMove, "move"),
        (Blocked, "blocked"),
        (CommitsLost, "commits_lost"),
        (Outdated, "newer_release"),
    ],
)
def test_an_error_has_its_cause(kind: type[Exception], cause: SuspensionCause) -> None:
    error = kind.__new__(kind)
    assert (Pauses(LaneSettings()).after(error).cause, Pauses(LaneSettings()).idle(error).cause) == (cause, cause)


def test_a_lane_that_is_held_by_a_move_looks_again_in_a_moment() -> None:
    # Until then it keeps its queue from the coordinator of the other database: clients wait for it.
    pauses = Pauses(LaneSettings())
    held = [pauses.after(HeldByMove("about to move")) for _ in range(20)]
    assert {each.delay_s for each in held} == {0.1}
    assert all(each.is_blocked for each in held)
    assert pauses.after(PausedByOperator("by hand")).delay_s == 1.0


@pytest.mark.parametrize("kind", [CommitsLost, Outdated, NotAdmitted, AnotherLanes])
def test_a_lane_that_another_process_may_apply_is_kept_for_longer_each_time_and_tried_each_second(
    kind: type[Exception],
) -> None:
    pauses, settings = Pauses(LaneSettings()), LaneSettings()

    def kept_s(channel_number: int) -> float:
        """How long it is kept on a channel."""
        pauses.offered(channel_number)
        waited_s = 0.0
        while True:
            suspension = pauses.after(kind("unfit"))
            assert suspension.is_unfit
            assert suspension.is_blocked == (kind is CommitsLost)
            assert 0 < suspension.delay_s <= 1.0, "an operator may act"
            waited_s += suspension.delay_s
            if suspension.stands_back:
                return round(waited_s, 9)

    assert [kept_s(number) for number in range(7)] == [0.05, 0.2, 0.8, 3.2, *[settings.retry_delay_s_max] * 3]
    pauses.another_had_it()
    assert kept_s(8) == 0.05, "that one has died, and may be back"
    assert kept_s(9) == 0.2
    pauses.succeeded()
    assert kept_s(10) == 0.05
    # A channel that ends by itself begins anew.
    assert [kept_s(number) for number in (11, 12)] == [0.2, 0.8]
    pauses.offered(13)
    pauses.after(kind("unfit"))
    assert kept_s(14) == 3.2
    assert not pauses.idle(kind("unfit")).stands_back, "nothing waits for another process"
