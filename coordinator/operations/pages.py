"""The pages: files of this package, and the session and the events of whoever has one open."""

import asyncio
import time
from collections import Counter
from contextlib import suppress
from http import HTTPStatus
from importlib.resources import files
from typing import Annotated, Final
from uuid import UUID

from aiohttp import web
from msgspec import Meta, Struct

from coordinator.client.timeline import Timeline
from coordinator.http.authentication import open_to_all
from coordinator.http.bodies import JSON_TYPES
from coordinator.http.contract.served import HTML
from coordinator.http.described import described
from coordinator.http.problems import RequestRefused
from coordinator.http.requests import NoQuery, read_query
from coordinator.http.responses import json_response
from coordinator.operate.following import Conditions
from coordinator.operations.content import conditions_seen, timeline_without_content, view_without_content
from coordinator.operations.doors import (
    OF_BODIES,
    OF_HOST,
    OF_READS,
    SESSIONS,
    operators_words,
    read_json,
)
from coordinator.operations.lane_access import LaneRights
from coordinator.operations.lane_routes import COLLECTOR, THREADS
from coordinator.operations.lane_threads import READ_S
from coordinator.operations.sessions import CREDENTIAL_CHARACTERS_MAX, check_origin
from coordinator.operations.settled_commands import CommandView, KnownCommand, known_command, with_relatives_in
from coordinator.operations.views import LanePoint, LaneView
from coordinator.service.errors import NotFound, Unavailable
from coordinator.service.ids import is_uuid
from coordinator.service.json_text import to_json
from coordinator.service.outside_calls import EFFECTS_PREFIX

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

EVENT_STREAM: Final = "text/event-stream"
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

    key: Annotated[str, Meta(max_length=CREDENTIAL_CHARACTERS_MAX)]
    is_link: bool = False


class ViewersLane(Struct, frozen=True, kw_only=True):
    """A lane that the viewer may see. `operates`: and act on."""

    name: str
    operates: bool


class Viewer(Struct, frozen=True, kw_only=True):
    """Who has a session. Whatever changes something shows its `mark` in a header. `asks`: viewers must sign in."""

    author: str
    mark: str
    lanes: list[ViewersLane]
    asks: bool


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


@open_to_all
@described("The pages.", query=None, answer="HTML", answer_types={HTML: str}, codes=OF_HOST)
async def show_page(request: web.Request) -> web.Response:
    request.app[SESSIONS].check_host(request)
    return _file("index.html")


@open_to_all
@described(
    "A script, a style or a picture of the pages.",
    path={"name": str},
    query=None,
    answer="a file",
    answer_types=dict.fromkeys(CONTENT_TYPES.values(), str),
    codes={"not_found": 404},
)
async def show_asset(request: web.Request) -> web.Response:
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


@open_to_all
@described(
    "Begin a session with a key or a token of the scope `operator` or `viewer`.",
    body_types=dict.fromkeys(JSON_TYPES, Key),
    answer_headers=("Set-Cookie",),
    statuses=(204,),
    codes=OF_HOST | OF_BODIES | {"authentication_unavailable": 503, "too_many_sign_ins": 429, "unauthenticated": 401},
)
async def sign_in(request: web.Request) -> web.Response:
    sessions = request.app[SESSIONS]
    sessions.check_host(request)
    check_origin(request)
    read_query(request, NoQuery)
    body = await read_json(request, Key)
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


@open_to_all
@described("End the session.", answer_headers=("Set-Cookie",), statuses=(204,), codes=OF_HOST)
async def sign_out(request: web.Request) -> web.Response:
    check_origin(request)
    read_query(request, NoQuery)
    return request.app[SESSIONS].sign_out(request)


@described("Who has this session, and what he may do.", answer=Viewer, codes=OF_HOST)
async def show_session(request: web.Request) -> web.Response:
    sessions = request.app[SESSIONS]
    sessions.check_host(request)
    with operators_words():
        rights, mark = await sessions.rights_of(request)
    read_query(request, NoQuery)
    lanes = [
        ViewersLane(name=lane, operates=lane in rights.operated)
        for lane in request.app[COLLECTOR].lanes
        if lane in rights.seen
    ]
    return json_response(Viewer(author=rights.author, mark=mark, lanes=lanes, asks=sessions.asks))


@described(
    "The lanes as they are, again and again, until the client ends it. A slow one gets the latest look only.",
    answer="server-sent events `lanes`, each with a JSON object",
    answer_types={EVENT_STREAM: str},
    codes=OF_HOST,
)
async def show_events(request: web.Request) -> web.StreamResponse:
    app, sessions = request.app, request.app[SESSIONS]
    sessions.check_host(request)
    with operators_words():
        rights, _ = await sessions.rights_of(request)
    read_query(request, NoQuery)
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
    response = web.StreamResponse(headers={"Content-Type": EVENT_STREAM, "X-Accel-Buffering": "no"})
    if request.method == "HEAD":
        # aiohttp writes what a stream says behind any head: it would be read as the next answer.
        return response
    collector.watching += 1
    watched_by[rights.share] += 1
    try:
        await response.prepare(request)
        await response.write(f"retry: {AGAIN_MS}\n\n".encode())
        collector.see_viewer()
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


@described(
    "What all lanes know of one command.",
    path={"id": UUID},
    answer=CommandView,
    codes=OF_READS | {"command_not_found": 404},
    links={"/api/lanes/{lane}/letters": {"lane": "$response.body#/found/0/lane"}},
)
async def show_command(request: web.Request) -> web.Response:
    app, sessions = request.app, request.app[SESSIONS]
    sessions.check_host(request)
    with operators_words():
        rights, _ = await sessions.rights_of(request)
    read_query(request, NoQuery)
    command_id = request.match_info["id"].lower()
    if not is_uuid(command_id):
        raise NotFound("command_not_found", f"{command_id[:40]!a} is no command id: it must be a UUID")
    lanes = [lane for lane in app[COLLECTOR].lanes if lane in rights.seen]
    conditions = conditions_seen(app[COLLECTOR].conditions(), rights.seen, rights.operated)
    asked = await asyncio.gather(*(_known(app, rights, lane, command_id, conditions) for lane in lanes))
    found = [each for each in asked if isinstance(each, KnownCommand)]
    away = [each for each in asked if isinstance(each, str)]
    waiting: list[Timeline] = []
    # Without its relatives it is worth showing, too.
    with suppress(Unavailable):
        found, waiting = await app[THREADS].search(
            rights, lambda: with_relatives_in(found, command_id, conditions, app[THREADS].admins.opened), READ_S
        )
    waiting = [
        each if (each.lane or "").removeprefix(EFFECTS_PREFIX) in rights.operated else timeline_without_content(each)
        for each in waiting
    ]
    return json_response(CommandView(command_id=command_id, found=found, waiting=waiting, away=away))


async def _known(
    app: web.Application, rights: LaneRights, lane: str, command_id: str, conditions: Conditions
) -> KnownCommand | str | None:
    """What a lane knows; in words, why it cannot be asked."""
    try:
        with operators_words():
            return await app[THREADS].read(
                lane,
                rights,
                lambda admin: known_command(admin, lane, command_id, conditions, with_content=lane in rights.operated),
            )
    except RequestRefused as error:
        return str(error)


routes: Final = (
    web.get("/", show_page),
    web.get(r"/assets/{name:[a-z_]+\.[a-z]+}", show_asset),
    web.post("/api/session", sign_in),
    web.get("/api/session", show_session),
    web.delete("/api/session", sign_out),
    web.get("/api/events", show_events),
    web.get("/api/commands/{id}", show_command),
)
