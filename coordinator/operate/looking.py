"""One look at all lanes, for the command line: their databases, RabbitMQ, and the processes that are known."""

from collections.abc import Sequence
from typing import Final

from coordinator.operate.broker import Broker, broker
from coordinator.operate.conditions import (
    STUCK_S,
    EffectsDepth,
    LaneCondition,
    effects_condition,
    full_queues,
    outbox_age_s,
    state_of,
)
from coordinator.operate.one_process import socket_of
from coordinator.operate.processes import SeenProcess, ask_all
from coordinator.operate.status import LaneStatus, collect
from coordinator.runtime.settings import BrokerSettings, load
from coordinator.service.errors import ConfigurationError, Unavailable
from coordinator.service.outside_calls import effects_key
from coordinator.transports.rabbitmq.effects.retry_queues import DELAYS_S, retry_key
from coordinator.transports.rabbitmq.topology import queue_name

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


def effects_depth(connected: Broker, lane: str) -> EffectsDepth | None:
    """The calls to the outside of a lane's service that wait in queues; None: it has no queue for them."""
    first = connected.depth(queue_name(effects_key(lane)))
    if first is None:
        return None
    back = [connected.depth(retry_key(lane, length_s)) for length_s in DELAYS_S.values()]
    waiting = first.ready + sum(each.ready for each in back if each is not None)
    return EffectsDepth(waiting=waiting, consumers=first.consumers)


def _effects(lanes: Sequence[str]) -> dict[str, EffectsDepth | None]:
    if not lanes:
        return {}
    try:
        with broker(load(BrokerSettings)) as connected:
            return {lane: effects_depth(connected, lane) for lane in lanes}
    except (Unavailable, ConfigurationError):
        # `collect` has said so of each lane.
        return {}
