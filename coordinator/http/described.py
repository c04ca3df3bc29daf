"""What a route takes and answers, for the documents that are generated from it (OpenAPI, docs/HTTP_API.md).

The handler of a route is described where it stands. What the command of a write says of itself (its fields, its
result, its rejections, whether it has a version to expect) is not repeated.
"""

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from aiohttp import web
from msgspec import Struct

from coordinator.http.requests import NoQuery
from coordinator.service.commands import Command

RouteHandler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]
H = TypeVar("H", bound=RouteHandler)

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class RouteDescription(Struct, frozen=True, kw_only=True):
    """One route. `described` has the meaning of each field."""

    summary: str
    command: type[Command] | None
    path: Mapping[str, Any]
    example: Mapping[str, Any]
    body: str
    is_body_optional: bool
    body_types: Mapping[str, Any]
    query: type[Struct] | None
    headers: tuple[str, ...]
    reads_rows: bool
    answer: Any
    answer_types: Mapping[str, Any]
    answer_headers: tuple[str, ...]
    statuses: tuple[int, ...]
    codes: Mapping[str, int]
    links: Mapping[str, Mapping[str, str]]


UNDESCRIBED: Final = RouteDescription(
    summary="Nobody has described this route: decorate its handler with `described`.",
    command=None,
    path=_NOTHING,
    example=_NOTHING,
    body="",
    is_body_optional=False,
    body_types=_NOTHING,
    query=None,
    headers=(),
    reads_rows=False,
    answer=None,
    answer_types=_NOTHING,
    answer_headers=(),
    statuses=(),
    codes=_NOTHING,
    links=_NOTHING,
)
"""What is known of a route of which nothing was said."""

_descriptions: Final[WeakKeyDictionary[Any, RouteDescription]] = WeakKeyDictionary()


def described(
    summary: str = "",
    *,
    command: type[Command] | None = None,
    path: Mapping[str, Any] = _NOTHING,
    example: Mapping[str, Any] = _NOTHING,
    body: str = "",
    is_body_optional: bool = False,
    body_types: Mapping[str, Any] = _NOTHING,
    query: type[Struct] | None = NoQuery,
    headers: tuple[str, ...] = (),
    reads_rows: bool = False,
    answer: Any = None,
    answer_types: Mapping[str, Any] = _NOTHING,
    answer_headers: tuple[str, ...] = (),
    statuses: tuple[int, ...] = (200,),
    codes: Mapping[str, int] = _NOTHING,
    links: Mapping[str, Mapping[str, str]] = _NOTHING,
) -> Callable[[H], H]:
    """Describe the handler of a route. It changes nothing of what the handler does.

    A write names the `command` that it issues: its documentation is the route's, its result the answer, and its fields
    are the body, but for those that the path gives. `path` names the argument that a part of the path gives, where the
    names differ. `example` is a body that is taken. A `summary` is what there is to say of the route beside.

    A route that issues no command has a `summary`, an `answer` (a type, or text), the `query` that it reads (None: it
    looks at none), a `body` in words, and its own `codes` with their statuses. `path` has the types of parts of the
    path that are no ids. `answer` may have one for each status, `{200: Seat, 202: "…"}`. `statuses` are those of
    success; `headers` of the request, and `answer_headers`, are special to the route. `reads_rows`: it shows what is in
    the database, so that `Read-After` counts. For OpenAPI, a body or an answer
    in words has its types by media type, too: `body_types` and `answer_types`, such as `{"text/csv": str}`. `links` say
    by the paths of `GET` routes which of their parameters an answer gives: `{"/seats/{id}": {"id":
    "$response.body#/0/id"}}`. Those of a write are known by its command.
    """
    description = RouteDescription(
        summary=summary,
        command=command,
        path=path,
        example=example,
        body=body,
        is_body_optional=is_body_optional,
        body_types=body_types,
        query=query,
        headers=headers,
        reads_rows=reads_rows,
        answer=answer,
        answer_types=answer_types,
        answer_headers=answer_headers,
        statuses=statuses,
        codes=codes,
        links=links,
    )

    def note(handler: H) -> H:
        _descriptions[handler] = description
        return handler

    return note


def description_of(handler: Any) -> RouteDescription | None:
    """What was said of the handler of a route; None: nothing."""
    return _descriptions.get(handler)
