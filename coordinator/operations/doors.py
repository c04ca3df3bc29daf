"""Every way into the operations gateway: who asks, for which lane, and in which words errors are told."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import click
import msgspec
from aiohttp import web
from msgspec import Struct

from coordinator.http.bodies import JSON_TYPES, read_body
from coordinator.http.problems import RequestRefused
from coordinator.http.requests import NoQuery, read_query
from coordinator.operations.lane_access import LaneRights
from coordinator.operations.sessions import Sessions
from coordinator.service.commands import repeated
from coordinator.service.errors import ConfigurationError, NotFound, Unavailable
from coordinator.service.nesting import NESTING_MAX, is_too_deep
from coordinator.service.repeated_names import repeated_name

SESSIONS: Final = web.AppKey("SESSIONS", Sessions)
WITHOUT_NUL: Final = r"\A[^\x00]*\Z"
"""PostgreSQL takes a text with one for no text."""
OF_HOST: Final = {"forbidden": 403}
"""Codes of each route that a page of another site could lead a browser to."""
OF_READS: Final = OF_HOST | {"database_unavailable": 503, "misconfigured": 503}
OF_LANES: Final = OF_READS | {"lane_not_found": 404}
OF_BODIES: Final = {"invalid_request": 422}
OF_ACTS: Final = (
    OF_LANES | OF_BODIES | {"broker_unavailable": 503, "misused": 422, "outcome_unknown": 503, "refused": 409}
)
"""Codes of what `looking`, `read_json` and `acting` let through, for the descriptions of routes."""
B = TypeVar("B", bound=Struct)


class AskedOfLane(Struct, frozen=True):
    """A request of somebody who may see, or with `operates` act on, this lane."""

    request: web.Request
    rights: LaneRights
    lane: str

    @property
    def author(self) -> str:
        """Who asks, as this lane knows him."""
        return self.rights.authors[self.lane]

    @property
    def operates(self) -> bool:
        """Whether whoever asks may act on the lane, and look at what its commands hold."""
        return self.lane in self.rights.operated


Asks = Callable[[AskedOfLane], Awaitable[web.StreamResponse]]
Acts = Callable[[AskedOfLane, B], Awaitable[web.StreamResponse]]
Route = Callable[[web.Request], Awaitable[web.StreamResponse]]


def looking(handler: Asks) -> Route:
    """A route `/api/lanes/{lane}/…` that changes nothing."""

    async def serve(request: web.Request) -> web.StreamResponse:
        asked = await _asked(request)
        with operators_words():
            return await handler(asked)

    return serve


def acting(body: type[B]) -> Callable[[Acts[B]], Route]:
    """A route `/api/lanes/{lane}/…` that changes something, as its body says: for operators, and from our own pages
    only."""

    def decorate(handler: Acts[B]) -> Route:
        async def serve(request: web.Request) -> web.StreamResponse:
            await _operated(request)
            with operators_words():
                read_query(request, NoQuery)
                read = await read_json(request, body)
                # The body may have taken its time, and the key have ended meanwhile.
                return await handler(await _operated(request), read)

        return serve

    return decorate


async def read_json(request: web.Request, kind: type[B]) -> B:
    """The body of a request. Raises RequestRefused (400, 413, 415, 422)."""
    body = await read_body(request, JSON_TYPES)
    if is_too_deep(body, NESTING_MAX + 1):
        # The arguments of a letter are one level down.
        raise RequestRefused(
            400, "malformed_json", f"the body is nested deeper than {NESTING_MAX + 1} levels", field="body"
        )
    try:
        return _read_once(body, kind)
    except msgspec.ValidationError as error:
        raise RequestRefused(422, "invalid_request", str(error), field="body") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RequestRefused(400, "malformed_json", str(error), field="body") from None


def _read_once(body: bytes, kind: type[B]) -> B:
    """Raises MsgspecError, and RequestRefused for a name that is there twice."""
    found = msgspec.json.decode(body, type=kind)
    if (name := repeated_name(body)) is not None:
        raise RequestRefused(400, "malformed_json", str(repeated(name)), field="body")
    return found


@contextmanager
def operators_words() -> Iterator[None]:
    """Errors of the operator's commands as answers. An operator is told everything: which server, and why."""
    try:
        yield
    except click.ClickException as error:
        if error.exit_code == click.UsageError.exit_code:
            raise RequestRefused(422, "misused", error.message) from None
        raise RequestRefused(409, "refused", error.message) from None
    except (Unavailable, ConfigurationError) as error:
        code = error.code if isinstance(error, Unavailable) else "misconfigured"
        raise RequestRefused(503, code, str(error)) from None


async def _asked(request: web.Request) -> AskedOfLane:
    sessions, lane = request.app[SESSIONS], request.match_info["lane"]
    sessions.check_host(request)
    rights, _ = await sessions.rights_of(request)
    if lane not in rights.seen:
        raise NotFound("lane_not_found", f"no lane {lane[:40]!a} is yours to see")
    return AskedOfLane(request, rights, lane)


async def _operated(request: web.Request) -> AskedOfLane:
    """Raises RequestRefused (401, 403) for whoever may not act on the lane, or not by this page."""
    asked = await _asked(request)
    sessions = request.app[SESSIONS]
    sessions.check_mark(request, (await sessions.rights_of(request))[1])
    if not asked.operates:
        raise RequestRefused(403, "forbidden", f"this key has not the scope `operator` in lane {asked.lane}")
    return asked
