"""Spans about commands that are handed over, and about the wait for their outcomes."""

from collections.abc import Coroutine
from functools import lru_cache
from typing import Any, Final

import msgspec
from msgspec import Struct

from coordinator.client.writes import Writes
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.recording import Attributes, CommonAttributes, Recorder, TraceSpan, new_context, recorder
from coordinator.runtime.telemetry import Stages, current_stages
from coordinator.service.errors import CommandPending
from coordinator.service.outcome import Outcome
from coordinator.service.trace_context import TraceContext, child_span_id, is_unsampled, parsed

PUBLISH: Final = "publish"
_REMEMBERED_MAX: Final = 1000
"""How many sets of attributes are remembered: there are few types of commands."""
COMMAND_TYPE: Final = "coordinator.command.type"
COMMAND_STATUS: Final = "coordinator.command.status"
COMMAND_SEQUENCE: Final = "coordinator.command.sequence"


def messaging(*, is_rabbitmq: bool) -> Attributes:
    """What is said of each message: which system carries it."""
    return (("messaging.system", "rabbitmq" if is_rabbitmq else "write-coordinator"),)


class PublishSpan(Struct, frozen=True):
    """The span about one command that is handed over. `cause` is the span that issues it."""

    recording: Recorder
    context: TraceContext
    cause: TraceContext
    message: CommandMessage
    began_ns: int

    @property
    def carried(self) -> CommandMessage:
        """The command as it is handed over: this span is its cause."""
        return msgspec.structs.replace(self.message, traceparent=self.context.traceparent)

    def end(
        self,
        destination: str,
        attributes: Attributes,
        ended_ns: int | None = None,
        error: str | None = None,
    ) -> None:
        """It is handed over, or the attempt has failed. `destination` names where to."""
        message = self.message
        self.recording.note(
            TraceSpan(
                self.context,
                self.cause.span_id,
                f"{PUBLISH} {destination}",
                "producer",
                self.began_ns,
                self.recording.clock_ns() if ended_ns is None else ended_ns,
                (("messaging.message.id", message.command_id or ""),),
                error=error,
                common=_publishing(attributes, destination, message.type or ""),
            )
        )


@lru_cache(maxsize=_REMEMBERED_MAX)
def _publishing(attributes: Attributes, destination: str, command_type: str) -> CommonAttributes:
    return CommonAttributes(
        (
            *attributes,
            ("messaging.operation.name", PUBLISH),
            ("messaging.operation.type", "send"),
            ("messaging.destination.name", destination),
            (COMMAND_TYPE, command_type),
        )
    )


@lru_cache(maxsize=_REMEMBERED_MAX)
def _waiting(command_type: str, status: str) -> CommonAttributes:
    return CommonAttributes(((COMMAND_TYPE, command_type), (COMMAND_STATUS, status)))


def publish_span_of(message: CommandMessage) -> PublishSpan | None:
    """The span that begins now; None: nobody wants it.

    Its id is made from the command's: whoever hands the same command on again does it by the same span.
    """
    recording = recorder()
    if recording is None or message.traceparent is None or is_unsampled(message.traceparent):
        return None
    cause = parsed(message.traceparent, message.tracestate)
    if cause is None or not cause.is_sampled:
        return None
    span_id = child_span_id(PUBLISH, message.command_id or "", cause)
    context = TraceContext(cause.trace_id, span_id, cause.flags, cause.tracestate)
    return PublishSpan(recording, context, cause, message, recording.clock_ns())


class TracedWrites:
    """Implements `Writes` around another, with a span about each command that is issued and one about its outcome."""

    def __init__(self, writes: Writes, attributes: Attributes) -> None:
        """`attributes` are what is said of each command that is handed over (`messaging`)."""
        self._writes = writes
        self._attributes = attributes

    def issue(self, lane: str, message: CommandMessage, wait_s: float | None) -> Coroutine[Any, Any, Outcome]:
        stages = current_stages()
        span = _issuing(message, stages)
        # No coroutine around another one for the many that nobody wants.
        return self._writes.issue(lane, message, wait_s) if span is None else self._issue(span, lane, wait_s, stages)

    async def _issue(self, span: PublishSpan, lane: str, wait_s: float | None, stages: Stages | None) -> Outcome:
        before_ms = 0.0 if stages is None else stages.spent_ms.get("publish", 0.0)
        outcome: Outcome | None = None
        error: str | None = None
        try:
            outcome = await self._writes.issue(lane, span.carried, wait_s)
        except BaseException as raised:
            # One that is pending is no failure.
            error = None if isinstance(raised, CommandPending) else type(raised).__name__
            raise
        else:
            return outcome
        finally:
            published_ms = None if stages is None else stages.spent_ms.get("publish")
            self._note(lane, span, outcome, error, None if published_ms is None else published_ms - before_ms)

    def _note(
        self, lane: str, span: PublishSpan, outcome: Outcome | None, error: str | None, published_ms: float | None
    ) -> None:
        """The transport tells when it was safe; without that there is only the whole time."""
        recording, now_ns = span.recording, span.recording.clock_ns()
        if published_ms is None:
            span.end(lane, self._attributes, now_ns, error)
            return
        safe_ns = min(now_ns, span.began_ns + int(published_ms * 1_000_000))
        span.end(lane, self._attributes, safe_ns)
        status = "pending" if outcome is None else outcome.status
        sequence = None if outcome is None else outcome.sequence
        recording.note(
            TraceSpan(
                new_context(span.cause),
                span.cause.span_id,
                f"wait {lane}",
                "internal",
                safe_ns,
                now_ns,
                () if sequence is None else ((COMMAND_SEQUENCE, sequence),),
                error=error,
                common=_waiting(span.message.type or "", status),
            )
        )


def _issuing(message: CommandMessage, stages: Stages | None) -> PublishSpan | None:
    """The span about a command that is issued now, by the request that is served or another span; None: as there."""
    recording, traceparent = recorder(), message.traceparent
    if recording is None or traceparent is None or is_unsampled(traceparent):
        return None
    cause = None if stages is None else stages.trace
    if cause is None or cause.traceparent != traceparent or cause.tracestate != message.tracestate:
        cause = parsed(traceparent, message.tracestate)
        if cause is None or not cause.is_sampled:
            return None
    return PublishSpan(recording, new_context(cause), cause, message, recording.clock_ns())
