"""Sagas: one flow across several lanes that ends whole or is taken back.

No transaction spans two databases. A saga is a row in the database of the service that owns the flow, and a table of
steps. Each step is a command of some lane, emitted with a continuation, so that its outcome comes back as a command:
the handler of that command looks at the row and emits the next step. If a step is refused, the steps that were done are
undone, the last one first, each awaited. Every transition is one command of the owner's lane, applied once, in one
transaction with the commands that it emits: a crash anywhere repeats nothing and forgets nothing.

A step may have a `timeout`. If there is no answer by then, nobody knows whether it was done, so it is undone like one
that was. The undoing command goes the same way as the step's and arrives after it. An answer that comes later is noted
in the timeline and changes nothing.

The next release may have other steps. A flow finds its place by the name of the step that it waits for, does no step
that it has done, and undoes what it has done, whatever stands before that place now.

If nobody knows whether a step was done, or if a step cannot be taken back, the saga ends in `needs_review`: it does not
guess. Once a person knows, `resume` takes it up again where it stopped.

A service declares `Saga(...)`, gives the row the fields of `SagaRow`, calls `begin` in the handler that opens the flow,
`go_on` in the handler of the continuation, and `resume` in that of an operator's command.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Final, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from coordinator.service.commands import Command, Id
from coordinator.service.continuation import NO_ANSWER, Continuation
from coordinator.service.declared_sagas import DeclaredSaga, note_saga
from coordinator.service.errors import Rejected
from coordinator.service.ids import derived_command_id
from coordinator.service.outcome import NO_RESULT
from coordinator.service.rows import VersionedRow
from coordinator.service.saga_finish import Finish, finished
from coordinator.service.saga_table import CODE_CHARACTERS_MAX, REASON_CHARACTERS_MAX
from coordinator.service.saga_timeline import SagaStep, answered, is_awaited, short, steps_of, still_done
from coordinator.service.unit_of_work import UnitOfWork

SagaStatus = Literal["running", "compensating", "completed", "compensated", "needs_review"]
"""`compensated`: taken back, for the `reason`. `needs_review`: a step could not be taken back, or nobody knows whether
it was done; a person has to look."""

Verdict = Literal["again", "done", "not_done"]
"""A person's verdict on the step at which a saga stopped: try it again; it was done, or undone; it was not done, and
the saga is to be taken back."""

ENDED: Final = frozenset({"completed", "compensated", "needs_review"})
UNKNOWN_STEP: Final = "unknown_step"
"""The reason where a flow waits for, or has done, a step that this release has no more."""
_OF_ANY_STEP: Final = frozenset({("do", "not_done"), ("undo", "done")})
"""Verdicts on a step, by its direction, for which the release need not have it."""


class SagaRow(VersionedRow, review=("status", "needs_review")):
    """The fields that the row of every saga has.

    `position` counts the steps that are done and not undone, `emitted` the commands of its steps.
    """

    id: int
    status: str = "running"
    position: int = 0
    emitted: int = 0
    reason_code: str | None = None
    reason: str | None = None
    ended_at: datetime | None = None


S = TypeVar("S", bound=SagaRow)


class Resumption(Command, omit_defaults=True):
    """The base of operators' commands that take up a saga that is in `needs_review`, or that waits in vain.

    `step` is the `command_id` of the step at which it stopped, the last of its timeline. `result` is that step's
    result, if it is `done` and the saga takes something from it. `reason` is kept in the timeline. `even_if_running` is
    for a step that waits for an outcome that never comes. After a restored backup use `coordinator continue`: then the
    commands that follow have the ids that they had before.
    """

    id: Id
    step: Annotated[str, Meta(min_length=36, max_length=36)]
    verdict: Verdict
    reason: Annotated[str, Meta(min_length=1, max_length=REASON_CHARACTERS_MAX, pattern=r"\A[^\x00-\x1f\x7f]*\Z")]
    result: msgspec.Raw = NO_RESULT
    even_if_running: bool = False


class Step(Struct, Generic[S], frozen=True, kw_only=True):
    """One step.

    `do` makes its command from the saga's row, or None if there is nothing to do. `took` notes the command's result
    (JSON text) in the row; if it raises Rejected, the flow is taken back. `undo` makes the command that takes the step
    back; without it there is nothing to take back. A refusal of that command with a code of `undone` means that others
    took the step back: the saga goes on. A refusal of the step with a code of `review` means that nobody knows what was
    done: the saga then ends in `needs_review`.
    `timeout` is how long the saga waits for the answer before it takes this step back, too. `undo` must be able to do
    that: it sees the row without what `took` would have noted, makes a command of the same lane as the step's, and the
    handler of that command accepts that there may be nothing to undo. With `no_answer` in `review` the saga ends in
    `needs_review` instead.

    Raises ValueError for a timeout that leaves no time.
    """

    name: str
    do: Callable[[S], Command | None]
    took: Callable[[S, msgspec.Raw], S] | None = None
    undo: Callable[[S], Command | None] | None = None
    undone: frozenset[str] = frozenset()
    review: frozenset[str] = frozenset()
    timeout: timedelta | None = None

    def __post_init__(self) -> None:
        if self.timeout is not None and not (isinstance(self.timeout, timedelta) and self.timeout > timedelta()):
            raise ValueError(f"step {self.name}: a timeout is a timedelta above zero, not {self.timeout!r}")


class Saga(Generic[S]):
    """A declared flow. `finish` is its last step. It runs in the owner's own database and cannot be undone.

    It returns the row with what it notes there, or None; the saga saves the row. If `finish` raises Rejected before it
    has changed anything, the flow is taken back.

    Raises ValueError for two steps of one name.
    """

    def __init__(
        self,
        name: str,
        model: type[S],
        continuation: type[Continuation],
        steps: Sequence[Step[S]],
        finish: Finish[S],
    ) -> None:
        self._name = name
        self._model = model
        self._continuation = continuation
        self._steps = tuple(steps)
        for place, step in enumerate(self._steps):
            if self._place_of(step.name) != place:
                raise ValueError(f"saga {name}: two steps are named {step.name!r:.100}: flows find their places by it")
        self._finish = finish
        note_saga(model, DeclaredSaga(name, continuation, tuple(step.name for step in self._steps)))

    def _place_of(self, name: str) -> int | None:
        """Where the step of this name stands; None: this release has none."""
        return next((place for place, step in enumerate(self._steps) if step.name == name), None)

    def begin(self, work: UnitOfWork, row: S) -> S:
        """Add the row, and emit the first step."""
        return self._forward(work, work.add(row))

    def go_on(self, work: UnitOfWork, outcome: Continuation) -> S:
        """Note the outcome of a step, or that there was none in time, and emit the next one.

        Raises Rejected for a step of another saga, and for an answer that the saga does not wait for.
        """
        step = work.get(SagaStep, outcome.command_id)
        row = None if step is None or step.saga != self._name else work.get(self._model, step.saga_id)
        if step is None or row is None:
            raise self._unknown(outcome)
        if step.status != "waiting":
            return self._not_awaited(work, row, step, outcome)
        if row.status in ENDED or not is_awaited(work, step, row.emitted):
            raise self._unknown(outcome)
        work.save(answered(step, outcome, work.now, "unanswered" if outcome.is_unanswered else outcome.status))
        if step.direction == "undo":
            return self._undone(work, row, step, outcome)
        placed = self._placed(row, step)
        if placed is None:
            text = f"this release has no step `{step.name}`, for whose answer it waited"
            return self._ended(work, _because(row, UNKNOWN_STEP, text), "needs_review")
        return self._done(work, placed, outcome)

    def _placed(self, row: S, step: SagaStep) -> S | None:
        """The row at the place of a step: the release that emitted its command may have had other steps before it.

        None: this release does not have it.
        """
        place = self._place_of(step.name)
        return None if place is None else msgspec.structs.replace(row, position=place)

    def _still_done(self, work: UnitOfWork, row: S) -> list[SagaStep]:
        """The commands of the steps that a flow has done and not undone, in their order."""
        return still_done(steps_of(work, self._name, row.id, row.emitted)) if row.emitted else []

    def _not_awaited(self, work: UnitOfWork, row: S, step: SagaStep, outcome: Continuation) -> S:
        """An outcome, or its absence, is news for a step that does not wait for it."""
        if outcome.is_unanswered:
            # The answer was on its way at the same time, or a person was faster.
            return row
        if step.status != "unanswered":
            raise self._unknown(outcome)
        # Too late. If the step was done, the command that undoes it comes after it.
        work.save(answered(step, outcome, work.now, outcome.status))
        return row

    def _done(self, work: UnitOfWork, row: S, outcome: Continuation) -> S:
        """The step that the saga waited for is done, or refused, or not answered."""
        declared = self._steps[row.position]
        if outcome.is_unanswered:
            return self._unanswered(work, row, declared, outcome)
        if declared.timeout is not None:
            work.cancel(outcome.command_id)
        if outcome.status != "applied":
            return self._refused(work, row, outcome)
        row = msgspec.structs.replace(row, position=row.position + 1)
        try:
            if declared.took is not None:
                row = declared.took(row, outcome.result)
        except Rejected as rejection:
            return self._back(work, _because(row, rejection.code, str(rejection)))
        return self._forward(work, row)

    def _unknown(self, outcome: Continuation) -> Rejected:
        return Rejected("unknown_step", f"no {self._name} waits for command {outcome.command_id}")

    def _unanswered(self, work: UnitOfWork, row: S, declared: Step[S], outcome: Continuation) -> S:
        """The step may have been done, or be done yet: take it back like one that was."""
        row = _because(row, NO_ANSWER, f"`{declared.name}`: {outcome.error.message if outcome.error else NO_ANSWER}")
        if NO_ANSWER in declared.review:
            return self._back(work, row, is_unsure=True)
        return self._back(work, row)

    def resume(self, work: UnitOfWork, order: Resumption) -> S:
        """Take up a saga in `needs_review`, or one that waits in vain, at the step where it stopped.

        Raises Rejected: `<saga>_not_found`, `not_in_review`, `other_step`, `impossible_verdict`, `invalid_result`, and
        the refusal of `took` if the result is of no use.
        """
        row = work.get(self._model, order.id)
        if row is None:
            raise Rejected(f"{self._name}_not_found", f"there is no {self._name} {order.id}")
        if row.status != "needs_review" and (row.status in ENDED or not order.even_if_running):
            raise Rejected("not_in_review", f"{self._name} {row.id} is {row.status}, and needs no review")
        step = work.get(SagaStep, order.step)
        if step is None or (step.saga, step.saga_id, step.number) != (self._name, row.id, row.emitted):
            text = f"that is not the step at which {self._name} {row.id} stopped: see the last of its timeline"
            raise Rejected("other_step", text)
        placed = self._placed(row, step)
        if placed is None and (step.direction, order.verdict) not in _OF_ANY_STEP:
            raise Rejected("other_step", f"this release has no step `{step.name}`: have one take it up that has")
        row = placed or row
        if step.status == "waiting":
            # If its outcome comes after all, the saga no longer waits for it.
            work.save(msgspec.structs.replace(step, status="given_up", ended_at=work.now))
            work.cancel(step.command_id)
        if (step.direction, order.verdict) == ("undo", "not_done"):
            text = f"`{step.name}` is to be undone: say `done` when it is, or `again` to have it tried again"
            raise Rejected("impossible_verdict", text)
        row = self._noted(work, row, step, order)
        if step.direction == "undo" or order.verdict == "not_done":
            return self._back(work, row)
        declared = self._steps[row.position]
        row = msgspec.structs.replace(row, status="running", reason_code=None, reason=None)
        if order.verdict == "done":
            row = self._taken(msgspec.structs.replace(row, position=row.position + 1), declared, order.result)
        return self._forward(work, row)

    def _taken(self, row: S, declared: Step[S], result: msgspec.Raw) -> S:
        """The saga with the step's result as a person gives it. Raises Rejected."""
        try:
            return row if declared.took is None else declared.took(row, result)
        except msgspec.ValidationError as error:
            text = f"`result` is not what `{declared.name}` returns: {error}"
            raise Rejected("invalid_result", text) from None

    def _noted(self, work: UnitOfWork, row: S, step: SagaStep, order: Resumption) -> S:
        """The person's verdict, as a line of the timeline."""
        row = msgspec.structs.replace(row, emitted=row.emitted + 1, ended_at=None)
        work.add(
            SagaStep(
                command_id=work.command_id,
                saga=self._name,
                saga_id=row.id,
                number=row.emitted,
                name=step.name,
                direction="resume",
                command_type=order.type,
                status=order.verdict,
                error_message=short(order.reason),
                began_at=work.now,
                ended_at=work.now,
            )
        )
        return row

    def _forward(self, work: UnitOfWork, row: S) -> S:
        """Emit the next step that is not done and has something to do, or finish."""
        is_over = row.position >= len(self._steps)
        done = {step.name for step in (() if is_over else self._still_done(work, row))}
        try:
            while row.position < len(self._steps):
                step = self._steps[row.position]
                command = None if step.name in done else step.do(row)
                if command is not None:
                    return self._emit(work, row, step, "do", command)
                row = msgspec.structs.replace(row, position=row.position + 1)
            row = finished(self._name, self._finish, work, row)
        except Rejected as rejection:
            return self._back(work, _because(row, rejection.code, str(rejection)))
        return self._ended(work, row, "completed")

    def _refused(self, work: UnitOfWork, row: S, outcome: Continuation) -> S:
        error = outcome.error
        code = outcome.status if error is None else error.code
        row = _because(row, code, outcome.status if error is None else error.message)
        return self._back(work, row, is_unsure=code in self._steps[row.position].review)

    def _undone(self, work: UnitOfWork, row: S, step: SagaStep, outcome: Continuation) -> S:
        placed = self._placed(row, step)
        error, undone = outcome.error, frozenset() if placed is None else self._steps[placed.position].undone
        is_undone = outcome.status == "rejected" and error is not None and error.code in undone
        if outcome.status != "applied" and not is_undone:
            why = outcome.status if error is None else f"{error.code}: {error.message}"
            return self._not_undone(work, row, "", f"`{step.name}` could not be undone: {why}")
        return self._back(work, row)

    def _back(self, work: UnitOfWork, row: S, *, is_unsure: bool = False) -> S:
        """Emit the command that undoes the last step that is done, or end."""
        if is_unsure:
            return self._ended(work, row, "needs_review")
        row = msgspec.structs.replace(row, status="compensating")
        done = self._still_done(work, row)
        while done:
            last = done.pop()
            place = self._place_of(last.name)
            if place is None:
                return self._unknown_undo(work, row, last)
            row = msgspec.structs.replace(row, position=place)
            step = self._steps[row.position]
            command = None if step.undo is None else step.undo(row)
            if command is not None:
                return self._emit(work, row, step, "undo", command)
        return self._ended(work, msgspec.structs.replace(row, position=0), "compensated")

    def _unknown_undo(self, work: UnitOfWork, row: S, done: SagaStep) -> S:
        """This release cannot undo a step: a person takes the flow up at the line of its timeline that says so."""
        text = f"`{done.name}` could not be undone: this release has no such step"
        row = msgspec.structs.replace(row, emitted=row.emitted + 1)
        work.add(
            msgspec.structs.replace(
                done,
                command_id=derived_command_id(f"{self._name} {done.command_id}", row.emitted, b""),
                number=row.emitted,
                direction="undo",
                status="failed",
                error_code=UNKNOWN_STEP,
                error_message=short(text),
                began_at=work.now,
                ended_at=work.now,
            )
        )
        return self._not_undone(work, row, UNKNOWN_STEP, text)

    def _not_undone(self, work: UnitOfWork, row: S, code: str, text: str) -> S:
        """A person has to look. The reason for which the flow is taken back leaves room for this one."""
        reason = text if row.reason is None else f"{row.reason[: REASON_CHARACTERS_MAX // 2]}; and {text}"
        return self._ended(work, _because(row, row.reason_code or code, reason), "needs_review")

    def _ended(self, work: UnitOfWork, row: S, status: SagaStatus) -> S:
        return work.save(msgspec.structs.replace(row, status=status, ended_at=work.now))

    def _emit(self, work: UnitOfWork, row: S, step: Step[S], direction: str, command: Command) -> S:
        row = msgspec.structs.replace(row, emitted=row.emitted + 1)
        work.add(
            SagaStep(
                command_id=work.emit(
                    command,
                    continuation=self._continuation,
                    # What is taken back has to be taken back, however long it takes.
                    limit=step.timeout if direction == "do" else None,
                ),
                saga=self._name,
                saga_id=row.id,
                number=row.emitted,
                name=step.name,
                direction=direction,
                command_type=command.type,
                status="waiting",
                began_at=work.now,
            )
        )
        return work.save(row)


def _because(row: S, code: str, text: str) -> S:
    """The row with this reason, cut to the room that it has."""
    return msgspec.structs.replace(row, reason_code=code[:CODE_CHARACTERS_MAX], reason=short(text))
