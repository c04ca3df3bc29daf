"""The gateway that is made from a service: its commands at paths of their own, and its public rows.

    POST /seats/commands/book     the command `seats.book`; the body has its arguments
    GET  /seats/tickets           the rows of the table `tickets`, in pages
    GET  /seats/tickets/7         one of them, by its key

They take the headers, and have the answers, of the routes that are written by hand from the same parts.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote, unquote_to_bytes

import msgspec
from aiohttp import web

from coordinator.client.repository import Repository, open_repository
from coordinator.client.writes import execute
from coordinator.http.app import Dependencies, Gateway
from coordinator.http.authentication import forbidden, open_to_all
from coordinator.http.commands import WRITES
from coordinator.http.described import RouteHandler, described
from coordinator.http.key_pages import key_of_text, key_part, kinds_of_key, no_key
from coordinator.http.requests import NoQuery, issue, path_command, read_command, read_query
from coordinator.http.responses import command_location, json_response, representation, written_response
from coordinator.http.row_filters import RowFilters
from coordinator.http.shown_rows import ShownRows
from coordinator.service.allowing import anybody
from coordinator.service.commands import Command
from coordinator.service.errors import ConfigurationError, NotFound
from coordinator.service.paging import Page
from coordinator.service.rows import Row, VersionedRow, key_columns
from coordinator.service.service import Service
from coordinator.service.unit_of_work import Handler
from coordinator.stores.row_checks import RowChecks

REPOSITORIES: Final[web.AppKey[Mapping[type[Row], Repository[Any]]]] = web.AppKey("REPOSITORIES")

_SHOWN_MAX: Final = 40
_IN_A_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.~-]*")


def gateway_of(
    service: Service,
    *,
    routes: Iterable[web.AbstractRouteDef] = (),
    attach: Callable[[web.Application, Dependencies], None] | None = None,
    reads: tuple[type[Row], ...] = (),
) -> Gateway:
    """The gateway of a service: a route for each command that anybody may issue, two for each class of public rows.

    `routes` are added to these, and one of them for the same method and path takes the place of a made one. `attach`
    and `reads` are what they are in a `Gateway`, for these routes. Raises ConfigurationError for a command whose name
    cannot stand in a path, or whose handler does not say what it returns.
    """

    def attach_all(app: web.Application, dependencies: Dependencies) -> None:
        own = {model: open_repository(dependencies.database, service, model) for model in service.public_models}
        # Other services may be served by the same application.
        others = app[REPOSITORIES] if REPOSITORIES in app else {}  # noqa: SIM401  # mypy knows this type alone
        app[REPOSITORIES] = {**others, **own}
        if attach is not None:
            attach(app, dependencies)

    return Gateway(
        name=service.lane,
        # The first that matches serves.
        routes=(
            *routes,
            *(_route_of(service, handler) for handler in service.public_handlers),
            *(route for model in service.public_models for route in _routes_of(service, model)),
        ),
        attach=attach_all,
        commands=service.commands,
        upgrades=service.declared_upgrades,
        reads=tuple(dict.fromkeys((*service.public_models, *reads))),
        service=service,
    )


def _route_of(service: Service, handler: Handler[Any]) -> web.RouteDef:
    command: type[Command] = handler.command
    name = command.type.partition(".")[2]
    if not _IN_A_PATH.fullmatch(name):
        raise ConfigurationError(
            f"{command.type}: there is no path for a command of this name: name it in letters, digits and _ . ~ -"
        )
    try:
        result = handler.result or type(None)
    except (TypeError, NameError) as error:
        text = "its gateway must know what its handler returns"
        raise ConfigurationError(f"{command.type}: {text}: {error}") from None
    is_body_needed = any(field.required for field in msgspec.structs.fields(command))
    shown = service.public_models

    @described(
        command=command,
        is_body_optional=not is_body_needed,
        statuses=(204 if result is type(None) else 200,),
        answer_headers=("Location",),
    )
    async def serve(request: web.Request) -> web.Response:
        if is_body_needed or request.body_exists:
            asked = await read_command(request, command)
        else:
            asked = path_command(request, command, {})
        writes = request.app[WRITES]
        written = await issue(request, lambda given, options: execute(writes, given, result, options), asked)
        row = written.value
        path = _path_of(service, row) if isinstance(row, shown) else None
        return written_response(written, location=command_location(written.command_id), content_location=path)

    return web.post(f"/{service.name}/commands/{name}", _by_rule(handler.allow, serve))


def _routes_of(service: Service, model: type[Row]) -> tuple[web.RouteDef, web.RouteDef]:
    names, kinds = key_columns(model), kinds_of_key(model)
    rule, check = service.row_rules.get(model), RowChecks(service).of(model)
    shown, filters = ShownRows(model, check, rule), RowFilters(model, check, lambda text: int(key_part(int, text)))
    places = names if len(names) > 1 else ("key",)
    rows = f"/{service.name}/{model.table}"

    @described(
        f"The rows of `{model.table}`, in order of their keys.",
        query=filters.query,
        reads_rows=True,
        # The type of a page of these rows.
        answer=Page[model],  # type: ignore[valid-type]  # made at run time
    )
    async def show_page(request: web.Request) -> web.Response:
        query = read_query(request, filters.query)
        seen = shown.condition(request)
        if seen is None:
            raise forbidden(f"the rows of {model.table} are not for whoever this credential is for")
        conditions = filters.conditions(query, seen)
        try:
            after = None if query.after is None else key_of_text(kinds, query.after)
            page = await request.app[REPOSITORIES][model].page(after, query.limit, *conditions)
        except ValueError as error:
            raise no_key(error) from None
        return json_response(page)

    @described(
        f"The row of `{model.table}` with this key.",
        path=dict(zip(places, kinds, strict=True)),
        answer=model,
        reads_rows=True,
        codes={"row_not_found": 404},
    )
    async def show(request: web.Request) -> web.Response:
        read_query(request, NoQuery)
        # From the path as it was sent: the framework decodes it, but leaves what is not UTF-8 as it is.
        sent = request.rel_url.raw_path.split("/")[-len(kinds) :]
        try:
            parts = [key_part(kind, unquote_to_bytes(each).decode()) for kind, each in zip(kinds, sent, strict=True)]
            key = parts[0] if len(parts) == 1 else tuple(parts)
        except ValueError:
            row = None
        else:
            row = await shown.one(request, request.app[REPOSITORIES][model], key)
        if row is None:
            raise NotFound("row_not_found", f"no row of {model.table} has the key {'/'.join(sent)[:_SHOWN_MAX]!a}")
        return representation(request, row) if isinstance(row, VersionedRow) else json_response(row)

    path = "/".join((rows, *(f"{{{place}:[^/]*}}" for place in places)))
    return web.get(rows, _by_rule(rule, show_page)), web.get(path, _by_rule(rule, show))


def _by_rule(rule: object, handler: RouteHandler) -> RouteHandler:
    """A route of what everybody may do does not ask who asks."""
    return open_to_all(handler) if rule is anybody else handler


def _path_of(service: Service, row: Row) -> str:
    parts = "/".join(quote(str(getattr(row, name)), safe="") for name in key_columns(type(row)))
    return f"/{service.name}/{row.table}/{parts}"
