"""The inputs and the outputs of a lane."""

from typing import Literal

from msgspec import Struct

from coordinator.protocol.wire import CommandMessage
from coordinator.service.outcome import Outcome
from coordinator.service.rows import Ref, Row
from coordinator.service.trace_context import TraceContext
from coordinator.stores.lane_tables import DeadLetter, OutboxEntry, Timer
from coordinator.stores.port import Trouble


class OldLetter(Struct, frozen=True, kw_only=True):
    """A dead letter as earlier releases published it: why its command could not be applied, and its target."""

    target: str
    code: str
    reason: str
    traceback: str | None = None
    sequence: int | None = None


class Arrival(Struct, frozen=True):
    """When a message was delivered, in ms since the Unix epoch, and how often it was by then: `attempts` is 1 for the
    first time. `place` is where its transport had it, in that one's words; None: it has no use for that."""

    at_ms: int
    attempts: int = 1
    place: str | None = None


class Delivery(Struct, frozen=True, kw_only=True):
    """One message as received: its place in the channel, its commands, and where their outcomes go.

    `account` is the broker's account that has published what is the system's own, as the broker has checked; None: it
    does not say. `arrival`: None where the transport does not say. With a `letter` it is the dead letter of an older
    release, to be kept as a row; its command is not applied.
    """

    tag: int
    commands: tuple[CommandMessage, ...]
    size_bytes: int = 0
    redelivered: bool = False
    reply_to: str | None = None
    correlation_id: str | None = None
    reply_packs: bool = False
    letter: OldLetter | None = None
    arrival: Arrival | None = None
    account: str | None = None


class Reply(Struct, frozen=True):
    """The outcomes of one delivery, for its publisher."""

    reply_to: str
    correlation_id: str | None
    packed: bool
    outcomes: list[Outcome]


class BareFailure(Struct, frozen=True):
    """A failure of which the database takes no dead letter: its reason is for the process's log."""

    command_id: str
    type: str
    code: str
    reason: str


class TracedCommand(Struct, frozen=True):
    """A settled command of a trace whose spans somebody wants. `cause` is the span that issued it.

    `applied_ns`: when it was begun and done, in nanoseconds since the Unix epoch; None: it was answered from the log.
    """

    outcome: Outcome
    cause: TraceContext
    applied_ns: tuple[int, int] | None


class Settlement(Struct, frozen=True, kw_only=True):
    """What to do now that a batch is committed, in this order.

    Announce the rows to the projections; send the replies; publish the emitted commands, and forget those with an id of
    `withdrawn`; soon, acknowledge every delivery of `tags`. `dead_letters` are in the lane's database already;
    `dropped` counts those that had no room there. `bare_failures` have no dead letter. `timers` were set: the lane
    keeps them. `reviews` are rows that a person has to look at now. `traced` are the commands about which
    spans are to be recorded, where this process records any.
    """

    tags: list[int] = []
    outcomes: list[Outcome] = []
    replies: list[Reply] = []
    dead_letters: list[DeadLetter] = []
    dropped: int = 0
    emitted: list[OutboxEntry] = []
    withdrawn: list[int] = []
    saved: list[Row] = []
    removed: list[Ref[Row]] = []
    reviews: list[Row] = []
    bare_failures: list[BareFailure] = []
    timers: list[Timer] = []
    traced: list[TracedCommand] = []


SuspensionCause = Literal[
    "database", "refusal", "conflict", "paused", "move", "blocked", "commits_lost", "newer_release"
]
"""`database`: it is away, or takes nothing; `refusal`, `conflict`: it has refused these commands, or aborted their
transaction; `paused`: by an operator; `move`: by whoever moves it to another database; `blocked`: by a command;
`commits_lost`: by the database; `newer_release`: a process of one must have the lane."""


class Suspension(Struct, frozen=True):
    """The database is away or busy, or an operator must act: acknowledge nothing, and offer the same deliveries again
    after the delay. `cause` is the kind of its `reason`. `is_blocked`: an operator must act. `is_unfit`: this process
    cannot apply them, by its release or by its database, and another one may. `stands_back`: it has waited for so long
    as that, and gives the lane up after the delay, so that such a one gets it, if there is one. `needs_mark`: the
    transport may know how far the lane had come, and tells it with the next channel. `trouble`: what to look at where
    that is the database."""

    delay_s: float
    reason: str
    is_blocked: bool = False
    needs_mark: bool = False
    is_unfit: bool = False
    stands_back: bool = False
    cause: SuspensionCause = "database"
    trouble: Trouble = "away"


class Deposed(Struct, frozen=True):
    """Another consumer has the lane: drop the connection and stand by."""


Decision = Settlement | Suspension | Deposed
