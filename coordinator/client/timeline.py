"""What is known of one command, from its request to its answer: one shape for gateways, operators and pages.

Times come from two clocks: the gateway's (when it received a request, published the command and answered) and the
lane's (when it had the command, applied it and committed). Nobody can tell how far two clocks are apart, so each moment
says whose it is, and where they contradict each other `clocks` says so.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from coordinator.protocol.actors import Logged
from coordinator.service.outcome import Status
from coordinator.stores.lane_tables import LogEntry
from coordinator.stores.outcomes import is_forgotten

MomentName: TypeAlias = Literal["received", "emitted", "published", "applied", "committed", "answered"]
Clock: TypeAlias = Literal["gateway", "lane"]
Standing: TypeAlias = Status | Literal["queued", "parked", "timed", "outbox", "unknown"]
"""Where a command stands.

| standing | the command |
| --- | --- |
| applied, rejected, failed, expired | is settled: this is its outcome |
| queued | is with the broker, or the lane has it and has not settled it |
| parked | waits for its key behind one that failed, in the lane's database |
| timed | waits for its time, in the database of the lane that emitted it |
| outbox | is emitted, and not with the broker yet |
| unknown | is not known here: it waits in a queue, was never published, or the log has forgotten it |
"""
Link: TypeAlias = Literal["continuation", "replay"]
"""How one command leads to another: its outcome becomes it, or an operator has it replayed."""

_VERSION_AT: Final = 14
_WITH_TIME: Final = "7"
_ID_MS_END: Final = 253_402_214_400_000
"""The last day of the year 9999: in the ids there is room for later ones. Zones and sums have a day to spare."""
_TOLERANCE: Final = timedelta(milliseconds=1)
"""Ids and logs keep whole milliseconds."""


class Moment(Struct, frozen=True, kw_only=True):
    """When something happened. `ms` counts from the first moment; it is below 0 only where `clocks` of the timeline
    says why. `at_latest`: it may have been earlier."""

    name: MomentName
    at: datetime
    ms: float
    clock: Clock
    at_latest: bool = False


class Related(Struct, frozen=True, kw_only=True):
    """A command to which this one led. `lane` is where it goes: a lane.

    `standing` is what is known of it where it was looked for; None: it was not.
    """

    command_id: str
    how: Link
    lane: str | None = None
    type: str | None = None
    standing: Standing | None = None


class Timeline(Struct, frozen=True, kw_only=True):
    """One command. What is None or empty is not known, or not for whoever asks.

    `why` says in words where it stands, and what to do where somebody has to. `moments` are in the order in which they
    happen. `place` counts from 1 in its batch of `batch_size` commands. `waiting_before` is how many messages wait
    before it at most: a gateway that is busy puts several commands into one. `consumer` is the process that settled it;
    it is not known once the lane has changed hands. `clocks` says what is wrong with the clocks.
    """

    command_id: str
    standing: Standing
    why: str | None = None
    lane: str | None = None
    type: str | None = None
    moments: Sequence[Moment] = ()
    clocks: str | None = None
    sequence: int | None = None
    batch_size: int | None = None
    place: int | None = None
    epoch: int | None = None
    consumer: str | None = None
    waiting_before: int | None = None
    letters: Sequence[int] = ()
    actor: Logged | None = None
    children: Sequence[Related] = ()


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
    applied_at: datetime | None = None


def issued_at(command_id: str) -> datetime | None:
    """When a command's id was made, to the millisecond, by the clock that made it; None: the id does not say, or it
    names a time that no calendar here has. Clients choose ids."""
    if command_id[_VERSION_AT : _VERSION_AT + 1] != _WITH_TIME:
        return None
    made_ms = int(command_id[:8] + command_id[9:13], 16)
    return datetime.fromtimestamp(made_ms / 1000, UTC) if made_ms < _ID_MS_END else None


def settled_timeline(lane: str, entry: LogEntry) -> Timeline:
    """What the log says of a command, without its times, and without what is not for everybody who may see it."""
    why = None if entry.error_code is None else f"{entry.error_code}: {entry.error_message or ''}".rstrip(": ")
    if is_forgotten(entry):
        why = entry.error_message
    return Timeline(
        command_id=entry.command_id,
        standing=entry.status,  # type: ignore[arg-type]  # the lane writes no other
        why=why,
        lane=lane,
        type=entry.type,
        sequence=entry.sequence,
        epoch=entry.epoch,
    )


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
            at_latest=name == "committed" or (name == "received" and gateway is None),
        )
        for name, at, clock in found
    ]
    return msgspec.structs.replace(timeline, moments=moments, clocks=_contradiction(moments, timeline.lane))


def _moments(
    command_id: str, gateway: GatewayTimes | None, lane: LaneTimes
) -> list[tuple[MomentName, datetime, Clock]]:
    received_at = issued_at(command_id) if gateway is None else gateway.received_at
    known: tuple[tuple[MomentName, datetime | None, Clock], ...] = (
        ("received", received_at, "gateway"),
        ("emitted", lane.emitted_at, "lane"),
        ("published", None if gateway is None else gateway.published_at, "gateway"),
        ("applied", lane.applied_at, "lane"),
        # A lane sends an outcome once it is committed.
        ("committed", None if gateway is None else gateway.outcome_at, "gateway"),
        ("answered", None if gateway is None else gateway.answered_at, "gateway"),
    )
    return [(name, at.astimezone(UTC), clock) for name, at, clock in known if at is not None]


def _contradiction(moments: Sequence[Moment], lane: str | None) -> str | None:
    """Where two clocks contradict each other, in words: what the lane did came after the request, before the answer."""
    began = [moment.at for moment in moments if moment.name == "received"]
    ended = [moment.at for moment in moments if moment.name == "committed"]
    done = [moment.at for moment in moments if moment.clock == "lane" and moment.name != "emitted"]
    if not done:
        return None
    behind = began[0] - min(done) if began else timedelta()
    ahead = max(done) - ended[0] if ended else timedelta()
    apart, word = max((behind, "behind"), (ahead, "ahead of"))
    if apart <= _TOLERANCE:
        return None
    return (
        f"the clock of lane {lane} is at least {apart / timedelta(milliseconds=1):.0f} ms {word} the one that says when"
        " the command was issued: only times of one clock can be compared"
    )
