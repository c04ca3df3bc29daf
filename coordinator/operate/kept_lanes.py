"""Lanes in which what waits goes on waiting: why, and what helps."""

from collections.abc import Iterable, Sequence
from typing import Final

from coordinator.lane.publisher_order import SESSION_GAP
from coordinator.operate.conditions import NOBODY, UNSEEN_ACTIVE, LaneCondition
from coordinator.operate.suspended_todo import suspended_todo
from coordinator.service.text import counted

KEPT: Final = frozenset({"paused", "moved", "suspended", "stuck"})
"""States of a lane in which what waits for it goes on waiting."""

ASK_OTHERS: Final = "bring back what does not answer, or name it where it was not asked (--coordinator URL)"

SEND_ONE: Final = (
    "send the lane a command, and look again: coordinator drain {lane} --timeout-s 5; or name the coordinator that has "
    "it (--coordinator URL)"
)


def lane_why(condition: LaneCondition) -> str:
    """What keeps the commands of a lane that is kept, or of which it is not known."""
    if condition.state == "unknown":
        return _unknown_words([condition.lane], condition.why)
    return f"lane {condition.lane} is {condition.state}: {condition.why}"


def lane_todo(condition: LaneCondition) -> str | None:
    """What helps such a lane; None: nothing that is known."""
    lane = condition.lane
    match condition.state:
        case "paused":
            start = f"{_start(condition)}; and " if condition.why and NOBODY in condition.why else ""
            return f"{start}once the reason is over: coordinator resume {lane}"
        case "stuck" | "unknown" if condition.why and "no coordinator" in condition.why:
            return _start(condition)
        case "suspended":
            return suspended_todo(lane, condition.cause)
        case "unknown":
            # Where all are named, and answer, nothing is away.
            return SEND_ONE.format(lane=lane) if condition.why == UNSEEN_ACTIVE else ASK_OTHERS
        case "stuck":
            return _stuck_todo(condition)
    return None


def _stuck_todo(condition: LaneCondition) -> str:
    if condition.why and SESSION_GAP in condition.why:
        return "have that sent, if its publisher has it: else the lane gives it up, and goes on by itself"
    # One process says it in its metrics alone.
    waits = f"; or the first command waits {SESSION_GAP} (coordinator_lane_session_wait_seconds)"
    where = f"look at the coordinator of lane {condition.lane}: its /readyz and its log say why"
    return f"{where}{waits if condition.is_local else ''}"


def _start(condition: LaneCondition) -> str:
    """What helps a lane whose queue nobody consumes."""
    lane = condition.lane
    itself = f"start the process that runs lane {lane}; where it runs, its /readyz says why it is cut off"
    return itself if condition.is_local else f"start one, with its account: coordinator run {lane}"


def also_kept(why: str | None, todo: str | None, condition: LaneCondition | None) -> tuple[str | None, str | None]:
    """What keeps something by itself, and what helps, with the same of its lane, where that is kept as well: what an
    operator orders there is done once the lane goes on."""
    if condition is None or condition.state not in KEPT:
        return why, todo
    its_why, its_todo = lane_why(condition), lane_todo(condition)
    if why is None:
        return its_why, its_todo
    if condition.state == "suspended" and condition.why is not None and condition.why in why:
        # One broker, or whatever, keeps both.
        return why, todo or its_todo
    if todo is not None and its_todo is not None:
        todo = f"{todo}; and for lane {condition.lane}: {its_todo}"
    return f"{why}; {its_why}", todo or its_todo


def waiting_words(conditions: Iterable[LaneCondition], none: str = "no lane") -> str:
    """Which of these lanes keep what waits in them, and why; or that none does, as far as anybody was asked. `none` is
    how none of them is called."""
    every = list(conditions)
    kept = [kept_words(each) for each in every if each.state in KEPT]
    unknown: dict[str | None, list[str]] = {}
    for each in every:
        if each.state == "unknown":
            unknown.setdefault(each.why, []).append(each.lane)
    kept += [_unknown_words(lanes, why) for why, lanes in unknown.items()]
    return "; ".join(kept) or f"{none} is paused, suspended or stuck"


def kept_words(condition: LaneCondition) -> str:
    """Why commands wait in a lane, and what helps."""
    many = None if condition.waiting is None else counted(condition.waiting, "message waits", "messages wait")
    wait = "how many messages wait there is not known" if many is None else f"{many} there"
    help_it = "" if (todo := lane_todo(condition)) is None else f" ({todo})"
    return f"lane {condition.lane} is {condition.state} ({condition.why}), and {wait}{help_it}"


def _unknown_words(lanes: Sequence[str], why: str | None) -> str:
    does = f"lane {lanes[0]} does" if len(lanes) == 1 else f"lanes {', '.join(lanes)} do"
    return f"how {does} is not known: {why}"
