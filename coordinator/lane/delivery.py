"""What goes into a lane and what comes out of it."""

from msgspec import Struct

from shared.lane_tables import OutboxEntry
from shared.messaging.outcome import Outcome
from shared.messaging.wire import CommandMessage
from shared.rows import Ref, Row


class Delivery(Struct, frozen=True, kw_only=True):
    """One message as received: its place in the channel, its commands, and where their outcomes go."""

    tag: int
    commands: tuple[CommandMessage, ...]
    size_bytes: int = 0
    redelivered: bool = False
    reply_to: str | None = None
    correlation_id: str | None = None
    reply_packs: bool = False


class Reply(Struct, frozen=True):
    """The outcomes of one delivery, for whoever published it."""

    reply_to: str
    correlation_id: str | None
    packed: bool
    outcomes: list[Outcome]


class DeadLetter(Struct, frozen=True):
    """A command that could not be applied, and why. `sequence` is its place in the log, if it has one."""

    message: CommandMessage
    code: str
    reason: str
    traceback: str | None
    sequence: int | None


class Settlement(Struct, frozen=True, kw_only=True):
    """What to do now that a batch is committed, in this order.

    Tell the projections of the rows; publish the dead letters and wait for their confirms; send the replies; publish
    the emitted commands; soon, acknowledge every delivery of `tags`.
    """

    tags: list[int]
    outcomes: list[Outcome]
    replies: list[Reply]
    dead_letters: list[DeadLetter]
    emitted: list[OutboxEntry]
    saved: list[Row]
    removed: list[Ref[Row]]


class Hold(Struct, frozen=True):
    """The database is away or busy, or an operator holds the lane: acknowledge nothing, and offer the same deliveries
    again after the delay."""

    delay_s: float
    reason: str


class Deposed(Struct, frozen=True):
    """Another consumer has the lane: drop the connection and stand by."""


Decision = Settlement | Hold | Deposed
