"""What the operations gateway says of itself, by the means of every gateway: OpenAPI, and what its problems mean.

It is open to all: the same in every operations gateway, it holds nothing of a lane.
"""

from collections.abc import Sequence
from typing import Any, Final

from aiohttp import web

from coordinator.http.authentication import open_to_all
from coordinator.http.contract.credentials import Credentials
from coordinator.http.contract.problem_codes import PROBLEM_CODES, ProblemCode
from coordinator.http.contract.served import OPENAPI_PATH, ServedContract, page_routes, show_openapi
from coordinator.http.described import described
from coordinator.http.operations import health_routes
from coordinator.operations.sessions import COOKIE, MARK_HEADER
from coordinator.service.json_schemas import Json

NAME: Final = "operations"
ABOUT: Final = (
    "Looks at lanes, and acts on them, for operators. A session is begun with a key or a token "
    "(`POST /api/session`), and kept in a cookie. Whatever changes a lane shows the session's mark, too."
)
SESSION: Final = Credentials(
    name="session",
    scheme={
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": "Of `POST /api/session`. Its name ends with the port, and begins with `__Host-` over HTTPS.",
    },
    problems={401: ("unauthenticated",), 503: ("authentication_unavailable",)},
)
HEADERS: Final[dict[str, Json]] = {
    MARK_HEADER: {
        "description": "The session's mark, of `GET /api/session`: no page of another site knows it.",
        "required": True,
        "schema": {"type": "string"},
    },
}
PROBLEMS: Final = (
    ProblemCode("forbidden", (403,), ("request",), "whoever asks may only look, or another site may have asked this"),
    ProblemCode(
        "invalid_request", (422,), ("request",), "the body is JSON, and not what this route takes: `detail` says where"
    ),
    ProblemCode(
        "lane_not_found", (404,), ("request",), "there is no such lane here, or it is not for whoever asks to see"
    ),
    ProblemCode("letter_not_found", (404,), ("request",), "the lane has no such dead letter, or has it no more"),
    ProblemCode(
        "misconfigured",
        (503,),
        ("away",),
        "a setting of this gateway, or the database, is unfit for what was asked: `detail` says which one and why",
    ),
    ProblemCode(
        "misused",
        (422,),
        ("request",),
        "what was asked makes no sense, such as a reason of spaces alone, and would not in any other state of the lane",
    ),
    ProblemCode(
        "overloaded",
        (503,),
        ("away",),
        "the lane does not answer in time, or too many requests wait for it, or too many pages are open",
    ),
    ProblemCode(
        "refused",
        (409,),
        ("request",),
        "it cannot be done as the lane is now, such as a cancel of what is settled: `detail` says why",
    ),
    ProblemCode("too_many_sign_ins", (429,), ("request",), "too many wrong keys were tried: wait for `Retry-After`"),
    ProblemCode(
        "unauthenticated", (401,), ("request",), "there is no session, or it is over, or its key does not count"
    ),
)
"""Codes of its own, and those that mean something else here."""


@open_to_all
@described(
    "These routes as an OpenAPI 3.1 document.",
    answer="an OpenAPI document",
    answer_types={"application/json": dict[str, Any]},
)
async def show_contract(request: web.Request) -> web.StreamResponse:
    return await show_openapi(request)


common_routes: Final = (
    *health_routes,
    web.get(OPENAPI_PATH, show_contract),
    *(route for route in page_routes if isinstance(route, web.RouteDef) and route.path != OPENAPI_PATH),
)
"""Those that it has like every gateway."""


def operations_contract(
    own: Sequence[web.AbstractRouteDef], *, asks: bool, common: Sequence[web.AbstractRouteDef] = common_routes
) -> ServedContract:
    """The contract; `own` are its routes beside the `common` ones. `asks`: viewers must prove who they are."""
    return ServedContract(
        NAME,
        about=ABOUT,
        own={NAME: own},
        common=common,
        problems=(*PROBLEM_CODES, *PROBLEMS),
        credentials=SESSION if asks else None,
        headers=HEADERS,
    )
