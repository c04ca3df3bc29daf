"""The span about a request, in the names of OpenTelemetry's semantic conventions for HTTP.

It has the route, and neither the path nor the query: these may name a person.
"""

from functools import cache
from time import perf_counter
from typing import Final

from coordinator.http.keys import RequestContext
from coordinator.runtime.recording import Attributes, CommonAttributes, Recorder, TraceSpan

UNMATCHED: Final = "unmatched"
"""The route of a request that is of none."""
_DEFECT: Final = 500


def note_request(recording: Recorder, context: RequestContext, method: str, route: str, status: int) -> None:
    """A request of a trace that is sampled has been answered just now."""
    now_ns = recording.clock_ns()
    began_ns = now_ns - int((perf_counter() - context.arrived_s) * 1_000_000_000)
    command_id = context.stages.command_id
    recording.note(
        TraceSpan(
            context.trace,
            "" if context.caller is None else context.caller.span_id,
            _name_of(method, route),
            "server",
            began_ns,
            now_ns,
            () if command_id is None else (("coordinator.command.id", command_id),),
            error=str(status) if status >= _DEFECT else None,
            common=_answering(method, route, status),
        )
    )


@cache
def _name_of(method: str, route: str) -> str:
    shown = "HTTP" if method == "other" else method
    return shown if route == UNMATCHED else f"{shown} {route}"


@cache
def _answering(method: str, route: str, status: int) -> CommonAttributes:
    shown = "_OTHER" if method == "other" else method
    attributes: Attributes = (("http.request.method", shown), ("http.response.status_code", status))
    return CommonAttributes(attributes if route == UNMATCHED else (*attributes, ("http.route", route)))
