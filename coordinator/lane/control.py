"""The commands that every lane has: they act on the lane itself, in their turn (coordinator/lane/orders.py).

They change rows like other commands, in the transaction that settles them. So an operator's order is carried out once,
whatever crashes, and its entry in the command log says what was done.
"""

from typing import Annotated, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from coordinator.service.commands import Command, Id
from coordinator.service.options import Origin
from coordinator.service.unit_of_work import Handler, UnitOfWork
from coordinator.stores.lane_tables import ORDERING_KEY_CHARACTERS_MAX

WITHDRAWN_MAX = 1000
ASKED_MAX = 100
"""As many as one step of forgetting takes."""
EFFECT_TEXT_CHARACTERS_MAX = 1 << 16

By = Annotated[str, Meta(max_length=200, pattern=r"\A[^\x00-\x1f\x7f]*\Z")]
"""The operator's name, as given with the order: it is kept in the log."""


Reason = Annotated[str, Meta(max_length=500, pattern=r"\A[^\x00-\x1f\x7f]*\Z")]
"""Why, as given with the order; empty: nobody said."""


class Marker(Command, type="lane.marker"):
    """Does nothing: its outcome proves that everything before it in the queue is settled."""


class Release(Command, omit_defaults=True, type="lane.release"):
    """Let the commands go on that wait behind a failed one with their key. Rejected: `not_parked`."""

    ordering_key: Annotated[str, Meta(min_length=1, max_length=ORDERING_KEY_CHARACTERS_MAX)]
    command_id: str
    by: By = ""
    reason: Reason = ""


class ReplayLetter(Command, omit_defaults=True, type="lane.replay"):
    """Have a dead letter's command sent once more, and the letter removed.

    `args` replaces the letter's arguments, and its sender's scopes do not count then, but with `as_sender`. `as_system`
    gives a stranger's command the rights of the system. `alone`: also one of which somebody, such as a saga, has been
    told that it failed. Rejected:
    `letter_not_found`, `not_replayable`, `forbidden_command_type`, `deadline_over`, `already_told`.
    """

    letter: Id
    args: msgspec.Raw | UnsetType = UNSET
    without_deadline: bool = False
    as_system: bool = False
    as_sender: bool = False
    alone: bool = False
    by: By = ""
    reason: Reason = ""


class DiscardLetter(Command, omit_defaults=True, type="lane.discard"):
    """Remove a dead letter for good; the commands behind its command go on. Rejected: `letter_not_found`."""

    letter: Id
    by: By = ""
    reason: Reason = ""


class WithdrawEmitted(Command, omit_defaults=True, type="lane.withdraw"):
    """Remove emitted commands from the outbox. They are then no longer sent, unless they already were.

    What the broker has confirmed is not found any more. Rejected: `replay_of_parked`; `handed_over`, in one process,
    for what its target there has.
    """

    entries: Annotated[list[Id], Meta(min_length=1, max_length=WITHDRAWN_MAX)]
    by: By = ""
    reason: Reason = ""


class CancelTimers(Command, omit_defaults=True, type="lane.cancel_timers"):
    """Take timers back that still wait: their commands are then never sent. Others are left out of the result."""

    timers: Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(min_length=1, max_length=WITHDRAWN_MAX)]
    by: By = ""
    reason: Reason = ""


class DeadEffect(Command, type="lane.dead_effect"):
    """A message that an effect worker could not read. `body` is its text, or the beginning of its
    `size_bytes` bytes.

    With the origin `public` its id and type are a stranger's, and prove nothing.
    """

    command_id: str | None
    effect_type: str | None
    body: Annotated[str, Meta(max_length=EFFECT_TEXT_CHARACTERS_MAX)]
    size_bytes: int | None = None
    code: str
    reason: str
    traceback: str | None = None
    origin: Origin = "system"
    # Not null: a lane of an earlier release takes no field that it does not know.
    effect_version: int | UnsetType = UNSET


class Forget(Command, omit_defaults=True, type="lane.forget"):
    """Take the personal data of one person out of the log and the dead letters.

    The person is the row of `table` whose `column` (empty: its key) has this `value`; the row may be gone. `asked`
    tells one order from the next with the same content. With `actor`, a subject, and `tenant` (empty: without one),
    he is also taken out as the one who asked for these commands. `dry_run` only counts.
    Rejected: `unknown_table`, `not_a_key`, `parked`.
    """

    table: Annotated[str, Meta(min_length=1, max_length=63)]
    value: msgspec.Raw
    column: Annotated[str, Meta(max_length=63)] = ""
    asked: Annotated[str, Meta(max_length=64)] = ""
    actor: Annotated[str, Meta(max_length=200)] = ""
    tenant: Annotated[str, Meta(max_length=100)] = ""
    dry_run: bool = False
    by: By = ""
    reason: Reason = ""


