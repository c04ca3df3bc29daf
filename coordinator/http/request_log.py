"""One log line and the metrics of every request, once its response is written.

aiohttp calls this in place of its access log, even for requests that never reached the application, such as bytes
that are not HTTP.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http import HTTPStatus
from time import perf_counter
from typing import Final

import structlog
from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from prometheus_client import Counter, Gauge, Histogram

from coordinator.http.connections import HEALTH_PATHS
from coordinator.http.keys import CONTEXT, RequestContext
from coordinator.http.request_spans import UNMATCHED, note_request
from coordinator.runtime.log_lines import PERSONAL
from coordinator.runtime.recording import recorder
from coordinator.runtime.telemetry import Stage, whole_us
from coordinator.service.unshown import is_unshown

REQUESTS: Final = Counter(
    "coordinator_gateway_requests_total", "Requests answered.", ("service", "method", "route", "status")
)
SECONDS: Final = Histogram(
    "coordinator_gateway_request_seconds",
    "From a request's arrival until its response is written.",
    ("service", "route"),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
STAGE_SECONDS: Final = Histogram(
    "coordinator_gateway_stage_seconds",
    "What a write spends in each stage: validate, publish, apply, reply.",
    ("service", "stage"),
    buckets=(0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
COMMANDS: Final = Counter(
    "coordinator_gateway_commands_total", "Commands of `POST /commands`, by status.", ("service", "status")
)
IN_FLIGHT: Final = Gauge("coordinator_gateway_in_flight", "Requests being served.", ("service",))

ERROR_CHARACTERS_MAX: Final = 500
# A label for every made-up method would be a metric for each.
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

log = structlog.get_logger("gateway")

_last_status: dict[tuple[str, str], int] = {}
"""By services and the paths that tell how it is."""


class RequestLog(AbstractAccessLogger):
    """Writes the event `request`, with the names of OpenTelemetry's semantic conventions for HTTP."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """`time` is in seconds, from the request's arrival."""
        service, route, context = _whereabouts(request)
        method = request.method if request.method in METHODS else "other"
        if context is not None:
            # `time` comes from uvloop's clock, which counts whole milliseconds.
            time = perf_counter() - context.arrived_s
        _requests(service, method, route, response.status).inc()
        _seconds(service, route).observe(time)
        personal: dict[str, object] = {"url.path": request.rel_url.raw_path, "client.address": request.remote}
        line: dict[str, object] = {
            "service": service,
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": response.status,
            "http.response.body.size": response.body_length,
            "duration_ms": whole_us(time * 1000),
            PERSONAL: personal,
        }
        if context is not None:
            line |= _of_context(context, service, response.status)
            personal |= _about_persons(context)
            if (recording := recorder()) is not None and context.trace.is_sampled and route not in HEALTH_PATHS:
                note_request(recording, context, method, route, response.status)
        if _is_told(service, route, method, response.status):
            log.info("request", **line)
        else:
            log.debug("request", **line)


def _is_told(service: str, route: str, method: str, status: int) -> bool:
    """What asks a process how it is asks it every few seconds: only another status than the last time is news."""
    if route not in HEALTH_PATHS or method not in {"GET", "HEAD"}:
        return True
    last = _last_status.get((service, route))
    _last_status[service, route] = status
    return status != last


class Serving:
    """The requests that a service's gateway is serving; the metric is read from here."""

    __slots__ = ("_awaited", "number")

    def __init__(self) -> None:
        self.number = 0
        self._awaited = 0

    @property
    def number_without_awaited(self) -> int:
        """Those whose bodies are there. The others give way, where connections are short."""
        return self.number - self._awaited

    @contextmanager
    def awaiting_body(self) -> Iterator[None]:
        """While the body of one of them is on its way."""
        self._awaited += 1
        try:
            yield
        finally:
            self._awaited -= 1


@cache
def in_flight_of(service: str) -> Serving:
    """Of the gateway of this service."""
    serving = Serving()
    IN_FLIGHT.labels(service).set_function(lambda: serving.number)
    return serving


@cache
def _requests(service: str, method: str, route: str, status: int) -> Counter:
    return REQUESTS.labels(service, method, route, status)


@cache
def _seconds(service: str, route: str) -> Histogram:
    return SECONDS.labels(service, route)


@cache
def _stage_seconds(service: str, stage: Stage) -> Histogram:
    return STAGE_SECONDS.labels(service, stage)


def _whereabouts(request: web.BaseRequest) -> tuple[str, str, RequestContext | None]:
    context = request.get(CONTEXT)
    if context is None or not isinstance(request, web.Request):
        return "", UNMATCHED, None
    resource = request.match_info.route.resource
    return context.service, UNMATCHED if resource is None else resource.canonical, context


def _of_context(context: RequestContext, service: str, status: int) -> dict[str, object]:
    stages = context.stages
    if stages.spent_ms:
        stages.end("reply")
    for stage, spent_ms in stages.spent_ms.items():
        _stage_seconds(service, stage).observe(spent_ms / 1000)
    line: dict[str, object] = {
        "trace_id": context.trace.trace_id,
        "span_id": context.trace.span_id,
        "command_id": stages.command_id,
        "sequence": stages.sequence,
        "stages": stages.spent_ms,
    }
    if context.statuses is not None:
        for command_status, count in context.statuses.items():
            COMMANDS.labels(service, command_status).inc(count)
        line |= {"commands": sum(context.statuses.values()), "statuses": context.statuses}
    if context.error is not None:
        code = getattr(context.error, "code", None)
        line["error.type"] = code or type(context.error).__name__
        is_of_request = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
        if not is_of_request or is_unshown(code):
            # What is wrong on this side, which the answer does not say. What is wrong with a request repeats it.
            line["error"] = _text_of(context.error)
    return line


def _about_persons(context: RequestContext) -> dict[str, object]:
    """What the line has only where a setting says so."""
    about: dict[str, object] = {}
    if context.principal is not None:
        about["user.id"] = context.principal.subject
    if context.error is not None:
        about["error"] = _text_of(context.error)
    return about


def _text_of(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:ERROR_CHARACTERS_MAX]
