"""What a lane does, in words, from what is known of it."""

import pytest

from coordinator.operate.conditions import state_of
from coordinator.operate.lane_status import LaneStatus


@pytest.mark.parametrize(
    ("sequence", "rate", "state"),
    [(7, 500.0, "running"), (7, 0.0, "suspended"), (7, None, "suspended"), (None, None, "unknown")],
)
def test_a_lane_that_settles_commands_runs_whatever_cannot_be_reached(
    sequence: int | None, rate: float | None, state: str
) -> None:
    # Such as one in an application's process, which takes no orders.
    status = LaneStatus(lane="warehouse", sequence=sequence, rate=rate, errors=["nothing listens"])
    assert state_of(status, None, [], 0.0) == (state, "nothing listens")
