"""The routes of every gateway, beside its service's methods: commands by id, health, readiness, metrics."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import datetime
from http import HTTPStatus
from typing import Final
from uuid import UUID

import msgspec
import structlog
from aiohttp import web
from msgspec import Struct
from prometheus_client import Gauge
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from coordinator.client.database import NoConnectionLeft
from coordinator.client.timeline import (
    LaneTimes,
    Timeline,
    lane_times,
    queued_words,
    settled_timeline,
    with_moments,
)
from coordinator.http.authentication import (
    AUTHENTICATION,
    open_to_all,
    open_without_credential,
    unauthenticated,
)
from coordinator.http.described import described
from coordinator.http.found_commands import COMMAND_LOGS, find_command
from coordinator.http.keys import CONTEXT, LANES, SERVICE_NAME
from coordinator.http.looks import Looks
from coordinator.http.problems import NotReady
from coordinator.http.receipts import RECEIPTS
from coordinator.http.requests import NoQuery, read_query
from coordinator.http.responses import JSON, json_response
from coordinator.http.shown_results import SHOWN_RESULTS
from coordinator.http.timeline_reads import transaction_in, with_standings
from coordinator.protocol.actors import is_anothers, logged_actor
from coordinator.runtime.ending import end_tasks
from coordinator.runtime.metrics_text import METRICS_TEXT
from coordinator.runtime.repeated_line import RepeatedLine
from coordinator.runtime.settings import LaneSettings, load
from coordinator.service.allowing import OPERATOR
from coordinator.service.errors import DatabaseUnavailable, NotFound, Overloaded
from coordinator.service.ids import is_random_id, is_uuid
from coordinator.service.outcome import OutcomeError
from coordinator.service.principal import BROKER_USER
from coordinator.stores.lane_tables import LogEntry
from coordinator.transports.port import CommandTransport

READY_TIMEOUT_S: Final = 2.0
"""A part that has not answered within this time counts as down."""
WATCH_EVERY_S: Final = 1.0
"""How long a gateway rests between two looks at its parts, which it takes whether or not anybody asks it."""

PART_UP: Final = Gauge(
    "coordinator_gateway_part_up", "0 if this part was down when it was looked at last.", ("service", "part")
)

log = structlog.get_logger("gateway")


class Check(Struct, frozen=True):
    """A part of the process that readiness asks. A check that is not `required` is only shown, unless it is
    `needed_now`.

    `problem` says why the part does not do its work, in words for anybody who may ask; None: it does. `reason` says it
    for the log: it may name hosts, which is not for every client. `refusal` says why
    nothing must be served with what it has, as it may be somebody else's.
    """

    name: str
    problem: Callable[[], Awaitable[str | None]]
    required: bool = True
    reason: Callable[[], str] | None = None
    needed_now: Callable[[], bool] = bool
    refusal: Callable[[], str | None] = lambda: None

    @property
    def is_needed(self) -> bool:
        """Whether the process is unready without this part."""
        return self.required or self.needed_now()


class Part:
    """A part as it was when it was looked at last. `said` is the problem that the log had last, while it lasts."""

    def __init__(self) -> None:
        self.said: str | None = None
        self.line = RepeatedLine()


class SettledCommand(Struct, frozen=True, kw_only=True):
    """A command as the command log has it. `status` is `applied`, `rejected`, `failed` or `expired`.

    `result` is the command's result, and null for a command that was not applied.
    """

    command_id: str
    type: str
    status: str
    sequence: int
    result: msgspec.Raw | None
    error: OutcomeError | None
    settled_at: datetime
    timeline: Timeline


class WaitingCommand(Struct, frozen=True, kw_only=True):
    """A command that is safe and not settled yet, with what is known of it."""

    command_id: str
    status: str = "pending"
    timeline: Timeline


class GatewayReadiness(Struct, frozen=True, omit_defaults=True):
    """The state of each part: `ok` or `down`; and of those that are down, why."""

    status: str
    checks: dict[str, str]
    reasons: dict[str, str] = {}


CHECKS: Final = web.AppKey("CHECKS", list[Check])
LOOKS: Final = web.AppKey("LOOKS", Looks)
PARTS: Final = web.AppKey("PARTS", dict[str, Part])
OPEN_TYPES: Final = web.AppKey("OPEN_TYPES", frozenset[str])
"""The types of commands that everybody may issue, whether or not it is known who asks."""
TRANSPORT: Final = web.AppKey("TRANSPORT", CommandTransport)
_WITHHELD: Final = web.AppKey("WITHHELD", RepeatedLine)

routes = web.RouteTableDef()
"""That of a gateway of commands."""
METRICS_PATH: Final = "/metrics"

health_routes = web.RouteTableDef()
"""Those of every gateway."""


@routes.get("/commands/{id}")
@open_without_credential
@described(
    "The outcome of a command and when it came to be, from the log of its lane; 202 while it waits here.",
    path={"id": UUID},
    answer={200: SettledCommand, 202: WaitingCommand},
    reads_rows=True,
    answer_headers=("Command-Id", "Command-Sequence", "Read-After"),
    codes={"command_not_found": 404},
)
async def get_command(request: web.Request) -> web.Response:
    text = request.match_info["id"]
    command_id = text.lower()
    if (
        AUTHENTICATION in request.app
        and request[CONTEXT].principal is None
        and not _may_be_nobodys(request, command_id)
    ):
        raise unauthenticated("a credential is needed: Authorization: Bearer …")
    read_query(request, NoQuery)
    if not is_uuid(text):
        raise NotFound("command_not_found", f"no command has the id {text[:40]!a}: command ids are UUIDs")
    request[CONTEXT].stages.command_id = command_id
    # Ask before the log is read: a command that is settled in between is then found in the log.
    is_pending = request.app[TRANSPORT].pending(command_id)
    found = await find_command(request, request.app[TRANSPORT], command_id, is_pending=is_pending)
    lane, entry = next((each for each in found if _may_see(request, each[1])), ("", None))
    if entry is not None:
        request[CONTEXT].settled_at(lane, entry.sequence)
        settled = _settled(entry, await _timeline(request, lane, entry))
        if settled.result is not None:
            result = request.app[SHOWN_RESULTS].of_logged(request, settled.type, settled.result)
            settled = msgspec.structs.replace(settled, result=result)
        return json_response(settled)
    if is_pending and not found:
        waiting = WaitingCommand(command_id=command_id, timeline=await _waiting(request, command_id))
        return json_response(waiting, status=HTTPStatus.ACCEPTED)
    if is_pending is None and not found:
        # A client that gets a 404 might issue the command again under another id.
        text = f"so many commands wait that this gateway does not know whether {command_id} is one of them"
        raise Overloaded(f"{text}: ask again")
    raise NotFound(
        "command_not_found",
        f"no command {command_id} is settled in this service; one that is still queued is not known yet",
    )


@health_routes.get("/healthz")
@open_to_all
@described("Whether the process serves.", query=None, answer='`{"status": "ok"}`', answer_types={JSON: dict[str, str]})
async def healthz(_request: web.Request) -> web.Response:
    return json_response({"status": "ok"})


@health_routes.get("/readyz")
@open_to_all
@described(
    "Whether each part of the process does its work.",
    query=None,
    answer=GatewayReadiness,
    codes={NotReady.code: 503},
)
async def readyz(request: web.Request) -> web.Response:
    checks = request.app[CHECKS]
    reasons = await request.app[LOOKS].look_for_anybody(request.app)
    states = {check.name: "down" if check.name in reasons else "ok" for check in checks}
    if any(check.name in reasons and check.is_needed for check in checks):
        raise NotReady(states, reasons)
    return json_response(GatewayReadiness("ready", states, reasons))


@health_routes.get(METRICS_PATH)
@open_to_all
@described("Metrics.", query=None, answer="Prometheus' text format", answer_types={"text/plain": str})
async def metrics(_request: web.Request) -> web.Response:
    return web.Response(body=await METRICS_TEXT.latest(), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})


def without_metrics(routes: Iterable[web.AbstractRouteDef]) -> tuple[web.AbstractRouteDef, ...]:
    """Those that a process has at its clients' port where it serves its metrics at one of their own."""
    return tuple(route for route in routes if not (isinstance(route, web.RouteDef) and route.path == METRICS_PATH))


