"""Where a saga stands, why, and what to do, by its row, its steps, and the places of the command that it waits for."""

from collections.abc import Sequence
from typing import Any

from coordinator.operate.places import Stop
from coordinator.service.saga import ENDED, SagaRow
from coordinator.service.saga_timeline import SagaStep


def standing_of(name: str, row: SagaRow, steps: Sequence[SagaStep], stops: Sequence[Stop]) -> dict[str, Any]:
    """Where a saga stands, why, and what to do."""
    what = f"{name} {row.id}"
    reason = None if row.reason_code is None else f"{row.reason_code}: {row.reason}"
    last = steps[-1] if steps else None
    if row.status == "needs_review":
        at = "" if last is None else f" at step {last.name} ({last.command_type} {last.command_id})"
        todo = "a person decides (Resumption): find out whether that step was done, and send the verdict"
        return {"is_stuck": True, "where": f"{what} stopped{at} and needs a review", "why": reason, "todo": todo}
    if row.status in ENDED:
        return {"is_stuck": False, "where": f"{what} has ended: it is {row.status}", "why": reason, "todo": None}
    if not stops or last is None:
        return {"is_stuck": False, "where": f"{what} is {row.status}", "why": reason, "todo": None}
    stop = next((each for each in stops if each.why is not None), stops[-1])
    direction = "undoing step" if last.direction == "undo" else "step"
    waits = f"{direction} {last.name} ({last.command_type}) waits"
    where = f"{what} is {row.status}: {waits}. {stop.text[:1].upper()}{stop.text[1:]}"
    return {"is_stuck": stop.why is not None, "where": where, "why": stop.why, "todo": stop.todo}
