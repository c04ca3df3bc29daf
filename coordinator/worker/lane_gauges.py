"""What a lane's metrics say of its present state. They are read when somebody asks, and cost the lane nothing."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import get_args

from prometheus_client import Gauge

from coordinator.lane.delivery import Suspension, SuspensionCause
from coordinator.lane.lane import Lane

SUSPENDED = Gauge(
    "coordinator_lane_suspended", "1 while the lane waits for this cause, and applies nothing.", ["lane", "cause"]
)
PARKED_KEYS = Gauge("coordinator_lane_parked_keys", "Keys that wait behind a failed command.", ["lane"])
PARKED_COMMANDS = Gauge("coordinator_lane_parked_commands", "Commands that wait for such a key.", ["lane"])
PARKED_AGE = Gauge("coordinator_lane_parked_age_seconds", "How long the first of these keys has waited.", ["lane"])
MOVE_AGE = Gauge("coordinator_lane_move_age_seconds", "How long ago an unfinished move of the lane began.", ["lane"])
EARLY_AGE = Gauge(
    "coordinator_lane_session_wait_seconds",
    "How long a command has waited for an earlier one of its publisher session.",
    ["lane"],
)


def show_state(
    name: str, lane: Lane, suspension: Callable[[], Suspension | None], early_s: Callable[[], float]
) -> None:
    """Have the metrics of this lane show its state from now on. `suspension` is what keeps it waiting now, and
    `early_s` how long a command has waited for an earlier one of its publisher session."""

    def is_suspended(cause: SuspensionCause) -> float:
        now = suspension()
        return float(now is not None and now.cause == cause)

    for cause in get_args(SuspensionCause):
        SUSPENDED.labels(name, cause).set_function(partial(is_suspended, cause))
    PARKED_KEYS.labels(name).set_function(lambda: lane.parked_keys)
    PARKED_COMMANDS.labels(name).set_function(lambda: lane.parked_commands)
    PARKED_AGE.labels(name).set_function(lambda: _age_s(lane.parked_since))
    MOVE_AGE.labels(name).set_function(lambda: _age_s(lane.moving_since))
    EARLY_AGE.labels(name).set_function(early_s)


def _age_s(since: datetime | None) -> float:
    return 0.0 if since is None else max(0.0, (datetime.now(UTC) - since).total_seconds())
