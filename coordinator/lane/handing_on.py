"""The trace of whatever a command leads to: that of the command itself.

It is decided by the command alone. A lane that applies a command again, after a doubtful commit, writes the same rows.
"""

from typing import Final

from coordinator.runtime.recording import recorder
from coordinator.service.trace_context import TraceContext, child_span_id, parsed

PROCESS: Final = "process"
"""The span about a command in its lane."""
_NO_TRACE: Final = (None, None)


def process_context(command_id: str, cause: TraceContext) -> TraceContext:
    """The span about a command in its lane; `cause` is the span that issued the command."""
    return TraceContext(cause.trace_id, child_span_id(PROCESS, command_id, cause), cause.flags, cause.tracestate)


def handed_on(command_id: str, traceparent: str | None, tracestate: str | None) -> tuple[str | None, str | None]:
    """The `traceparent` and `tracestate` of what the command leads to; None where it belongs to no trace.

    Where this process records spans, the cause is its own span about the command. Elsewhere it passes on what it got.
    """
    if traceparent is None or (cause := parsed(traceparent, tracestate)) is None:
        return _NO_TRACE
    if cause.is_sampled and recorder() is not None:
        cause = process_context(command_id, cause)
    return cause.traceparent, cause.tracestate
