"""The route by which pages find what somebody asks for by an id."""

from typing import Annotated, Final

from aiohttp import web
from msgspec import Meta, Struct

from coordinator.http.described import described
from coordinator.http.requests import read_query
from coordinator.http.responses import json_response
from coordinator.operate.finding import ASKED_CHARACTERS_MAX, Finder
from coordinator.operate.found import Found
from coordinator.operate.open import lane_api_keys
from coordinator.operations.content import conditions_seen, found_without_content
from coordinator.operations.doors import OF_READS, SESSIONS, WITHOUT_NUL, operators_words
from coordinator.operations.lane_routes import COLLECTOR, THREADS
from coordinator.registry import registry

FIND_S: Final = 20.0


class _FindAsked(Struct, forbid_unknown_fields=True):
    """What is looked for; an idempotency key is that of `subject`."""

    what: Annotated[str, Meta(min_length=1, max_length=ASKED_CHARACTERS_MAX, pattern=WITHOUT_NUL)]
    subject: Annotated[str, Meta(max_length=200, pattern=WITHOUT_NUL)] | None = None
    tenant: Annotated[str, Meta(max_length=100, pattern=WITHOUT_NUL)] | None = None


@described(
    "What there is of an id, where it stands, and why it is stuck there.",
    query=_FindAsked,
    answer=Found,
    codes=OF_READS,
)
async def find(request: web.Request) -> web.Response:
    app, sessions = request.app, request.app[SESSIONS]
    sessions.check_host(request)
    with operators_words():
        rights, _ = await sessions.rights_of(request)
        asked = read_query(request, _FindAsked)
        await app[COLLECTOR].recent()
        # What a viewer may not see of other lanes is not told of by way of a saga's steps there.
        conditions = conditions_seen(app[COLLECTOR].conditions(), rights.seen, rights.operated)
        lanes = [lane for lane in app[COLLECTOR].lanes if lane in conditions]

        def look() -> Found:
            finder = Finder(conditions, registry().service, app[THREADS].admins.opened, lane_api_keys)
            return finder.find(asked.what, lanes, rights.operated, asked.subject, asked.tenant)

        found = await app[THREADS].search(rights, look, FIND_S)
        return json_response(found_without_content(found, rights.operated))


routes: Final = (web.get("/api/find", find),)
