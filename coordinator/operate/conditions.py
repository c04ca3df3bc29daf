"""How each lane does, in words: the same on pages and for the command line."""

from collections.abc import Container, Mapping, Sequence
from datetime import datetime
from typing import Final

from msgspec import Struct

from coordinator.lane.delivery import SuspensionCause
from coordinator.operate.effects_conditions import STUCK_S, EffectsCondition
from coordinator.operate.lane_status import LaneStatus
from coordinator.operate.move_status import in_words
from coordinator.operate.output import now
from coordinator.operate.processes import SeenProcess
from coordinator.service.text import counted
from coordinator.stores.clocks import CLOCK_OF_LANE

UNSAMPLED: Final = "it was looked at once: whether it settles anything shows at the next look"
UNASKED: Final = (
    "nothing was settled meanwhile; whether it is idle or suspended its coordinator knows: name that with "
    "--coordinator URL, or in OPERATIONS_COORDINATORS"
)
UNSEEN_ACTIVE: Final = (
    "nothing was settled meanwhile. No coordinator that answers has the lane: one learns by the next command that it "
    "has it, as after a start (coordinator drain LANE sends it one). If another one has it, that knows how it does: "
    "name it with --coordinator URL, or in OPERATIONS_COORDINATORS"
)
NOBODY: Final = "no coordinator consumes its queue"


class LaneCondition(Struct, frozen=True, kw_only=True):
    """A lane: running, idle, paused, moved, suspended, stuck, or unknown, and why.

    `unknown`: what would tell was not asked, or did not answer; `idle` is only what was seen to be so. `waiting` None:
    nobody could count. `cause` is the kind of what a suspended one waits for, where its coordinator says so. `full`
    says whose commands its queue does not take. `can_be_asked`: its database answers. `is_local`: one process runs it,
    and no coordinator.
    """

    lane: str
    state: str
    why: str | None
    waiting: int | None
    cause: SuspensionCause | None = None
    full: str | None = None
    effects: EffectsCondition | None = None
    can_be_asked: bool = True
    is_local: bool = False


def state_of(
    status: LaneStatus, backlog: int | None, processes: Sequence[SeenProcess], still_s: float, *, is_local: bool
) -> tuple[str, str | None]:
    """What a lane does, and why, in words. For `still_s` nothing has been settled while something waited.

    `processes` are its own (`own_processes`). `is_local`: one process runs it, and no coordinator. What cannot be
    reached from here is no state of the lane.
    """
    own = [each for each in processes if not each.is_worker]
    reasons = [each.reason for each in _keeping(status, own)]
    if status.move is not None and status.move.step == "moved":
        return "moved", f"it {in_words(status.move)}"
    if status.is_paused:
        # Resumed, it would go on no further.
        behind = _nobody(status, own) or _all_silent(own)
        if is_local and status.ready is None:
            behind = behind or _first(status.errors)
        return "paused", status.paused if behind is None else f"{status.paused}; {behind}"
    if reasons or status.suspended is not None:
        return "suspended", status.suspended or reasons[0]
    if status.rate:
        return "running", _first(status.errors) or _told(own)
    if (why := _stuck(status, backlog, own, still_s)) is not None:
        return "stuck", why
    unseen = _unseen(status, own, is_local=is_local)
    return ("idle", _first(status.errors) or _told(own)) if unseen is None else ("unknown", unseen)


def cause_of(state: str, status: LaneStatus, processes: Sequence[SeenProcess]) -> SuspensionCause | None:
    """The kind of the reason that `state_of` tells of a suspended lane; None: nobody has said it."""
    if state != "suspended" or status.suspended is not None:
        return None if state != "suspended" else status.cause
    return next((each.cause for each in _keeping(status, processes)), None)


def _keeping(status: LaneStatus, processes: Sequence[SeenProcess]) -> list[SeenProcess]:
    """The coordinators that say why the lane applies nothing; none, where one of them is active."""
    own = [each for each in processes if not each.is_worker]
    # What keeps a standby does not keep the lane. One that has no epoch is none where the lane settles commands.
    if any(each.state == "active" for each in own):
        return []
    return [each for each in own if each.state == "unready" and each.reason and (each.epoch or not status.rate)]


