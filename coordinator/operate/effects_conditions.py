"""How each service's calls to the outside do, in words: the same on pages and for the command line."""

from collections.abc import Sequence
from typing import Final

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from coordinator.operate.processes import SeenProcess
from coordinator.operate.queue_depth import EffectsDepth
from coordinator.registry import registry
from coordinator.service.errors import ConfigurationError
from coordinator.service.text import counted
from coordinator.transports.inprocess.at_hand import CallsAtHand

STUCK_S: Final = 3.0
"""A lane in whose queue something waits, and that has settled nothing for this long, is stuck. An entry of an outbox
that is older, while RabbitMQ answers, has been refused."""
CLOCKS_APART_S: Final = 15.0
"""So far the clocks of a lane and of a worker, by which the age of a call is known, may be apart."""
NO_WORKER: Final = "no effect worker runs"
NAME_THEM: Final = "name them with --coordinator URL, or in OPERATIONS_COORDINATORS"


class EffectsCondition(Struct, frozen=True, kw_only=True):
    """A service's calls to the outside. `state`: working, idle, provider_away, no_worker, or unknown: how many wait, or
    what some of its workers do, was not asked, or not answered. One that is `working` has a `why` where its provider
    has not answered yet, or has not answered the last calls.

    `waiting` are those in queues and, where the addresses of workers are known, those that wait at one for their turn
    or their next attempt. `under_way` are those that workers carry out. `is_whole`: the broker, and each worker that it
    counts, said how many they have.
    """

    state: str
    why: str | None = None
    waiting: int | None = None
    under_way: int | None = None
    oldest_s: float | None = None
    is_whole: bool = False

    def may_have(self, asked_ago_s: float) -> bool:
        """Whether a call that was asked for so long ago may be one of these, or one of which nobody has said."""
        if not self.is_whole or self.waiting != 0:
            return True
        if not self.oldest_s:
            return bool(self.under_way)
        return asked_ago_s <= self.oldest_s + CLOCKS_APART_S


def unsaid_depth(lane: str) -> UnsetType | None:
    """How many calls wait where the broker did not say: UNSET; None: its service makes none."""
    try:
        return UNSET if registry().service(lane).effects is not None else None
    except ConfigurationError:
        # Of one that cannot be imported here nobody knows.
        return UNSET


def effects_condition(
    depth: EffectsDepth | UnsetType | None, processes: Sequence[SeenProcess], outbox_s: float | None
) -> EffectsCondition | None:
    """A service's calls to the outside; None: it makes none. `outbox_s` is the age of the oldest that is not sent.
    `processes` are its own (`own_processes`).

    `depth` None: its service has no queue for them; UNSET: the broker did not say.
    """
    workers = [each for each in processes if each.is_worker]
    if depth is None and not workers:
        return None
    awake = [each for each in workers if each.state != "away"]
    under_way = sum(each.held for each in awake) if awake else None
    oldest_s = max((each.oldest_s for each in awake), default=None) if awake else None
    waiting = depth.waiting + sum(each.waiting for each in awake) if isinstance(depth, EffectsDepth) else None
    unseen = _unseen(depth, processes)
    is_whole = isinstance(depth, EffectsDepth) and unseen is None
    found = EffectsCondition(state="idle", waiting=waiting, under_way=under_way, oldest_s=oldest_s, is_whole=is_whole)
    if under_way or waiting:
        found = replace(found, state="working")
    elif depth is UNSET:
        found = replace(found, state="unknown", why="how many wait is not known: the broker did not say")
    if any(each.state == "provider_away" for each in awake):
        why = "the provider does not answer: workers call it only now and then, until it does"
        return replace(found, state="provider_away", why=why)
    reasons = [each.reason for each in awake if each.state == "unready" and each.reason]
    if reasons and len(reasons) == len(awake):
        return replace(found, state="no_worker", why=f"no effect worker can work: {reasons[0]}")
    if isinstance(depth, EffectsDepth) and not depth.consumers and (depth.waiting or (outbox_s or 0) >= STUCK_S):
        # The broker ends the connection of one that hangs, or counts it no longer.
        silent = _unanswering(processes)
        return replace(found, state="no_worker", why=NO_WORKER if silent is None else f"{NO_WORKER}; {silent}")
    troubles = [each.reason for each in awake if each.state == "working" and each.reason]
    # Of one that has nothing to do it is the past.
    if troubles and found.state == "working":
        return replace(found, why=troubles[0])
    return found if unseen is None or found.state != "idle" else replace(found, state="unknown", why=unseen)


def effects_in_process(lane: str, calls: CallsAtHand) -> EffectsCondition | None:
    """The same of a lane in one process without a broker, as its worker there knows it."""
    worker = SeenProcess(
        url="",
        lane=lane,
        state="provider_away" if calls.is_provider_away else "working",
        is_worker=True,
        held=calls.under_way,
        waiting=calls.waiting,
        oldest_s=round(calls.oldest_s, 1),
        reason=calls.trouble,
    )
    return effects_condition(EffectsDepth(waiting=0, consumers=1), [worker], None)


def _unseen(depth: EffectsDepth | UnsetType | None, processes: Sequence[SeenProcess]) -> str | None:
    """Which of the workers that have a queue's effects did not say whether they carry any out; None: all did."""
    unseen = depth.consumers if isinstance(depth, EffectsDepth) else 0
    unseen -= sum(each.is_worker and each.state != "away" for each in processes)
    if unseen <= 0:
        return None
    who = _unanswering(processes)
    if who is None:
        who = f"{counted(unseen, 'worker was', 'workers were')} not asked: {NAME_THEM}"
    return f"whether calls are under way is not known: {who}"


def _unanswering(processes: Sequence[SeenProcess]) -> str | None:
    """Which processes do not answer that are workers, or may be, in words; None: all answer."""
    # Whose a process is that has never answered nobody knows.
    silent = [each.url for each in processes if each.state == "away" and (each.is_worker or each.lane is None)]
    return f"{', '.join(silent)} {'does' if len(silent) == 1 else 'do'} not answer" if silent else None