class ForgetAsked(Command, omit_defaults=True, type="lane.forget_asked"):
    """Take out the content of commands for which one actor has asked, and him as the one who asked.

    Commands that are not settled, and those of others, are left out, and so are `letters` (the numbers of dead letters,
    also of effects, and of messages without an id) that do not name him. With the same `tenant` (empty: without one) as
    the log has him. `asked` tells one order from the next with the same content. Rejected: `parked`, where one of his
    commands waits.
    """

    commands: Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(max_length=ASKED_MAX)]
    letters: Annotated[tuple[Id, ...], Meta(max_length=ASKED_MAX)] = ()
    actor: Annotated[str, Meta(min_length=1, max_length=200)]
    tenant: Annotated[str, Meta(max_length=100)] = ""
    asked: Annotated[str, Meta(max_length=64)] = ""
    by: By = ""
    reason: Reason = ""


class ForgetStep(Command, omit_defaults=True, type="lane.forget_step"):
    """Take it out of the next commands that this order is about. The lane gives itself these.

    `digests` are those of the person, and `row` that of his row in the audit, if its key is personal. Of the first
    digest all up to the index entry `after` is done. Nothing is taken from
    commands behind the sequence `up_to`; 0 stands for the order's. The rest counts what the steps before have done.
    """

    order: str
    digests: list[str]
    row: str = ""
    after: str = ""
    up_to: int = 0
    actor: str = ""
    tenant: str = ""
    entries: int = 0
    letters: int = 0
    timers: tuple[str, ...] = ()


class ForgetBegun(Struct, frozen=True, kw_only=True):
    """What an order to forget begins, without a word of whom: the table, and nothing by which a guess could be proved.

    `commands` have some, 10,000 or more are counted as so many. `is_row_there`: the person's row, which is not the
    lane's to forget, is still there. `goes_on_as` is the command that begins; None: nothing was to be done.
    """

    table: str
    subject: str = ""
    """Nothing: an operator's command of an earlier release needs it. Lanes of then gave a digest of the person."""
    commands: int
    is_row_there: bool
    goes_on_as: str | None
    by: str
    reason: str = ""
    """Nothing: an operator's command of an earlier release needs it. Why is among operators' acts, as of other orders:
    it may name the person, and the log is read by gateways."""


class ForgottenSome(Struct, frozen=True, kw_only=True):
    """The entries of the log and the dead letters that were emptied so far, by the steps of one order.

    `timers` are the commands, of at most 100 of them the ids, that still wait for their time with such data. The order
    `goes_on_as` another command; None: it is done.
    """

    entries: int
    letters: int
    timers: tuple[str, ...]
    goes_on_as: str | None


class ForgottenAsked(Struct, frozen=True, kw_only=True):
    """The entries of the log and the dead letters that one order has emptied, and the operator. `reason` is empty, as
    that of `ForgetBegun`."""

    entries: int
    letters: int
    by: str
    reason: str = ""


class Replayed(Struct, frozen=True, kw_only=True):
    """A dead letter that was sent once more: its target, its new id, and the operator."""

    letter: int
    target: str
    command_id: str | None
    replayed_as: str
    by: str


class Discarded(Struct, frozen=True, kw_only=True):
    """A dead letter that was removed, and the operator."""

    letter: int
    target: str
    command_id: str | None
    by: str


class Withdrawn(Struct, frozen=True, kw_only=True):
    """The ids of the emitted commands that were removed from the outbox, and the operator."""

    command_ids: list[str]
    by: str


class TimersCancelled(Struct, frozen=True, kw_only=True):
    """The ids of the commands whose timers were taken back, and the operator."""

    command_ids: list[str]
    by: str


def _nothing(work: UnitOfWork, command: Command) -> None:  # noqa: ARG001  # coordinator/lane/orders.py does it
    return None


CONTROL_HANDLERS = (
    Handler(Marker, _nothing, is_operators=True),
    Handler(Release, _nothing, is_operators=True),
    Handler(ReplayLetter, _nothing, is_operators=True),
    Handler(DiscardLetter, _nothing, is_operators=True),
    Handler(WithdrawEmitted, _nothing, is_operators=True),
    Handler(CancelTimers, _nothing, is_operators=True),
    Handler(Forget, _nothing, is_operators=True),
    Handler(ForgetAsked, _nothing, is_operators=True),
    Handler(ForgetStep, _nothing, is_internal=True),
    Handler(DeadEffect, _nothing, is_internal=True),
)

Order: TypeAlias = Release | ReplayLetter | DiscardLetter | WithdrawEmitted | CancelTimers | Forget | ForgetAsked
"""The orders of operators."""
CONTROL_TYPES = frozenset(handler.command.type for handler in CONTROL_HANDLERS)
