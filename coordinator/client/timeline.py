"""What is known of one command, from its request to its answer: one shape for gateways, operators and pages.

Times come from two clocks: the gateway's (when it received a request, published the command and answered) and the
lane's (when it got the command, applied it and committed). Nobody can tell how far two clocks are apart, so each moment
says whose it is, and where they contradict each other `clocks` says so.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from coordinator.protocol.actors import Logged
from coordinator.service.lane_names import lane_of, tenant_of
from coordinator.service.outcome import Status
from coordinator.service.outside_calls import EFFECTS_PREFIX, effects_key
from coordinator.service.text import counted
from coordinator.stores.lane_tables import LogEntry
from coordinator.stores.outcomes import is_forgotten
from coordinator.stores.passages import Passage, child_of, parent_of, passage_of

MomentName: TypeAlias = Literal[
    "received", "emitted", "published", "delivered", "applied", "committing", "committed", "answered"
]
Clock: TypeAlias = Literal["gateway", "lane"]
Standing: TypeAlias = (
    Status | Literal["queued", "cancelled", "parked", "timed", "outbox", "outside", "carried_out", "unknown"]
)
"""Where a command stands.

| standing | the command |
| --- | --- |
| applied, rejected, failed, expired | is settled: this is its outcome |
| queued | is with the broker, or the lane has it and has not settled it |
| cancelled | is not settled; an operator has cancelled it, and the lane does not apply it when its turn comes |
| parked | waits for its key behind one that failed, in the lane's database |
| timed | waits for its time, in the database of the lane that emitted it |
| outbox | is emitted, and not with the broker yet |
| outside | is an effect that its lane has emitted and the broker has taken: a worker has it, or will |
| carried_out | is an effect, and its result is a command of its lane |
| unknown | is not known here: it waits in a queue, was never published, or the log has forgotten it |
"""
Link: TypeAlias = Literal["emitted", "effect", "result", "continuation", "replay"]
"""How one command leads to another: its handler emits it, or an effect; that comes to its result; its outcome becomes
it; or an operator has it replayed."""

_VERSION_AT: Final = 14
_WITH_TIME: Final = "7"
_ID_MS_END: Final = 253_402_214_400_000
"""The last day of the year 9999: in the ids there is room for later ones. Zones and sums have a day to spare."""
_TOLERANCE: Final = timedelta(milliseconds=1)
"""Ids and logs keep whole milliseconds."""


class Moment(Struct, frozen=True, kw_only=True):
    """When something happened. `ms` counts from the first moment; it is below 0 only where `clocks` of the timeline
    says why. `at_latest`: it may have been earlier.

    `delivered` is when the lane's process got the message, `applied` when the transaction of its batch began,
    `committing` when all commands of that were applied and its rows went to the database.
    """

    name: MomentName
    at: datetime
    ms: float
    clock: Clock
    at_latest: bool = False


class Related(Struct, frozen=True, kw_only=True):
    """A command to which this one led, or that led to this one. `lane` is where it goes: a lane, or a service's
    effects. `standing` is what is known of it where it was looked for; None: it was not.
    """

    command_id: str
    how: Link
    lane: str | None = None
    type: str | None = None
    standing: Standing | None = None


class Timeline(Struct, frozen=True, kw_only=True):
    """One command. What is None or empty is not known, or not for whoever asks.

    `where` says in words where it stands, `why` what came of it or what keeps it there, and `todo` what helps, where
    somebody has to do something. `moments` are in the order in which they happen. `place` counts from 1 in its batch of
    `batch_size` commands; of a batch of a hundred commands or more a gateway tells neither, nor when it was committed
    (`coordinator command` does). `attempts` counts its deliveries: more than one after a crash or a lost connection.
    `waiting_before` is how many messages wait before it at most: a gateway that is busy puts several commands into one.
    `consumer` is the process that settled it; it is not known once the lane has changed hands. `unnamed_children`
    counts those beyond the first 50. `clocks` says what is wrong with the clocks.
    """

    command_id: str
    standing: Standing
    where: str | None = None
    why: str | None = None
    todo: str | None = None
    lane: str | None = None
    type: str | None = None
    moments: Sequence[Moment] = ()
    clocks: str | None = None
    sequence: int | None = None
    batch_size: int | None = None
    place: int | None = None
    epoch: int | None = None
    consumer: str | None = None
    attempts: int | None = None
    waiting_before: int | None = None
    letters: Sequence[int] = ()
    actor: Logged | None = None
    parent: Related | None = None
    children: Sequence[Related] = ()
    unnamed_children: int = 0


class GatewayTimes(Struct, frozen=True, kw_only=True):
    """What the gateway that issued a command remembers, by its clock. `outcome_at`: the outcome came then, and so the
    command was committed by then."""

    received_at: datetime
    published_at: datetime | None = None
    outcome_at: datetime | None = None
    answered_at: datetime | None = None


class LaneTimes(Struct, frozen=True, kw_only=True):
    """What the lane keeps, by its clock; and when the command was emitted, by the clock of the lane that did."""

    emitted_at: datetime | None = None
    delivered_at: datetime | None = None
    applied_at: datetime | None = None
    committing_at: datetime | None = None
    committed_at: datetime | None = None


def issued_at(command_id: str) -> datetime | None:
    """When a command's id was made, to the millisecond, by the clock that made it; None: the id does not say, or it
    names a time that no calendar here has. Clients choose ids."""
    if command_id[_VERSION_AT : _VERSION_AT + 1] != _WITH_TIME:
        return None
    made_ms = int(command_id[:8] + command_id[9:13], 16)
    return datetime.fromtimestamp(made_ms / 1000, UTC) if made_ms < _ID_MS_END else None


def settled_words(lane: str, entry: LogEntry) -> str:
    """Where a settled command stands."""
    return f"{entry.status} in lane {lane} as number {entry.sequence}"


def queued_words(lane: str, waiting: int | None) -> str:
    """Where a command stands of which no database knows, but the broker; `waiting` messages are in the queue."""
    before = "" if not waiting else f", in which {counted(waiting, 'message waits', 'messages wait')}"
    return f"not settled yet: in the queue of lane {lane}{before}, or on its way there"


def outcome_words(entry: LogEntry) -> str | None:
    """What came of a settled command that was not applied, or is forgotten."""
    if entry.error_code is None:
        return None
    return (
        entry.error_message if is_forgotten(entry) else f"{entry.error_code}: {entry.error_message or ''}".rstrip(": ")
    )


def settled_timeline(lane: str, entry: LogEntry) -> Timeline:
    """What the log says of a command, without its times, and without what is not for everybody who may see it."""
    passage = passage_of(entry.passage)
    return Timeline(
        command_id=entry.command_id,
        standing=entry.status,  # type: ignore[arg-type]  # the lane writes no other
        where=settled_words(lane, entry),
        why=outcome_words(entry),
        lane=lane,
        type=entry.type,
        sequence=entry.sequence,
        epoch=entry.epoch,
        attempts=None if passage.delivered_ms is None else passage.attempts,
        parent=_parent_in(lane, passage),
        children=[
            Related(
                command_id=child.command_id,
                how="effect" if child.target.startswith(EFFECTS_PREFIX) else "emitted",
                lane=child.target,
                type=child.type,
            )
            for child in map(child_of, passage.children)
        ],
        unnamed_children=passage.unnamed,
    )


def _parent_in(lane: str, passage: Passage) -> Related | None:
    if passage.parent is None:
        return None
    parent = parent_of(passage.parent)
    # No answer, and no result, comes from another tenant's lane.
    owner = lane_of(parent.type.partition(".")[0], tenant_of(lane))
    return Related(
        command_id=parent.command_id,
        how="result" if passage.is_result else "continuation",
        lane=effects_key(owner) if passage.is_result else owner,
        type=parent.type,
        standing="carried_out" if passage.is_result else None,
    )


def lane_times(entry: LogEntry) -> LaneTimes:
    """When the lane had a settled command, and what it did, as far as its own entry says it."""
    passage = passage_of(entry.passage)
    return LaneTimes(
        delivered_at=after(entry.settled_at, None if passage.delivered_ms is None else -passage.delivered_ms),
        applied_at=entry.settled_at,
        committing_at=after(entry.settled_at, passage.written_ms),
    )


def after(at: datetime, ms: int | None) -> datetime | None:
    """So many ms after a time; None: nobody knows how many."""
    return None if ms is None else at + timedelta(milliseconds=ms)


def with_moments(timeline: Timeline, gateway: GatewayTimes | None, lane: LaneTimes) -> Timeline:
    """The timeline with what is known of when it happened."""
    found = _moments(timeline.command_id, gateway, lane)
    if not found:
        return timeline
    began = found[0][1]
    moments = [
        Moment(
            name=name,
            at=at,
            ms=round((at - began) / timedelta(milliseconds=1), 1),
            clock=clock,
            at_latest=(name == "committed" and clock == "gateway") or (name == "received" and gateway is None),
        )
        for name, at, clock in found
    ]
    outcome_at = None if gateway is None else gateway.outcome_at
    return msgspec.structs.replace(timeline, moments=moments, clocks=_contradiction(moments, outcome_at, timeline.lane))


def _moments(
    command_id: str, gateway: GatewayTimes | None, lane: LaneTimes
) -> list[tuple[MomentName, datetime, Clock]]:
    received_at = issued_at(command_id) if gateway is None else gateway.received_at
    outcome_at = None if gateway is None else gateway.outcome_at
    known: tuple[tuple[MomentName, datetime | None, Clock], ...] = (
        ("received", received_at, "gateway"),
        ("emitted", lane.emitted_at, "lane"),
        ("published", None if gateway is None else gateway.published_at, "gateway"),
        ("delivered", lane.delivered_at, "lane"),
        ("applied", lane.applied_at, "lane"),
        ("committing", lane.committing_at, "lane"),
        # A lane sends an outcome once it is committed.
        ("committed", outcome_at, "gateway") if lane.committed_at is None else ("committed", lane.committed_at, "lane"),
        ("answered", None if gateway is None else gateway.answered_at, "gateway"),
    )
    return [(name, at.astimezone(UTC), clock) for name, at, clock in known if at is not None]


def _contradiction(moments: Sequence[Moment], outcome_at: datetime | None, lane: str | None) -> str | None:
    """Where two clocks contradict each other, in words: what the lane did came after the request, before the answer."""
    began = [moment.at for moment in moments if moment.name == "received"]
    done = [moment.at for moment in moments if moment.clock == "lane" and moment.name != "emitted"]
    if not done:
        return None
    behind = began[0] - min(done) if began else timedelta()
    ahead = max(done) - outcome_at if outcome_at is not None else timedelta()
    apart, word = max((behind, "behind"), (ahead, "ahead of"))
    if apart <= _TOLERANCE:
        return None
    return (
        f"the clock of lane {lane} is at least {apart / timedelta(milliseconds=1):.0f} ms {word} the one that says when"
        " the command was issued: only times of one clock can be compared"
    )
