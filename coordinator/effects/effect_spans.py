"""The spans about an effect: one from its delivery until its result is safe, and one for each call outside."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from coordinator.client.publish_spans import COMMAND_TYPE
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.recording import Attributes, Recorder, TraceSpan, new_context, recorder
from coordinator.service.outside_calls import EffectRetry, effects_key
from coordinator.service.trace_context import TraceContext, parsed

_PROCESS: Final = "process"
RETRIED: Final = "retried"
"""The error of a call that brought no answer."""


class EffectSpan:
    """The span about one effect in its worker. Without a recorder, or somebody who wants it, it only has the trace."""

    def __init__(self, service: str, message: CommandMessage) -> None:
        recording, cause = recorder(), parsed(message.traceparent, message.tracestate)
        self._service = service
        self._message = message
        self._cause = cause
        self._recording: Recorder | None = None
        self._began_ns = 0
        self.trace: TraceContext | None = cause
        """The trace of what comes of the effect."""
        if recording is not None and cause is not None and cause.is_sampled:
            self._recording = recording
            self._began_ns = recording.clock_ns()
            self.trace = new_context(cause)

    @property
    def cause(self) -> str | None:
        """The `traceparent` of whatever asked for the effect."""
        return None if self._cause is None else self._cause.traceparent

    def end(self) -> None:
        """The effect is done with here: its result is safe, or it is put back, or left."""
        if self._recording is None or self.trace is None or self._cause is None:
            return
        key = effects_key(self._service)
        attributes: Attributes = (
            ("messaging.destination.name", key),
            ("messaging.operation.name", _PROCESS),
            ("messaging.operation.type", _PROCESS),
            ("messaging.message.id", self._message.command_id or ""),
            (COMMAND_TYPE, self._message.type or ""),
        )
        self._recording.note(
            TraceSpan(
                self.trace,
                self._cause.span_id,
                f"{_PROCESS} {key}",
                "consumer",
                self._began_ns,
                self._recording.clock_ns(),
                attributes,
            )
        )

    @contextmanager
    def calling(self, number: int) -> Iterator[None]:
        """Around one call, the `number`-th of this effect."""
        if self._recording is None or self.trace is None:
            yield
            return
        began_ns, error = self._recording.clock_ns(), None
        try:
            yield
        except EffectRetry:
            error = RETRIED
            raise
        except BaseException as raised:
            error = type(raised).__name__
            raise
        finally:
            attributes: Attributes = ((COMMAND_TYPE, self._message.type or ""), ("coordinator.effect.call", number))
            self._recording.note(
                TraceSpan(
                    new_context(self.trace),
                    self.trace.span_id,
                    f"call {self._message.type}",
                    "client",
                    began_ns,
                    self._recording.clock_ns(),
                    attributes,
                    error=error,
                )
            )
