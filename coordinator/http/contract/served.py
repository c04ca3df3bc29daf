"""What a gateway serves of its contract: OpenAPI, JSON Schemas, the page, and what problems mean.

The page and the meanings of problems are open to all: they hold nothing of the service but the names of its codes. The
documents are for whoever is known, where the gateway asks who asks.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Final

import msgspec
from aiohttp import web
from msgspec import Struct

from coordinator.http.authentication import open_to_all
from coordinator.http.contract import openapi
from coordinator.http.contract.credentials import Credentials
from coordinator.http.contract.openapi import ApiFacts
from coordinator.http.contract.problem_codes import ProblemCode
from coordinator.http.contract.problem_pages import problem_page
from coordinator.http.contract.route_operations import HttpOperation, operations_of
from coordinator.http.described import described
from coordinator.http.requests import NoQuery, read_query
from coordinator.http.responses import json_response
from coordinator.service.allowing import anybody
from coordinator.service.commands import Command
from coordinator.service.errors import NotFound
from coordinator.service.json_schemas import Json, schema_of_version
from coordinator.service.service import Service
from coordinator.service.upgrades import Upgrade, by_type, known_versions, shown_versions

HTML: Final = "text/html"
OPENAPI_PATH: Final = "/openapi.json"
SCHEMA_JSON: Final = "application/schema+json"
PAGE_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
"""A page loads nothing from elsewhere, and is not shown within another one."""
_NOTHING: Final[Mapping[str, Json]] = MappingProxyType({})
_MEDIA_TYPES: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


class CommandSchema(Struct, frozen=True, kw_only=True):
    """A type of command, the version of its arguments, and where their JSON Schema is."""

    type: str
    version: int
    location: str


class ServedContract:
    """The contract of an application, made when somebody first asks for it.

    `own` are its routes, by gateway, `common` those of every gateway, `services` those whose commands they issue, and
    `problems` what codes mean. The others are the fields of `ApiFacts`.
    """

    def __init__(
        self,
        name: str,
        *,
        about: str,
        own: Mapping[str, Sequence[web.AbstractRouteDef]],
        common: Sequence[web.AbstractRouteDef],
        problems: Sequence[ProblemCode],
        credentials: Credentials | None,
        headers: Mapping[str, Json] = _NOTHING,
        services: Sequence[Service] = (),
        commands: Sequence[type[Command]] = (),
        upgrades: Sequence[Upgrade] = (),
        commands_max: int = 0,
    ) -> None:
        self._name = name
        self._about = about
        self._own = own
        self._common = common
        self._services = services
        self._commands_max = commands_max
        self._credentials = credentials
        self._headers = headers
        self.commands = {command.type: command for command in commands}
        self._upgrades = by_type(upgrades)
        self._problems = {problem.code: problem for problem in problems}
        self._schemas: dict[str, bytes] = {}

    @cached_property
    def facts(self) -> ApiFacts:
        """What the document is made from."""
        return ApiFacts(
            name=self._name,
            about=self._about,
            by_gateway={
                name: operations_of(routes, self._services, is_strict=False) for name, routes in self._own.items()
            },
            common=operations_of(self._common, self._services, is_strict=False),
            commands=tuple(self.commands.values()),
            commands_max=self._commands_max,
            credentials=self._credentials,
            headers=self._headers,
            ruled=[
                model for service in self._services for model, rule in service.row_rules.items() if rule is not anybody
            ],
        )

    @cached_property
    def problems(self) -> Mapping[str, ProblemCode]:
        """What the codes mean. Of one that only a command's documentation names, that is all that is known."""
        found = dict(self._problems)
        for operation in self.facts.own:
            for status, codes in operation.codes.items():
                for code in codes:
                    found.setdefault(code, ProblemCode(code, (status,), (), _of_service(operation)))
        return found

    @cached_property
    def document(self) -> Json:
        """OpenAPI."""
        return openapi.document(self.facts)

    @cached_property
    def text(self) -> bytes:
        """The same, as it is served."""
        return msgspec.json.encode(self.document)

    def versions(self, command: type[Command]) -> range:
        """Those versions of a command whose arguments are taken here."""
        return known_versions(command, self._upgrades.get(command.type, ()))

    def schema(self, command: type[Command], version: int) -> bytes:
        """The JSON Schema of a command's arguments in one of these versions."""
        location = schema_location(command, version)
        if location not in self._schemas:
            schema = schema_of_version(command, version, self._upgrades.get(command.type, ()))
            self._schemas[location] = msgspec.json.encode({"$id": location, **schema})
        return self._schemas[location]


