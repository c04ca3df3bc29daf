"""The spans about a lane's batches: one for each batch, with its reads, its commit and its replies, and one for each
command of a trace that somebody wants.

A command's spans are in its own trace. The batch's are there, too, if its commands are of one trace; else the batch
has a trace of its own, with a link to each command's cause, and each command's span has a link to the batch.
"""

from typing import Final

from coordinator.client.publish_spans import COMMAND_SEQUENCE, COMMAND_STATUS, COMMAND_TYPE
from coordinator.lane.delivery import Settlement, Suspension, TracedCommand
from coordinator.lane.handing_on import PROCESS, process_context
from coordinator.runtime.addresses import Address
from coordinator.runtime.awaited import Awaited
from coordinator.runtime.recording import (
    Attributes,
    CommonAttributes,
    Recorder,
    SpanKind,
    TraceSpan,
    new_context,
    new_trace,
    recorder,
)
from coordinator.service.trace_context import TraceContext
from coordinator.stores.port import Lease
from coordinator.stores.watched import COMMIT, READ
from coordinator.worker.loop import Observer

APPLIED_US: Final = "coordinator.command.applied_us"
"""How long its rule and its handler took."""
_CALLS_MAX: Final = 1000
"""The first of more calls are forgotten: a lane that has nothing to settle looks at its database all the same."""
_KINDS_MAX: Final = 1000
"""Strangers may send any type."""
_OPERATIONS: Final = {READ: "SELECT", COMMIT: "COMMIT"}


class TimedAwaited(Awaited):
    """As its base, and it keeps when the calls of the database began and ended, until they are taken."""

    __slots__ = ("_calls", "_recording")

    def __init__(self, recording: Recorder) -> None:
        super().__init__()
        self._recording = recording
        self._calls: list[tuple[str, int, int]] = []

    def begin(self, what: str) -> str | None:
        if what in _OPERATIONS:
            if len(self._calls) >= _CALLS_MAX:
                self._calls.clear()
            self._calls.append((what, self._recording.clock_ns(), 0))
        return super().begin(what)

    def end(self, before: str | None) -> None:
        if self._calls and self._calls[-1][2] == 0:
            what, began_ns, _ = self._calls[-1]
            self._calls[-1] = (what, began_ns, self._recording.clock_ns())
        super().end(before)

    def take(self) -> list[tuple[str, int, int]]:
        """The calls since the last time: what, and its begin and its end in nanoseconds since the Unix epoch."""
        taken, self._calls = self._calls, []
        return taken


def awaited_of_lane() -> Awaited:
    """What a lane's thread waits for: with the times of calls, where spans are recorded."""
    recording = recorder()
    return Awaited() if recording is None else TimedAwaited(recording)


def database_attributes(address: Address) -> Attributes:
    """What is said of each call to the database of an address: no user, and no password."""
    kind: Attributes = (("db.system.name", address.folder),)
    if not address.hosts:
        return kind  # a file, whose path is nobody's affair
    where: Attributes = (*kind, ("db.namespace", address.database))
    if len(address.hosts) > 1:
        # The driver takes one of them, or several.
        return (*where, ("server.address", ", ".join(map(str, address.hosts))))
    (host,) = address.hosts
    where = (*where, ("server.address", host.name))
    return where if host.port is None else (*where, ("server.port", host.port))


