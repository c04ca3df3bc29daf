"""The pages: files of this package, and the session and the events of whoever has one open."""

import asyncio
import time
from collections import Counter
from http import HTTPStatus
from importlib.resources import files
from typing import Final

from aiohttp import web
from msgspec import Struct

from coordinator.http.problems import RequestRefused
from coordinator.http.responses import json_response
from coordinator.operations.content import view_without_content
from coordinator.operations.doors import SESSIONS, operators_words, read_json
from coordinator.operations.lane_access import LaneRights
from coordinator.operations.lane_routes import COLLECTOR, THREADS
from coordinator.operations.sessions import CREDENTIAL_CHARACTERS_MAX, check_origin
from coordinator.operations.settled_commands import KnownCommand, known_command
from coordinator.operations.views import LanePoint, LaneView
from coordinator.service.errors import NotFound, Unavailable
from coordinator.service.ids import is_uuid
from coordinator.service.json_text import to_json

VIEWERS: Final = web.AppKey("VIEWERS", int)
WATCHED_BY: Final[web.AppKey[Counter[str]]] = web.AppKey("WATCHED_BY")
"""How many pages each who signed in has open."""
STOPPING: Final = web.AppKey("STOPPING", asyncio.Event)
STREAM_S: Final = 600.0
"""A stream ends after this time, and the browser opens another."""
PAGES_OF_ONE: Final = 5
"""One who signed in may have this part of all pages: 1/5."""
AGAIN_MS: Final = 1000
ALIVE_S: Final = 15.0