def watch_checks(app: web.Application) -> None:
    """Have an application look at its parts (CHECKS) for as long as it runs: so the log and the metric say by
    themselves how they are, and readiness does where it is asked."""
    app[PARTS], app[LOOKS], app[_WITHHELD] = {}, Looks(_look), RepeatedLine()
    app.cleanup_ctx.append(_watching)


async def _watching(app: web.Application) -> AsyncIterator[None]:
    watching = asyncio.create_task(_watch(app), name=f"parts of {app[SERVICE_NAME]}")
    yield
    await end_tasks(watching)
    await app[LOOKS].close()


async def _watch(app: web.Application) -> None:
    has_failed = False
    while True:
        await asyncio.sleep(WATCH_EVERY_S)
        try:
            await app[LOOKS].look(app)
            has_failed = False
        except Exception:
            # A defect of a check. A request for /readyz gets a 500; the watch goes on.
            if not has_failed:
                log.exception("internal_error", service=app[SERVICE_NAME])
            has_failed = True


async def _look(app: web.Application) -> dict[str, str]:
    """Why parts are down, by their names; and note it."""
    checks = app[CHECKS]
    problems = await asyncio.gather(*(_problem(check) for check in checks))
    for check, problem in zip(checks, problems, strict=True):
        _note(app, check, problem)
    return {check.name: problem for check, problem in zip(checks, problems, strict=True) if problem is not None}


