"""Where a saga stands, why, and what to do, by its row, its steps, and the places of the command that it waits for."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, get_type_hints

import msgspec

from coordinator.operate.conditions import LaneCondition
from coordinator.operate.kept_lanes import KEPT, also_kept, kept_words, lane_why
from coordinator.operate.output import now
from coordinator.operate.places import Stop
from coordinator.service.lane_names import lane_of
from coordinator.service.rows import Row
from coordinator.service.saga import ENDED, Resumption, SagaRow
from coordinator.service.saga_timeline import SagaStep
from coordinator.service.service import Service
from coordinator.service.text import in_quotes

UNDER_WAY: Final = timedelta(seconds=5)
"""What was somewhere so lately may be between two places, and not lost."""


def standing_of(
    name: str,
    row: SagaRow,
    steps: Sequence[SagaStep],
    stops: Sequence[Stop],
    service: Service,
    conditions: Mapping[str, LaneCondition],
) -> dict[str, Any]:
    """Where a saga of this service stands, why, and what to do. `stops` are the places of its last step's command."""
    what = f"{name} {row.id}"
    reason = None if row.reason_code is None else f"{row.reason_code}: {row.reason}"
    last = steps[-1] if steps else None
    # The reason in the row is for the saga's owner; the letter has that for operators.
    letter = next((each for each in reversed(stops) if each.kind == "dead_letter"), None)
    last_why = reason if letter is None else letter.why
    if row.status == "needs_review":
        at = "" if last is None else f" at step {last.name} ({last.command_type} {last.command_id})"
        verdict = f"{_found_out(service, last, letter)}, and send the verdict on it: {_resumed(service, row, last)}"
        own = conditions.get(service.lane)
        return {
            "is_stuck": True,
            "where": f"{what} stopped{at} and needs a review",
            "why": last_why,
            # Its lane takes the verdict.
            "todo": f"{verdict}; {kept_words(own)}" if own is not None and own.state in KEPT else verdict,
        }
    if row.status in ENDED:
        return {"is_stuck": False, "where": f"{what} has ended: it is {row.status}", "why": last_why, "todo": None}
    if not stops or last is None:
        return {"is_stuck": False, "where": f"{what} is {row.status}", "why": reason, "todo": None}
    stop = _keeping(stops)
    why, todo = stop.why, stop.todo
    # What was told of a step that failed, and what was settled before a loss, keeps nothing.
    lost = _lost(stops, last, conditions) if why is None or stop.kind == "dead_letter" else None
    if lost is not None:
        stop, why = stops[-1], lost
        # Who emitted what is lost has withdrawn it; an answer that was settled was given up where it is.
        emitter = stops[-2].lane if len(stops) > 1 and stop.kind != "settled" else service.lane
        todo = (
            f"see by whom (coordinator audit {emitter} --operators), and find out whether the step {_what(last)}; then "
            f"send the verdict on it: {_resumed(service, row, last, even_if_running=True)}. {_restored(stop, last)}"
        )
    if why is not None and (own := conditions.get(service.lane)) is not None and lane_why(own) not in why:
        # Its own lane takes the answer.
        why, todo = also_kept(why, todo, own)
    direction = "undoing step" if last.direction == "undo" else "step"
    waits = f"{direction} {last.name} ({last.command_type}) waits"
    where = f"{what} is {row.status}: {waits}. {stop.text[:1].upper()}{stop.text[1:]}"
    return {"is_stuck": why is not None, "where": where, "why": why, "todo": todo}


def _keeping(stops: Sequence[Stop]) -> Stop:
    """The place that keeps a saga waiting: where its step's command stands or, once that has failed, the answer of
    that."""
    kept = [each for each in stops if each.why is not None]
    if not kept:
        return stops[-1]
    return kept[-1] if kept[0].kind == "dead_letter" else kept[0]


