"""Each error that suspends a lane has a cause, which metrics and alerts name."""

import pytest

from coordinator.lane.basis import Blocked, HeldByMove, Outdated, PausedByOperator
from coordinator.lane.delivery import SuspensionCause
from coordinator.lane.high_water import CommitsLost, MarkOutdated
from coordinator.lane.pauses import Pauses
from coordinator.runtime.settings import LaneSettings
from coordinator.stores.port import BatchFault, BatchRefused, Conflict, NotAdmitted, StoreUnavailable


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        (StoreUnavailable, "database"),
        (NotAdmitted, "database"),
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
