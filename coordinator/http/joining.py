"""Requests that belong to the trace of what they are about, such as the events of a provider."""

import structlog
from aiohttp import web

from coordinator.http.keys import CONTEXT
from coordinator.runtime.telemetry import span_within
from coordinator.service.trace_context import TraceContext, parsed


def join_trace(request: web.Request, traceparent: str | None, tracestate: str | None = None) -> TraceContext:
    """Have a request belong to this trace from now on, and its log line; return the trace of what it issues.

    For a caller who knows no traces, and brings back what he was given. A `traceparent` that is missing or malformed
    changes nothing.
    """
    context = request[CONTEXT]
    caller = parsed(traceparent, tracestate)
    if caller is not None:
        context.caller, context.trace = caller, span_within(caller)
        structlog.contextvars.bind_contextvars(trace_id=caller.trace_id, span_id=caller.span_id)
    return context.trace