def _note(app: web.Application, check: Check, problem: str | None) -> None:
    """Log what has changed since the last look, and keep it for the metric."""
    part = app[PARTS].setdefault(check.name, Part())
    names = {"service": app[SERVICE_NAME], "part": check.name}
    PART_UP.labels(*names.values()).set(problem is None)
    if problem is None:
        if part.said is not None:
            log.info("part_up", **names)
        part.said = None
    elif problem != part.said and (part.line.is_due(problem, time.monotonic()) or part.said is None):
        # Another reason may be one that somebody has to act on. Reasons that alternate get a line a minute.
        part.said = problem
        log.error("part_down", **names, reason=problem if check.reason is None else check.reason())


async def _problem(check: Check) -> str | None:
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            return await check.problem()
    except NoConnectionLeft as error:
        return str(error)
    except (TimeoutError, DatabaseUnavailable):
        return f"the {check.name} does not answer"


def _may_see(request: web.Request, entry: LogEntry) -> bool:
    """Whether whoever asks may see what became of a command: his own, or with the scope of an operator everybody's."""
    if AUTHENTICATION not in request.app:
        return True
    principal = request[CONTEXT].principal
    if entry.actor is None and entry.type in request.app[OPEN_TYPES] and _may_be_nobodys(request, entry.command_id):
        return True
    if principal is None:
        return False
    # What else nobody known asked for is an operator's to look at.
    if OPERATOR in principal.scopes or (entry.actor is not None and not is_anothers(entry.actor, principal)):
        return True
    is_of_account = entry.actor is not None and logged_actor(entry.actor).subject.startswith(BROKER_USER)
    if is_of_account and request.app[_WITHHELD].is_due(entry.actor or "", time.monotonic()):
        # The lane knows no gateway by this account, or the command came through AMQP from somebody else.
        log.warning("outcome_withheld", command_id=entry.command_id, actor=entry.actor, setting="LANE_GATEWAY_ACCOUNTS")
    return False


def _may_be_nobodys(request: web.Request, command_id: str) -> bool:
    """Whether it may be the id of a command that everybody may issue, and that nobody guesses: whoever names it has got
    it from the answer to that command. One of an idempotency key can be made from the key."""
    return bool(request.app[OPEN_TYPES]) and is_uuid(command_id) and is_random_id(command_id)


async def _timeline(request: web.Request, lane: str, entry: LogEntry) -> Timeline:
    """Of whoever may see the command: who asked for it is known to him, or he is an operator."""
    actor = None if entry.actor is None else logged_actor(entry.actor)
    timeline = msgspec.structs.replace(settled_timeline(lane, entry), actor=actor)
    gateway, logs = request.app[RECEIPTS].times_of(entry.command_id, actor), request.app[COMMAND_LOGS]
    times = lane_times(entry)
    # The outcome is known, and is the answer: what else there is to know is left out where the log answers no more.
    with suppress(DatabaseUnavailable):
        if (batch := await transaction_in(logs.of(lane), entry)) is not None:
            timeline = msgspec.structs.replace(timeline, batch_size=batch.size, place=batch.place)
            times = msgspec.structs.replace(times, committing_at=batch.committing_at, committed_at=batch.committed_at)
        timeline = await with_standings(timeline, logs)
    return with_moments(timeline, gateway, times)


async def _waiting(request: web.Request, command_id: str) -> Timeline:
    # Whose it is nobody knows yet: of others' requests nothing is told.
    receipts, asker = request.app[RECEIPTS], request[CONTEXT].principal
    lanes = request.app[LANES]
    lane = lanes[0] if len(lanes) == 1 else receipts.lane_of(command_id, asker)
    ready = None if lane is None else await request.app[TRANSPORT].waiting(lane)
    timeline = Timeline(
        command_id=command_id,
        standing="queued",
        # No gateway but that of the lane's own process could tell that it has come, and waits behind one that failed.
        where=None if lane is None else f"{queued_words(lane, ready)}, or waiting there for its key",
        lane=lane,
        # The broker does not tell how many of the messages that a coordinator may hold it does hold.
        waiting_before=None if ready is None else ready + load(LaneSettings).prefetch,
    )
    return with_moments(timeline, receipts.times_of(command_id, asker), LaneTimes())


def _settled(entry: LogEntry, timeline: Timeline) -> SettledCommand:
    return SettledCommand(
        command_id=entry.command_id,
        type=entry.type,
        status=entry.status,
        sequence=entry.sequence,
        result=None if entry.result is None else msgspec.Raw(entry.result.encode()),
        error=None
        if entry.error_code is None
        else OutcomeError(code=entry.error_code, message=entry.error_message or ""),
        settled_at=entry.settled_at,
        timeline=timeline,
    )
