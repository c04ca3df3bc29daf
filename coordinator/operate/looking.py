"""One look at all lanes, for the command line: their databases, RabbitMQ, and the processes that are known."""

from collections.abc import Mapping, Sequence
from typing import Final

import click

from coordinator.operate.conditions import LaneCondition, full_queues, not_told, outbox_age_s, state_of
from coordinator.operate.effects_conditions import STUCK_S, effects_condition
from coordinator.operate.lane_status import LaneLooks, LaneStatus
from coordinator.operate.one_process import socket_of
from coordinator.operate.processes import SeenProcess, ask_all, checked_addresses
from coordinator.operate.queue_depth import EffectsDepth
from coordinator.service.outside_calls import effects_key

SAMPLE_S: Final = 0.5


def look_at(lanes: Sequence[str], urls: Sequence[str]) -> dict[str, LaneCondition]:
    """How these lanes do. `urls` are health endpoints of their processes. Raises ConfigurationError."""
    with LaneLooks(lanes) as looks:
        statuses = looks.look(SAMPLE_S)
    return _conditions(statuses, looks.depths, urls)


def note_conditions(
    statuses: Sequence[LaneStatus], depths: Mapping[str, EffectsDepth | None], urls: Sequence[str]
) -> None:
    """Note how lanes do of which these are the statuses, and the depths of the queues of their effects."""
    for status, condition in zip(statuses, _conditions(statuses, depths, urls).values(), strict=True):
        is_sampled = status.rate is not None or condition.state != "idle"
        status.state = condition.state if is_sampled else None
        status.why, status.effects = condition.why, condition.effects
        if status.state == "idle" and not condition.is_told:
            status.why = not_told()


def addresses_of(named: Sequence[str]) -> list[str]:
    """The health endpoints that somebody names, and those of OPERATIONS_COORDINATORS. Raises UsageError."""
    # The pages' settings load what no command needs.
    from coordinator.runtime.loading import setting_value  # noqa: PLC0415

    of_setting = (setting_value("OPERATIONS_COORDINATORS") or "").replace(",", " ").split()
    try:
        return checked_addresses((*of_setting, *named))
    except ValueError as error:
        raise click.UsageError(f"--coordinator, OPERATIONS_COORDINATORS: {error}") from None


def _conditions(
    statuses: Sequence[LaneStatus], depths: Mapping[str, EffectsDepth | None], urls: Sequence[str]
) -> dict[str, LaneCondition]:
    processes = ask_all(urls)
    full = full_queues({status.lane: status for status in statuses})
    return {
        status.lane: _condition(
            status,
            [each for each in processes if each.lane == status.lane],
            depths.get(status.lane),
            full.get(status.lane),
        )
        for status in statuses
    }


def _condition(
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
        is_told=socket_of(status.lane) is not None
        or any(not each.is_worker and each.state != "away" for each in processes),
    )
