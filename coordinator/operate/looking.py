"""One look at all lanes, for the command line: their databases, RabbitMQ, and the processes that are known."""

from collections.abc import Sequence
from typing import Final

from coordinator.operate.broker import broker
from coordinator.operate.conditions import (
    STUCK_S,
    LaneCondition,
    effects_condition,
    full_queues,
    outbox_age_s,
    state_of,
)
from coordinator.operate.one_process import socket_of
from coordinator.operate.processes import SeenProcess, ask_all
from coordinator.operate.queue_depth import EffectsDepth
from coordinator.operate.status import LaneStatus, collect
from coordinator.runtime.settings import BrokerSettings, load
from coordinator.service.errors import ConfigurationError, Unavailable
from coordinator.service.outside_calls import effects_key

SAMPLE_S: Final = 0.5


def look_at(lanes: Sequence[str], urls: Sequence[str]) -> dict[str, LaneCondition]:
    """How these lanes do. `urls` are health endpoints of their processes. Raises ConfigurationError."""
    statuses = {status.lane: status for status in collect(tuple(lanes), SAMPLE_S)}
    processes = ask_all(urls)
    depths = _effects([lane for lane in lanes if socket_of(lane) is None])
    full = full_queues(statuses)
    return {
        lane: condition(status, [each for each in processes if each.lane == lane], depths.get(lane), full.get(lane))
        for lane, status in statuses.items()
    }


def condition(
    status: LaneStatus, processes: Sequence[SeenProcess], depth: EffectsDepth | None, full: str | None
) -> LaneCondition:
    """How a lane does that was looked at once."""
    backlog = (
        None if status.ready is None else status.ready + sum(each.held for each in processes if not each.is_worker)
    )
    # In the time of one look it is stuck if it has settled nothing of what waits.
    state, why = state_of(status, backlog, processes, STUCK_S if status.rate == 0 else 0.0)
    return LaneCondition(
        lane=status.lane,
        state=state,
        why=why,
        waiting=backlog,
        full=full,
        effects=effects_condition(depth, processes, outbox_age_s(status, effects_key(status.lane))),
        can_be_asked=status.sequence is not None,
    )


def _effects(lanes: Sequence[str]) -> dict[str, EffectsDepth | None]:
    if not lanes:
        return {}
    try:
        with broker(load(BrokerSettings)) as connected:
            return {lane: connected.effects_depth(lane) for lane in lanes}
    except (Unavailable, ConfigurationError):
        # `collect` has said so of each lane.
        return {}
