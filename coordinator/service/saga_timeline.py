"""The timeline of a flow: the commands that it has emitted, and which of their steps are done and not undone.

The row of a flow counts its steps, and another release may have others. What was really done is here.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import ClassVar, Final

import msgspec

from coordinator.service.continuation import Continuation
from coordinator.service.declared_sagas import saga_of
from coordinator.service.rows import SELECTED_MAX, Leads, Ref, Row, RowSelection
from coordinator.service.saga_table import CODE_CHARACTERS_MAX, REASON_CHARACTERS_MAX, STEPS_TABLE
from coordinator.service.unit_of_work import UnitOfWork

_DONE: Final = frozenset({"applied", "unanswered"})
"""The statuses of a step that was done, or that may have been."""


def _flow_of(step: "SagaStep", models: Sequence[type[Row]]) -> Iterator[Ref[Row] | RowSelection[Row]]:
    """The row of a step's flow, and all lines of its timeline."""
    yield SagaStep.where(saga=step.saga, saga_id=step.saga_id, limit=SELECTED_MAX)
    for model in models:
        if (saga := saga_of(model)) is not None and saga.name == step.saga:
            yield model.at(step.saga_id)


class SagaStep(Row, table=STEPS_TABLE, key="command_id", index=(("saga", "saga_id"),)):
    """One command that a saga has emitted, and its outcome. `status` is an outcome's, `waiting`, `given_up`, or
    `unanswered`, until the answer comes that is too late.

    With the direction `resume` it is a person's verdict instead: the command is the operator's, `status` the verdict,
    and `error_message` the reason. An undoing step that this release does not have is `failed` with `unknown_step`: the
    id is of no command then.
    """

    __index_is_needed__: ClassVar[bool] = False
    __leads_to__: ClassVar[Leads | None] = staticmethod(_flow_of)

    command_id: str
    saga: str
    saga_id: int
    number: int
    name: str
    direction: str
    command_type: str
    status: str
    error_code: str | None = None
    error_message: str | None = None
    began_at: datetime
    ended_at: datetime | None = None


def steps_of(work: UnitOfWork, saga: str, saga_id: int, emitted: int) -> list[SagaStep]:
    """All lines of a flow's timeline, in their order; it has emitted so many commands.

    A flow before it may have had its id, if a service has removed that one's row: its lines are still there, with the
    same numbers, and began before.
    """
    found: list[SagaStep] = []
    after: str | None = None
    while True:
        page = work.select(SagaStep, limit=SELECTED_MAX, after=after, saga=saga, saga_id=saga_id)
        found += page
        if len(page) < SELECTED_MAX:
            break
        after = page[-1].command_id
    latest = {step.number: step for step in sorted(found, key=lambda step: step.began_at)}
    return [latest[number] for number in sorted(latest) if number <= emitted]


def is_awaited(work: UnitOfWork, step: SagaStep, emitted: int) -> bool:
    """Whether a flow that has emitted so many commands waits for this one, which waits for its outcome: it is the last
    one, and not that of a flow before, whose row a service has removed while it waited."""
    if step.number != emitted:
        return False
    latest = steps_of(work, step.saga, step.saga_id, emitted)[-1]
    return latest.began_at <= step.began_at or latest.status != "waiting"


def still_done(timeline: Iterable[SagaStep]) -> list[SagaStep]:
    """The commands whose steps are done and not undone, in their order.

    A step that is asked to be undone counts as undone, with those behind it, which have nothing to undo: a flow asks
    for the one before only when it is, and stops if it cannot be.
    """
    done: list[SagaStep] = []
    undone: list[SagaStep] = []
    before: SagaStep | None = None
    for step in timeline:
        if step.direction == "undo":
            undone = _from_last(done, step.name)
            done = done[: len(done) - len(undone)]
        elif step.direction == "resume":
            if before is not None and before.direction == "undo":
                done += undone[:1] if step.status == "again" else ()
            elif before is not None:
                done = [each for each in done if each is not before] + ([before] if step.status == "done" else [])
        elif step.status in _DONE:
            done.append(step)
        before = step
    return done


def _from_last(done: list[SagaStep], name: str) -> list[SagaStep]:
    """The last command of a step, and those behind it; none where it was not done after all."""
    place = next((place for place in reversed(range(len(done))) if done[place].name == name), len(done))
    return done[place:]


def answered(step: SagaStep, outcome: Continuation, now: datetime, status: str) -> SagaStep:
    """A step with its outcome."""
    error = outcome.error
    return msgspec.structs.replace(
        step,
        status=status,
        error_code=None if error is None else error.code[:CODE_CHARACTERS_MAX],
        error_message=None if error is None else short(error.message),
        ended_at=now,
    )


def short(text: str) -> str:
    """As much of a text as a reason has room for."""
    return text[:REASON_CHARACTERS_MAX]
