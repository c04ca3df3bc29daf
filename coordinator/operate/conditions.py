"""How each lane does, and each service's calls to the outside, in words: the same on pages and for the command line."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from coordinator.operate.output import now
from coordinator.operate.processes import SeenProcess
from coordinator.operate.queue_depth import EffectsDepth
from coordinator.operate.status import LaneStatus
from coordinator.service.text import counted

STUCK_S: Final = 3.0
"""A lane in whose queue something waits, and that has settled nothing for this long, is stuck. An entry of an outbox
that is older, while RabbitMQ answers, has been refused."""


class EffectsCondition(Struct, frozen=True, kw_only=True):
    """A service's calls to the outside. `state`: working, idle, provider_away, no_worker, or unknown.

    `waiting` are those in queues and, where the addresses of workers are known, those that wait at one for their turn
    or their next attempt. `under_way` are those that workers carry out.
    """

    state: str
    why: str | None = None
    waiting: int | None = None
    under_way: int | None = None
    oldest_s: float | None = None


class LaneCondition(Struct, frozen=True, kw_only=True):
    """A lane: running, idle, paused, suspended, stuck, or unknown, and why.

    `full` says whose commands its queue does not take. `can_be_asked`: its database answers.
    """

    lane: str
    state: str
    why: str | None
    waiting: int | None
    full: str | None = None
    effects: EffectsCondition | None = None
    can_be_asked: bool = True


def state_of(
    status: LaneStatus, backlog: int | None, processes: Sequence[SeenProcess], still_s: float
) -> tuple[str, str | None]:
    """What a lane does, and why, in words. For `still_s` nothing has been settled while something waited."""
    reasons = [each.reason for each in processes if each.state == "unready" and each.reason and not each.is_worker]
    if status.is_paused:
        return "paused", status.paused
    if reasons:
        return "suspended", reasons[0]
    if status.errors:
        return ("suspended" if status.sequence is not None else "unknown"), status.errors[0]
    if backlog and still_s >= STUCK_S:
        nobody = not status.consumers and not any(each.state == "active" for each in processes)
        why = "no coordinator consumes its queue" if nobody and status.consumers is not None else "nothing is settled"
        return "stuck", f"{counted(backlog, 'waits', 'wait')}, and {why}"
    return ("running" if status.rate else "idle"), None


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


def effects_condition(
    depth: EffectsDepth | None, processes: Sequence[SeenProcess], outbox_s: float | None
) -> EffectsCondition | None:
    """A service's calls to the outside; None: it makes none. `outbox_s` is the age of the oldest that is not sent."""
    workers = [each for each in processes if each.is_worker]
    if depth is None and not workers:
        return None
    awake = [each for each in workers if each.state != "away"]
    under_way = sum(each.held for each in awake) if awake else None
    oldest_s = max((each.oldest_s for each in awake), default=None) if awake else None
    waiting = None if depth is None else depth.waiting + sum(each.waiting for each in awake)
    found = EffectsCondition(
        state="working" if under_way or waiting else "idle", waiting=waiting, under_way=under_way, oldest_s=oldest_s
    )
    if any(each.state == "provider_away" for each in awake):
        why = "the provider does not answer: workers call it only now and then, until it does"
        return replace(found, state="provider_away", why=why)
    reasons = [each.reason for each in awake if each.state == "unready" and each.reason]
    if reasons and len(reasons) == len(awake):
        return replace(found, state="no_worker", why=f"no effect worker can work: {reasons[0]}")
    if depth is not None and not depth.consumers and (depth.waiting or (outbox_s or 0) >= STUCK_S):
        return replace(found, state="no_worker", why="no effect worker runs: start one")
    return found


def _age_s(at: datetime) -> float:
    return (now() - at).total_seconds()


def outbox_age_s(status: LaneStatus, target: str) -> float | None:
    """How old the oldest entry for a target is; None: there is none, or it is not known."""
    return next((_age_s(each.oldest_at) for each in status.outbox or () if each.target == target), None)
