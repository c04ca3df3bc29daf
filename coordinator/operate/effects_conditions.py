"""How each service's calls to the outside do, in words: the same on pages and for the command line."""

from collections.abc import Sequence
from typing import Final

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from coordinator.operate.processes import SeenProcess
from coordinator.operate.queue_depth import EffectsDepth
from coordinator.registry import registry
from coordinator.service.errors import ConfigurationError

STUCK_S: Final = 3.0
"""A lane in whose queue something waits, and that has settled nothing for this long, is stuck. An entry of an outbox
that is older, while RabbitMQ answers, has been refused."""


class EffectsCondition(Struct, frozen=True, kw_only=True):
    """A service's calls to the outside. `state`: working, idle, provider_away, no_worker, or unknown. One that is
    `working` has a `why` where its provider has not answered yet, or has not answered the last calls.

    `waiting` are those in queues and, where the addresses of workers are known, those that wait at one for their turn
    or their next attempt. `under_way` are those that workers carry out.
    """

    state: str
    why: str | None = None
    waiting: int | None = None
    under_way: int | None = None
    oldest_s: float | None = None


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

    `depth` None: its service has no queue for them; UNSET: the broker did not say.
    """
    workers = [each for each in processes if each.is_worker]
    if depth is None and not workers:
        return None
    awake = [each for each in workers if each.state != "away"]
    under_way = sum(each.held for each in awake) if awake else None
    oldest_s = max((each.oldest_s for each in awake), default=None) if awake else None
    waiting = depth.waiting + sum(each.waiting for each in awake) if isinstance(depth, EffectsDepth) else None
    found = EffectsCondition(state="idle", waiting=waiting, under_way=under_way, oldest_s=oldest_s)
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
        return replace(found, state="no_worker", why="no effect worker runs: start one")
    silent = [each.reason for each in awake if each.state == "working" and each.reason]
    # Of one that has nothing to do it is the past.
    return replace(found, why=silent[0]) if silent and found.state == "working" else found