def _lost(stops: Sequence[Stop], step: SagaStep, conditions: Mapping[str, LaneCondition]) -> str | None:
    """That nobody has what a saga waits for, in words; None: somebody has it, or may.

    It would be in a queue or with a worker, and is not: `idle` is only what was seen to be so. What a lane settles one
    after another was in its queue a moment ago, and so only an idle one has lost a command for all that is seen.
    """
    stop = stops[-1]
    condition = conditions.get(stop.lane)
    since = max([step.began_at, *(each.at for each in stops if each.at is not None)])
    if stop.kind == "settled" and stop.command_id != step.command_id and (now() - since) >= UNDER_WAY:
        # Whether it was discarded, or is with the broker again, its lane's database does not say.
        failed = "has failed, and has no dead letter: that was discarded, or a replay is on its way"
        return f"nobody goes on with it: the answer to it {failed if stop.status == 'failed' else f'was {stop.status}'}"
    if condition is None or condition.waiting != 0 or (now() - since) < UNDER_WAY:
        return None
    if stop.kind in ("queue", "cancelled") and condition.state == "idle":
        return f"nobody has it: lane {stop.lane} is idle, and nothing waits in its queue. It was withdrawn, or lost"
    effects = condition.effects
    # Of a call of which nobody knows when it was asked for nobody knows, either, whether it is one.
    if stop.kind != "outside" or stop.at is None or effects is None or condition.state not in ("idle", "running"):
        return None
    if effects.may_have((now() - stop.at).total_seconds()):
        return None
    others = "those that are under way were asked for later" if effects.oldest_s else "none waits or is under way"
    return f"nobody has its call: {others}; nothing waits in the queue of lane {stop.lane}. It was withdrawn, or lost"


def _restored(stop: Stop, step: SagaStep) -> str:
    """What helps where the cause is a backup that was restored. An outcome that is lost itself cannot be told again."""
    if stop.kind == "outside" or stop.command_id == step.command_id:
        return f"Where the database of lane {stop.lane} was restored from a backup: docs/OPERATING.md, Backups"
    return "After a restored backup: coordinator continue"


def _resumed(service: Service, row: SagaRow, step: SagaStep | None, *, even_if_running: bool = False) -> str:
    """The line that takes a saga up again. It is refused until an operator has filled in what he knows of the step."""
    types = [each.command.type for each in service.handlers if issubclass(each.command, Resumption)]
    of_model = [each.command.type for each in service.handlers if _resumes(each.command, each.handle, type(row))]
    said = {
        "id": row.id,
        "step": "" if step is None else step.command_id,
        "verdict": "…",
        "reason": "…",
        **({"even_if_running": True} if even_if_running else {}),
    }
    known = of_model or types
    if not known:
        return f"service {service.name} declares no command for it (a Resumption)"
    arguments = msgspec.json.encode(said).decode()
    line = f"coordinator send {known[0]} {in_quotes(arguments)}"
    return f"{line} ({_verdicts(step)})"


def _found_out(service: Service, step: SagaStep | None, letter: Stop | None) -> str:
    """What is to be known before a verdict is sent. A step that another lane refused may have left something there."""
    lane = None if step is None else lane_of(step.command_type.partition(".")[0], service.tenant)
    # A letter has the reason: nothing of it was applied.
    first = (
        ""
        if letter is not None or lane in (None, service.lane)
        else f"first settle what needs a review in lane {lane} (docs/OPERATING.md, What needs a person); then "
    )
    return f"{first}find out whether that step {_what(step)}"


def _what(step: SagaStep | None) -> str:
    return "is undone" if step is not None and step.direction == "undo" else "was done"


def _verdicts(step: SagaStep | None) -> str:
    if step is not None and step.direction == "undo":
        return "verdict: done, or again, which has it undone anew"
    return (
        'verdict: done, with its "result" if the saga takes something from that; not_done; or again, which asks for '
        "the step anew, and takes back nothing of what was done"
    )


def _resumes(command: type[Any], handle: Any, model: type[Row]) -> bool:
    try:
        return issubclass(command, Resumption) and get_type_hints(handle).get("return") is model
    except (NameError, TypeError):
        return False