class TracedObserver:
    """Implements `Observer` by another one, and notes spans about what is settled."""

    def __init__(
        self,
        observer: Observer,
        recording: Recorder,
        lane: str,
        awaited: TimedAwaited,
        *,
        database: Attributes = (),
        messaging: Attributes = (),
    ) -> None:
        """`database` and `messaging` are what is said of each call to the database, and of each command and batch."""
        self._observer = observer
        self._recording = recording
        self._lane = lane
        self._awaited = awaited
        self._database: Attributes = (*database, ("coordinator.lane", lane))
        self._messaging: Attributes = (
            *messaging,
            ("messaging.destination.name", lane),
            ("messaging.operation.name", PROCESS),
            ("messaging.operation.type", PROCESS),
            ("coordinator.lane", lane),
        )
        self._common: dict[tuple[str, str], CommonAttributes] = {}
        self._began_ns = 0
        self._decided_ns = 0

    def has_lease(self, lease: Lease | None, takeovers: int) -> None:
        self._observer.has_lease(lease, takeovers)

    def decided(self, seconds: float) -> None:
        self._decided_ns = self._recording.clock_ns()
        self._began_ns = self._decided_ns - int(seconds * 1_000_000_000)
        self._observer.decided(seconds)

    def settled(self, settlement: Settlement, gaps: int, sequence: int | None) -> None:
        self._observer.settled(settlement, gaps, sequence)
        calls = self._awaited.take()
        if settlement.traced:
            self._note(settlement, calls)

    def suspended(self, suspension: Suspension, *, is_first: bool) -> None:
        self._observer.suspended(suspension, is_first=is_first)

    def deposed(self) -> None:
        self._observer.deposed()

    def projection_failed(self, error: BaseException) -> None:
        self._observer.projection_failed(error)

    def _note(self, settlement: Settlement, calls: list[tuple[str, int, int]]) -> None:
        commands, now_ns = settlement.traced, self._recording.clock_ns()
        owns = [_own_context(command) for command in commands]
        is_one_trace = len({own.trace_id for own in owns}) == 1
        batch = new_context(owns[0]) if is_one_trace else new_trace()
        self._recording.note(
            TraceSpan(
                batch,
                owns[0].span_id if is_one_trace else "",
                f"batch {self._lane}",
                "consumer",
                self._began_ns,
                now_ns,
                (*self._messaging, ("messaging.batch.message_count", len(settlement.outcomes))),
                tuple(command.cause for command in commands),
            )
        )
        links = () if is_one_trace else (batch,)
        for command, own in zip(commands, owns, strict=True):
            self._note_command(command, own, now_ns, links)
        for what, began_ns, ended_ns in calls:
            if began_ns >= self._began_ns and ended_ns:
                attributes: Attributes = (*self._database, ("db.operation.name", _OPERATIONS[what]))
                self._note_part(batch, f"{_OPERATIONS[what]} {self._lane}", "client", began_ns, ended_ns, attributes)
        if settlement.replies:
            self._note_part(batch, f"reply {self._lane}", "producer", self._decided_ns, now_ns, self._messaging[:1])

    def _note_command(
        self, command: TracedCommand, own: TraceContext, now_ns: int, links: tuple[TraceContext, ...]
    ) -> None:
        outcome = command.outcome
        attributes: Attributes = (("messaging.message.id", outcome.command_id or ""),)
        if outcome.sequence is not None:
            attributes += ((COMMAND_SEQUENCE, outcome.sequence),)
        if command.applied_ns is not None:
            # No span of its own: that would cost as much as this one, for what most often takes microseconds.
            began_ns, done_ns = command.applied_ns
            attributes += ((APPLIED_US, (done_ns - began_ns) // 1000),)
        error = outcome.error.code if outcome.status == "failed" and outcome.error is not None else None
        span = TraceSpan(
            own,
            command.cause.span_id,
            f"{PROCESS} {self._lane}",
            "consumer",
            self._began_ns,
            now_ns,
            attributes,
            links,
            error,
            self._answering(outcome.type or "", outcome.status),
        )
        self._recording.note(span)

    def _answering(self, command_type: str, status: str) -> CommonAttributes:
        """What is said of all commands of this type that end so: the same object each time, as it is encoded once."""
        known = self._common.get((command_type, status))
        if known is None:
            if len(self._common) >= _KINDS_MAX:
                self._common.clear()
            attributes = (*self._messaging, (COMMAND_TYPE, command_type), (COMMAND_STATUS, status))
            known = CommonAttributes(attributes)
            self._common[command_type, status] = known
        return known

    def _note_part(
        self,
        within: TraceContext,
        name: str,
        kind: SpanKind,
        began_ns: int,
        ended_ns: int,
        attributes: Attributes = (),
    ) -> None:
        self._recording.note(TraceSpan(new_context(within), within.span_id, name, kind, began_ns, ended_ns, attributes))


def _own_context(command: TracedCommand) -> TraceContext:
    """That which the command has handed on; a repetition hands on nothing, and has another one."""
    if command.outcome.replayed:
        return new_context(command.cause)
    return process_context(command.outcome.command_id or "", command.cause)
