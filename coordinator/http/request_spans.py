"""The span about a request, in the names of OpenTelemetry's semantic conventions for HTTP.

It has the route, and neither the path nor the query: these may name a person.
"""

from time import perf_counter
from typing import Final

from coordinator.http.keys import RequestContext
from coordinator.runtime.recording import Attributes, Recorder, TraceSpan

UNMATCHED: Final = "unmatched"
"""The route of a request that is of none."""
_DEFECT: Final = 500


def note_request(recording: Recorder, context: RequestContext, method: str, route: str, status: int) -> None:
    """A request of a trace that is sampled has been answered just now."""
    now_ns = recording.clock_ns()
    began_ns = now_ns - int((perf_counter() - context.arrived_s) * 1_000_000_000)
    is_matched = route != UNMATCHED
    shown = method if method != "other" else "HTTP"
    attributes: Attributes = (
        ("http.request.method", method if method != "other" else "_OTHER"),
        ("http.response.status_code", status),
    )
    if is_matched:
        attributes += (("http.route", route),)
    if context.stages.command_id is not None:
        attributes += (("coordinator.command.id", context.stages.command_id),)
    recording.note(
        TraceSpan(
            context.trace,
            "" if context.caller is None else context.caller.span_id,
            f"{shown} {route}" if is_matched else shown,
            "server",
            began_ns,
            now_ns,
            attributes,
            error=str(status) if status >= _DEFECT else None,
        )
    )