CONTENT_TYPES: Final = {
    "css": "text/css",
    "html": "text/html",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Key(Struct, forbid_unknown_fields=True):
    """The body of a sign-in. `is_link`: the key came with a link, which makes nobody else of who is signed in."""

    key: str
    is_link: bool = False


class LaneEvents(Struct, frozen=True, kw_only=True):
    """What a page is told of all lanes that its viewer may see. `points` come with the first event only."""

    at_s: float
    lanes: dict[str, LaneView]
    points: dict[str, list[LanePoint]] | None = None


async def add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """No page of ours runs what is not a file of ours, or is shown within another one."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Cache-Control", "no-store")


async def show_page(request: web.Request) -> web.Response:
    """The only page; its scripts show the rest."""
    request.app[SESSIONS].check_host(request)
    return _file("index.html")


async def show_asset(request: web.Request) -> web.Response:
    """A file of this package."""
    return _file(request.match_info["name"])


def _file(name: str) -> web.Response:
    found = files("coordinator.operations") / "assets" / name
    kind = CONTENT_TYPES.get(name.rpartition(".")[2])
    if kind is None or not found.is_file():
        raise web.HTTPNotFound
    response = web.Response(body=found.read_bytes(), content_type=kind, charset="utf-8")
    # They are small, and of one release: an older page with newer parts would be worse than asking.
    response.headers["Cache-Control"] = "no-cache"
    return response


async def sign_in(request: web.Request) -> web.Response:
    """Begin a session."""
    sessions = request.app[SESSIONS]
    sessions.check_host(request)
    check_origin(request)
    body = await read_json(request, Key)
    if len(body.key) > CREDENTIAL_CHARACTERS_MAX:
        raise RequestRefused(422, "invalid_request", "that is no key", field="key")
    with operators_words():
        if body.is_link and await _is_signed_in(request):
            return web.Response(status=204)
        return await sessions.sign_in(request, body.key.strip())


async def _is_signed_in(request: web.Request) -> bool:
    """Asked here and not by the page, whose console would note a refusal as an error."""
    try:
        await request.app[SESSIONS].rights_of(request)
    except RequestRefused as refusal:
        if refusal.status != HTTPStatus.UNAUTHORIZED:
            raise
        return False
    return True


async def sign_out(request: web.Request) -> web.Response:
    """End it."""
    check_origin(request)
    return request.app[SESSIONS].sign_out(request)


async def show_session(request: web.Request) -> web.Response:
    """Who the viewer is, and what he may do."""
    sessions = request.app[SESSIONS]
    sessions.check_host(request)
    with operators_words():
        rights, mark = await sessions.rights_of(request)
    lanes = [
        {"name": lane, "operates": lane in rights.operated}
        for lane in request.app[COLLECTOR].lanes
        if lane in rights.seen
    ]
    return json_response({"author": rights.author, "mark": mark, "lanes": lanes, "asks": sessions.asks})


async def show_events(request: web.Request) -> web.StreamResponse:
    """The lanes as they are, again and again (server-sent events).

    A viewer gets the latest look only, however slow he is: nothing is kept for him.
    """
    app, sessions = request.app, request.app[SESSIONS]
    sessions.check_host(request)
    with operators_words():
        rights, _ = await sessions.rights_of(request)
    collector, watched_by = app[COLLECTOR], app[WATCHED_BY]
    if collector.watching >= app[VIEWERS]:
        raise RequestRefused(
            503, "overloaded", f"{app[VIEWERS]} pages are open, which is OPERATIONS_VIEWERS_MAX: close some"
        )
    of_one_max = max(1, app[VIEWERS] // PAGES_OF_ONE)
    if sessions.asks and watched_by[rights.share] >= of_one_max:
        raise RequestRefused(
            503, "overloaded", f"{of_one_max} pages of yours are open, a share of OPERATIONS_VIEWERS_MAX: close some"
        )
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
    collector.watching += 1
    watched_by[rights.share] += 1
    try:
        await response.prepare(request)
        await response.write(f"retry: {AGAIN_MS}\n\n".encode())
        collector.hurry()
        await _tell(request, response)
    except ConnectionError:
        # The viewer has gone.
        pass
    finally:
        collector.watching -= 1
        watched_by[rights.share] -= 1
        if not watched_by[rights.share]:
            del watched_by[rights.share]
    return response


async def _tell(request: web.Request, response: web.StreamResponse) -> None:
    """Until the session is over, or its key counts no more: that is looked at before each event."""
    collector, stopping = request.app[COLLECTOR], request.app[STOPPING]
    ends_s = time.monotonic() + STREAM_S
    number, is_first = collector.number if not collector.views else -1, True
    while not stopping.is_set() and time.monotonic() < ends_s:
        try:
            async with asyncio.timeout(ALIVE_S):
                await collector.next(number)
        except TimeoutError:
            await response.write(b": alive\n\n")
            continue
        number = collector.number
        try:
            rights, _ = await request.app[SESSIONS].rights_of(request)
        except (RequestRefused, Unavailable):
            return
        seen = [lane for lane in collector.lanes if lane in rights.seen and lane in collector.views]
        events = LaneEvents(
            at_s=round(time.time(), 3),
            lanes={lane: _seen(collector.views[lane], rights) for lane in seen},
            points={lane: list(collector.points[lane]) for lane in seen} if is_first else None,
        )
        is_first = False
        await response.write(b"event: lanes\ndata: " + to_json(events) + b"\n\n")


def _seen(view: LaneView, rights: LaneRights) -> LaneView:
    return view if view.status.lane in rights.operated else view_without_content(view)


async def show_command(request: web.Request) -> web.Response:
    """What all lanes know of one command."""
    app, sessions = request.app, request.app[SESSIONS]
    sessions.check_host(request)
    with operators_words():
        rights, _ = await sessions.rights_of(request)
    command_id = request.match_info["id"].lower()
    if not is_uuid(command_id):
        raise NotFound("command_not_found", f"{command_id[:40]!a} is no command id: it must be a UUID")
    lanes = [lane for lane in app[COLLECTOR].lanes if lane in rights.seen]
    asked = await asyncio.gather(*(_known(app, rights, lane, command_id) for lane in lanes))
    found = [each for each in asked if isinstance(each, KnownCommand)]
    away = [each for each in asked if isinstance(each, str)]
    return json_response({"command_id": command_id, "found": found, "away": away})


async def _known(app: web.Application, rights: LaneRights, lane: str, command_id: str) -> KnownCommand | str | None:
    """What a lane knows; in words, why it cannot be asked."""
    try:
        with operators_words():
            return await app[THREADS].read(
                lane,
                rights,
                lambda admin: known_command(admin, lane, command_id, with_content=lane in rights.operated),
            )
    except RequestRefused as error:
        return str(error)


async def healthz(_request: web.Request) -> web.Response:
    """Whether the process serves."""
    return json_response({"status": "ok"})


async def readyz(request: web.Request) -> web.Response:
    """Ready once it has looked at the lanes. What is away of theirs is shown, and is no reason not to show it."""
    is_ready = bool(request.app[COLLECTOR].number)
    return json_response({"status": "ready" if is_ready else "unready"}, status=200 if is_ready else 503)


routes: Final = (
    web.get("/", show_page),
    web.get(r"/assets/{name:[a-z_]+\.[a-z]+}", show_asset),
    web.post("/api/session", sign_in),
    web.get("/api/session", show_session),
    web.delete("/api/session", sign_out),
    web.get("/api/events", show_events),
    web.get("/api/commands/{id}", show_command),
    web.get("/healthz", healthz),
    web.get("/readyz", readyz),
)
