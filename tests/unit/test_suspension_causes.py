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
