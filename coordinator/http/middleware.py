"""Around every request: its trace and stages, and every error turned into a problem."""

from collections.abc import Sequence
from typing import Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from coordinator.client.acting import Acting, Issued, begin_acting
from coordinator.client.recency import NeededRecency, need_recency
from coordinator.http.authentication import Authentication, is_open_to_all
from coordinator.http.connections import giving_way
from coordinator.http.expecting import ask_for_body
from coordinator.http.headers import read_after, read_after_text
from coordinator.http.hooks import HOOKS, Exchange
from coordinator.http.keys import CONTEXT, LANES, READ_DATABASES, RequestContext
from coordinator.http.own_machine import check_own_machine
from coordinator.http.principal_limits import TooManyRequests
from coordinator.http.problems import answer_to, problem_response
from coordinator.http.request_log import in_flight_of
from coordinator.http.responses import accepted_response
from coordinator.http.waiting_requests import hold_back, room_for_read
from coordinator.runtime.telemetry import begin_stages, span_within
from coordinator.service.errors import CommandFailed, CommandPending, CommandRejected, OutcomeUnreadable, UnreadableRow
from coordinator.service.ids import is_key_id
from coordinator.service.principal import Principal
from coordinator.service.trace_context import parsed

_READS: Final = ("GET", "HEAD")

log = structlog.get_logger("gateway")


@web.middleware
async def serve(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Serve one request. It raises only a cancellation; the worst answer is a 500 that shows no traceback."""
    traceparents = request.headers.getall("traceparent", ())
    caller = parsed(traceparents[0], _tracestate_of(request)) if len(traceparents) == 1 else None
    trace = span_within(caller)
    # aiohttp serves every request in a task, and so in a context, of its own: there is no need to unbind.
    structlog.contextvars.bind_contextvars(trace_id=trace.trace_id, span_id=trace.span_id)
    stages, acting = begin_stages(trace), begin_acting()
    app = request.app
    context = request[CONTEXT] = RequestContext(trace, stages, app, caller)
    in_flight = in_flight_of(context.service)
    in_flight.number += 1
    try:
        response = await _answered(request, handler, context, acting)
        hooks = app[HOOKS]
        if hooks.has_on_response:
            await hooks.responding(Exchange(request, response), acting.issued)
    finally:
        in_flight.number -= 1
    if context.share is not None:
        context.share.tell(response.headers, is_refused=isinstance(context.error, TooManyRequests))
    if stages.command_id is not None:
        response.headers["Command-Id"] = stages.command_id
    if stages.sequence is not None:
        response.headers["Command-Sequence"] = str(stages.sequence)
    if context.places is not None:
        response.headers["Read-After"] = read_after_text(context.places)
    return response


def _tracestate_of(request: web.Request) -> str | None:
    """That of a request with several is all of them, in their order."""
    return ",".join(request.headers.getall("tracestate", ())) or None


async def _answered(
    request: web.Request, handler: Handler, context: RequestContext, acting: Acting
) -> web.StreamResponse:
    try:
        authentication = context.authentication
        if authentication is not None and not is_open_to_all(request, handler):
            principal = authentication.known(request) or await _asker(request, authentication)
            if principal is not None:
                context.principal = acting.actor = principal
                share = context.share = authentication.limits.share_of(principal)
                if share is not None:
                    share.take_request()
        if context.asked_as is not None:
            check_own_machine(request, context.asked_as)
        await ask_for_body(request, context.settings.body_bytes_max)
        needs = "Read-After" in request.headers and request.method in _READS and READ_DATABASES in request.app
        return await (_recent(request, handler) if needs else handler(request))
    except CommandPending as pending:
        if isinstance(pending, OutcomeUnreadable):
            context.error = pending
        return _accepted(pending.command_id, context)
    except Exception as error:  # the boundary: the client gets a problem for any error
        context.error = error
        if isinstance(error, UnreadableRow):
            path, (table, key, column) = request.rel_url.raw_path, (error.table, error.key, error.column)
            log.error("row_unreadable", personal={"url.path": path}, table=table, key=key, column=column)
        elif answer_to(error).status == web.HTTPInternalServerError.status_code:
            log.exception("internal_error", personal={"url.path": request.rel_url.raw_path})
        return await _problem(request, context, acting.issued, error)


async def _asker(request: web.Request, authentication: Authentication) -> Principal | None:
    """Who asks, found out with or without a wait. Raises RequestRefused (401), and Unavailable."""
    # A made-up credential may wait for the keys of an issuer, and strangers send many: they keep no place from others.
    with giving_way(request):
        return await authentication.asker_of(request)


async def _problem(
    request: web.Request, context: RequestContext, issued: Sequence[Issued], error: Exception
) -> web.StreamResponse:
    """The answer to a request that has failed; that its command is accepted, if it may have been applied."""
    settled_id = None if isinstance(error, CommandRejected | CommandFailed) else _settled_id(issued)
    if settled_id is not None:
        return _accepted(settled_id, context)
    if isinstance(error, TooManyRequests) and error.is_repeated:
        await hold_back(request)
    return problem_response(
        request,
        error,
        command_id=context.stages.command_id,
        trace_id=context.trace.trace_id,
        is_repeatable=context.is_repeatable,
        retry_after_s=context.settings.retry_after_s,
    )


async def _recent(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The answer to a read that says how recent it must be. Raises RequestRefused (400), and the reads' NotRecent."""
    lanes, databases = request.app[LANES], request.app[READ_DATABASES]
    places = read_after(request.headers.getall("Read-After"), lanes)
    wait_s = request[CONTEXT].settings.read_after_wait_ms / 1000
    needed = NeededRecency(places, databases, wait_s, room_for_read(request))
    # A request is served in a context of its own.
    need_recency(needed)
    response = await handler(request)
    if needed.served:
        response.headers["Served-By"] = ", ".join(needed.served)
    return response


def _accepted(command_id: str, context: RequestContext) -> web.Response:
    response = accepted_response(command_id, context.preferences, context.settings.wait_s)
    if context.authentication is not None and context.principal is None and is_key_id(command_id):
        # Others can make this id from the key: the outcome is for whoever sends the command once more, with the key.
        del response.headers["Location"]
    return response


def _settled_id(issued: Sequence[Issued]) -> str | None:
    """The request's command if it has its outcome: after that, no answer may say that nothing was done."""
    return next((each.message.command_id for each in issued if each.outcome is not None), None)
