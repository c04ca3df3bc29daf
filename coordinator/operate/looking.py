"""One look at all lanes, for the command line: their databases, RabbitMQ, and the processes that are known."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import click
from msgspec import UnsetType

from coordinator.operate.conditions import (
    NOBODY,
    LaneCondition,
    cause_of,
    full_queues,
    outbox_age_s,
    own_processes,
    state_of,
)
from coordinator.operate.effects_conditions import STUCK_S, effects_condition
from coordinator.operate.lane_status import LaneLooks, LaneStatus
from coordinator.operate.processes import TELL_HELD, SeenProcess, ask_all, checked_addresses
from coordinator.operate.queue_depth import EffectsDepth
from coordinator.service.outside_calls import effects_key

SAMPLE_S: Final = 0.5


def look_at(lanes: Sequence[str], urls: Sequence[str]) -> dict[str, LaneCondition]:
    """How these lanes do. `urls` are health endpoints of their processes. Raises ConfigurationError."""
    with LaneLooks(lanes) as looks:
        found = _conditions(looks.look(SAMPLE_S), looks.depths, ask_all(urls))
        if _is_too_short(SAMPLE_S, found.values()):
            found = _conditions(looks.look(STUCK_S), looks.depths, ask_all(urls))
    return found


def look_and_note(looks: LaneLooks, sample_s: float, urls: Sequence[str]) -> tuple[list[LaneStatus], list[str]]:
    """The statuses of lanes, with how they do, and which of the processes at `urls` do not answer, and why.

    Raises ConfigurationError.
    """
    found = looks.look(sample_s)
    silent = note_conditions(found, looks.depths, urls)
    if _is_too_short(sample_s, found):
        found = looks.look(STUCK_S)
        silent = note_conditions(found, looks.depths, urls)
    return found, silent


def _is_too_short(sample_s: float, found: Iterable[LaneCondition | LaneStatus]) -> bool:
    """Whether a look may have taken a lane for stuck whose batches take longer: it has settled nothing meanwhile, and
    works."""
    return sample_s < STUCK_S and any(each.state == "stuck" and NOBODY not in (each.why or "") for each in found)


def note_conditions(
    statuses: Sequence[LaneStatus], depths: Mapping[str, EffectsDepth | UnsetType | None], urls: Sequence[str]
) -> list[str]:
    """Note how lanes do of which these are the statuses, and the depths of the queues of their effects.

    Returns which of the processes at `urls` do not answer, and why.
    """
    processes = ask_all(urls)
    for status, condition in zip(statuses, _conditions(statuses, depths, processes).values(), strict=True):
        status.state, status.why, status.effects = condition.state, condition.why, condition.effects
        status.full = condition.full
        own = [each for each in processes if each.lane == status.lane and not each.is_worker]
        if any(each.state in TELL_HELD for each in own):
            status.held = sum(each.held for each in own)
    return [f"{each.url}: {each.reason}" for each in processes if each.state == "away"]


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
    statuses: Sequence[LaneStatus],
    depths: Mapping[str, EffectsDepth | UnsetType | None],
    processes: Sequence[SeenProcess],
) -> dict[str, LaneCondition]:
    every = {status.lane: status for status in statuses}
    full = full_queues(every, every.keys() - depths.keys())
    return {
        status.lane: _condition(
            status,
            processes,
            depths.get(status.lane),
            full.get(status.lane),
            is_brokered=status.lane in depths,
        )
        for status in statuses
    }


def _condition(
    status: LaneStatus,
    processes: Sequence[SeenProcess],
    depth: EffectsDepth | UnsetType | None,
    full: str | None,
    *,
    is_brokered: bool,
) -> LaneCondition:
    """How a lane does that was looked at once."""
    own = [each for each in processes if each.lane == status.lane]
    backlog = None if status.ready is None else status.ready + sum(each.held for each in own if not each.is_worker)
    # In the time of one look it is stuck if it has settled nothing of what waits.
    still_s = STUCK_S if status.rate == 0 else 0.0
    perhaps_own = own_processes(status.lane, processes)
    state, why = state_of(status, backlog, perhaps_own, still_s, is_local=not is_brokered)
    return LaneCondition(
        lane=status.lane,
        state=state,
        why=why,
        waiting=backlog,
        cause=cause_of(state, status, perhaps_own),
        full=full,
        effects=effects_condition(depth, perhaps_own, outbox_age_s(status, effects_key(status.lane)))
        if is_brokered
        else status.effects,
        can_be_asked=status.sequence is not None,
        is_local=not is_brokered,
    )