def _stuck(status: LaneStatus, backlog: int | None, own: Sequence[SeenProcess], still_s: float) -> str | None:
    waits = f"{counted(backlog, 'waits', 'wait')}, and " if backlog else ""
    if (nobody := _nobody(status, own)) is not None:
        return f"{waits}{nobody}"
    if not backlog or still_s < STUCK_S:
        return None
    told = _told(own) or "nothing is settled"
    if told.startswith(CLOCK_OF_LANE):
        # That keeps no command.
        told = f"nothing is settled; {told}"
    return f"{waits}{_silent(own) or told}"


def _nobody(status: LaneStatus, own: Sequence[SeenProcess]) -> str | None:
    """That no coordinator consumes a lane's queue, and which does not answer; None: one does, or it is not known."""
    if status.consumers != 0 or any(each.state == "active" for each in own):
        return None
    # RabbitMQ ends the connection of one that hangs.
    silent = [each.url for each in own if each.state == "away"]
    unanswered = _unanswering(silent) if silent else None
    if unanswered is None and status.ready is None:
        # The process that runs it was asked how much waits there.
        unanswered = _first(status.errors)
    return NOBODY if unanswered is None else f"{NOBODY}; {unanswered}"


def own_processes(lane: str, processes: Sequence[SeenProcess]) -> list[SeenProcess]:
    """Those of a lane, and those that do not answer of which nobody knows whose they are: they may be its own."""
    return [each for each in processes if each.lane == lane or (each.lane is None and each.state == "away")]


def _unseen(status: LaneStatus, own: Sequence[SeenProcess], *, is_local: bool) -> str | None:
    """What was not seen of a lane that settles nothing, in words; None: enough was, and nothing keeps it."""
    away = _first(status.errors)
    if status.rate is None:
        return away or UNSAMPLED
    if is_local:
        return away if status.ready is None else None
    states = {each.state for each in own}
    if "active" in states:
        # One that answers, and holds nothing, is idle by its own word.
        return away if status.ready is None and any(each.held for each in own) else None
    if "away" in states:
        return _silent(own)
    return away or (UNSEEN_ACTIVE if states else UNASKED)


def _silent(own: Sequence[SeenProcess]) -> str | None:
    """Which coordinators do not answer, where no active one does; None: all do."""
    silent = [each for each in own if each.state == "away"]
    if not silent or any(each.state == "active" for each in own):
        return None
    known = [each.url for each in silent if each.lane is not None]
    if known:
        return f"its coordinator at {', '.join(known)} does not answer"
    return f"none of the coordinators that answer has it, and {_unanswering([each.url for each in silent])}"


def _told(own: Sequence[SeenProcess]) -> str | None:
    """What the active coordinator says of what waits there; None: nothing."""
    return next((each.reason for each in own if each.state == "active" and each.reason), None)


def _all_silent(own: Sequence[SeenProcess]) -> str | None:
    """Which coordinators do not answer, where none does; None: one does, which says that the lane is paused."""
    return _silent(own) if all(each.state == "away" for each in own) else None


def _unanswering(urls: Sequence[str]) -> str:
    return f"{', '.join(urls)} {'does' if len(urls) == 1 else 'do'} not answer"


def _first(texts: Sequence[str]) -> str | None:
    return texts[0] if texts else None


def full_queues(statuses: Mapping[str, LaneStatus], local: Container[str]) -> dict[str, str]:
    """The lanes whose queues take no more, by the outboxes in which others' commands for them wait, in words.

    RabbitMQ counts a queue's messages, and its room in bytes: that it is full shows by what it refuses. What goes from
    one of the `local` lanes, which one process runs, to another one stays in the outbox until that has settled it.
    """
    found: dict[str, str] = {}
    for status in statuses.values():
        for each in status.outbox or ():
            target = statuses.get(each.target)
            is_handed_over = each.target in local and status.lane in local
            if target is None or is_handed_over or not target.ready or _age_s(each.oldest_at) < STUCK_S:
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
