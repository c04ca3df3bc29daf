"""How each lane does, in words: the same on pages and for the command line."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from msgspec import Struct

from coordinator.operate.effects_conditions import STUCK_S, EffectsCondition
from coordinator.operate.lane_status import LaneStatus
from coordinator.operate.move_status import in_words
from coordinator.operate.output import now
from coordinator.operate.processes import SeenProcess
from coordinator.service.text import counted


class LaneCondition(Struct, frozen=True, kw_only=True):
    """A lane: running, idle, paused, moved, suspended, stuck, or unknown, and why.

    `full` says whose commands its queue does not take. `can_be_asked`: its database answers. `is_told`: one of its
    processes says how it does. Nobody else knows that a lane is suspended while nothing waits in its queue.
    """

    lane: str
    state: str
    why: str | None
    waiting: int | None
    full: str | None = None
    effects: EffectsCondition | None = None
    can_be_asked: bool = True
    is_told: bool = True


def state_of(
    status: LaneStatus, backlog: int | None, processes: Sequence[SeenProcess], still_s: float
) -> tuple[str, str | None]:
    """What a lane does, and why, in words. For `still_s` nothing has been settled while something waited."""
    reasons = [each.reason for each in processes if each.state == "unready" and each.reason and not each.is_worker]
    if status.move is not None and status.move.step == "moved":
        return "moved", f"it {in_words(status.move)}"
    if status.is_paused:
        return "paused", status.paused
    if reasons:
        return "suspended", reasons[0]
    if status.errors:
        return _in_spite_of_errors(status), status.errors[0]
    if backlog and still_s >= STUCK_S:
        nobody = not status.consumers and not any(each.state == "active" for each in processes)
        why = "no coordinator consumes its queue" if nobody and status.consumers is not None else "nothing is settled"
        return "stuck", f"{counted(backlog, 'waits', 'wait')}, and {why}"
    return ("running" if status.rate else "idle"), None


def _in_spite_of_errors(status: LaneStatus) -> str:
    if status.rate:
        # What is away is only not to be reached from here.
        return "running"
    return "suspended" if status.sequence is not None else "unknown"


def none_kept(conditions: Collection[LaneCondition]) -> str:
    """That none of these lanes keeps its commands, as far as that is known."""
    untold = [each.lane for each in conditions if not each.is_told]
    if not untold:
        return "no lane is paused, suspended or stuck"
    lanes = f"lane {untold[0]} is" if len(untold) == 1 else f"lanes {', '.join(untold)} are"
    return f"no lane is paused or stuck; {not_told(lanes)}"


def not_told(subject: str = "it is") -> str:
    """What is said where nobody was asked who knows whether lanes are suspended."""
    return (
        f"whether {subject} suspended only a coordinator knows, and none was asked (--coordinator, "
        "OPERATIONS_COORDINATORS)"
    )


def full_queues(statuses: Mapping[str, LaneStatus]) -> dict[str, str]:
    """The lanes whose queues take no more, by the outboxes in which others' commands for them wait, in words.

    RabbitMQ counts a queue's messages, and its room in bytes: that it is full shows by what it refuses.
    """
    found: dict[str, str] = {}
    for status in statuses.values():
        for each in status.outbox or ():
            target = statuses.get(each.target)
            if target is None or not target.ready or _age_s(each.oldest_at) < STUCK_S:
                continue
            found[each.target] = (
                f"its queue is full for {counted(each.entries, 'command')} of lane {status.lane}, the first for "
                f"{_age_s(each.oldest_at):.0f} s (AMQP_QUEUE_BYTES_MAX)"
            )
    return found


def _age_s(at: datetime) -> float:
    return (now() - at).total_seconds()


def outbox_age_s(status: LaneStatus, target: str) -> float | None:
    """How old the oldest entry for a target is; None: there is none, or it is not known."""
    return next((_age_s(each.oldest_at) for each in status.outbox or () if each.target == target), None)