def _of_service(operation: HttpOperation) -> str:
    by = operation.command.type if operation.command is not None else f"{operation.method} {operation.path}"
    return f"a reason of this service's own, which `{by}` may give: `detail` of the problem says more"


CONTRACT: Final = web.AppKey("CONTRACT", ServedContract)

page_routes = web.RouteTableDef()
"""Those of every gateway."""
routes = web.RouteTableDef()
"""Those of a gateway of commands, beside them."""


def schema_location(command: type[Command], version: int) -> str:
    """The path of the JSON Schema of a command's arguments in a version."""
    return f"/schemas/{command.type}/{version}"


@routes.get("/")
@open_to_all
@described("Leads to `/docs`.", query=None, answer_headers=("Location",), statuses=(302,))
async def show_root(_request: web.Request) -> web.Response:
    return web.Response(status=302, headers={"Location": "/docs"})


@page_routes.get("/docs")
@open_to_all
@described(
    "A page that shows these routes, and sends requests to them.",
    query=None,
    answer="HTML",
    answer_types={HTML: str},
)
async def show_docs(_request: web.Request) -> web.Response:
    return _page(_asset("docs.html"))


@page_routes.get("/docs/assets/{name}")
@open_to_all
@described(
    "The script and the style of that page.",
    path={"name": str},
    query=None,
    answer="a file",
    answer_types=dict.fromkeys(_MEDIA_TYPES.values(), str),
    codes={"not_found": 404},
)
async def show_asset(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    media = _MEDIA_TYPES.get(name.rpartition(".")[2])
    if media is None or name not in _ASSETS:
        raise web.HTTPNotFound
    return web.Response(body=_asset(name), content_type=media, charset="utf-8", headers=PAGE_HEADERS)


_ASSETS: Final = frozenset({"docs.css", "docs.js", "icon.svg"})


@page_routes.get(OPENAPI_PATH)
@described(
    "The routes of this gateway as an OpenAPI 3.1 document.",
    answer="an OpenAPI document",
    answer_types={"application/json": dict[str, Any]},
)
async def show_openapi(request: web.Request) -> web.Response:
    read_query(request, NoQuery)
    return web.Response(body=request.app[CONTRACT].text, content_type="application/json", headers=_UNCHANGED)


@routes.get("/schemas")
@described("The types of commands that this gateway takes, each in all versions.", answer=list[CommandSchema])
async def list_schemas(request: web.Request) -> web.Response:
    read_query(request, NoQuery)
    contract = request.app[CONTRACT]
    return json_response(
        [
            CommandSchema(type=each.type, version=version, location=schema_location(each, version))
            for each in contract.commands.values()
            for version in contract.versions(each)
        ]
    )


@routes.get("/schemas/{type}/{version}")
@described(
    "The JSON Schema of the arguments of a command's type, in one of the versions that this gateway takes.",
    path={"type": str, "version": str},
    answer="a JSON Schema",
    answer_types={SCHEMA_JSON: dict[str, Any]},
    codes={"schema_not_found": 404},
)
async def show_schema(request: web.Request) -> web.Response:
    read_query(request, NoQuery)
    contract, name, asked = request.app[CONTRACT], request.match_info["type"], request.match_info["version"]
    command = contract.commands.get(name)
    if command is None:
        raise NotFound("schema_not_found", f"no command type {name[:100]!a} here: /schemas lists them")
    known = contract.versions(command)
    version = next((each for each in known if str(each) == asked), None)
    if version is None:
        raise NotFound("schema_not_found", f"{asked[:20]!a} of {name} is not known here: {shown_versions(known)}")
    return web.Response(body=contract.schema(command, version), content_type=SCHEMA_JSON, headers=_UNCHANGED)


@page_routes.get("/problems/{code}")
@open_to_all
@described(
    "What the code of a problem means: the `type` of each problem leads here.",
    path={"code": str},
    query=None,
    answer="HTML",
    answer_types={HTML: str},
    codes={"not_found": 404},
)
async def show_problem(request: web.Request) -> web.Response:
    problem = request.app[CONTRACT].problems.get(request.match_info["code"])
    if problem is None:
        raise web.HTTPNotFound
    return _page(problem_page(problem).encode())


_UNCHANGED: Final = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}


def _asset(name: str) -> bytes:
    return (files("coordinator.http.contract") / "assets" / name).read_bytes()


def _page(body: bytes) -> web.Response:
    return web.Response(body=body, content_type=HTML, charset="utf-8", headers=PAGE_HEADERS)
