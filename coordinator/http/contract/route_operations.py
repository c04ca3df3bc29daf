"""The routes of gateways as values: what each takes and answers, from their descriptions and their commands.

Whatever is generated of the HTTP API is made from these: OpenAPI (openapi.py) and docs/HTTP_API.md. Types are those of
JSON Schema, as msgspec makes them.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from inspect import cleandoc
from typing import Any, Final

import msgspec
from aiohttp import web
from msgspec import Struct

from coordinator.http.authentication import is_open_handler
from coordinator.http.bodies import JSON_TYPES, PATCH_TYPES
from coordinator.http.described import UNDESCRIBED, RouteDescription, description_of
from coordinator.http.problems import answer_to
from coordinator.service.commands import Command, Id
from coordinator.service.errors import CommandRejected
from coordinator.service.example import example_arguments
from coordinator.service.json_schemas import Json
from coordinator.service.rows import VersionedRow
from coordinator.service.service import Service
from coordinator.service.unit_of_work import Handler

_IN_PATH: Final = re.compile(r"\{([a-z_]+)(?::(?:[^{}]|\{[^{}]*\})*)?\}")
_CODE: Final = re.compile(r"`([a-z_]+)`")
REJECTED: Final = "Rejected:"
"""In the documentation of a command: the codes with which it may be rejected follow."""
_OF_WRITES: Final = ("Idempotency-Key", "Command-Id", "Prefer")
_OF_WRITTEN: Final = ("Command-Id", "Command-Sequence", "Read-After")


class OperationParameter(Struct, frozen=True, kw_only=True):
    """A part of the path, a parameter of the query, or a field of the body."""

    place: str
    name: str
    schema: Json
    is_required: bool


class OperationAnswer(Struct, frozen=True, kw_only=True):
    """An answer of success: its type, or text that describes it; None: no body."""

    status: int
    content: Any
    headers: tuple[str, ...] = ()


class HttpOperation(Struct, frozen=True, kw_only=True):
    """One route.

    `codes` are those that are special to it, by their status; `are_codes_known`: its command says all of its own.
    `has_target`: its command has a version that can be expected. `is_open`: it does not ask who asks. `reads_query`: a
    parameter that it does not have is refused. `body_types` and `answer_types` are by media type, where the body is not
    the command's, or the answer not one JSON value. `links` are those that its description names, by the paths of the
    routes to which they lead.
    """

    method: str
    path: str
    text: str
    command: type[Command] | None
    has_target: bool
    is_open: bool
    reads_query: bool
    parameters: tuple[OperationParameter, ...]
    body: str
    is_body_optional: bool
    body_types: Mapping[str, Any]
    media_types: tuple[str, ...]
    headers: tuple[str, ...]
    answers: tuple[OperationAnswer, ...]
    answer_types: Mapping[str, Any]
    codes: Mapping[int, tuple[str, ...]]
    are_codes_known: bool
    example: Mapping[str, Any]
    links: Mapping[str, Mapping[str, str]]

    def of(self, place: str) -> tuple[OperationParameter, ...]:
        """The parameters of one place: `path`, `query` or `body`."""
        return tuple(each for each in self.parameters if each.place == place)


def operations_of(
    routes: Iterable[web.AbstractRouteDef], services: Iterable[Service], *, is_strict: bool = True
) -> tuple[HttpOperation, ...]:
    """Routes in their order; `services` are those whose commands they issue.

    Raises ValueError for a route that nobody has described, or whose command no service handles. Without `is_strict`
    such a route is there with what is known of it.
    """
    handlers = {each.command: each for service in services for each in service.handlers}
    return tuple(_operation(route, handlers, is_strict) for route in routes if isinstance(route, web.RouteDef))


def _operation(route: web.RouteDef, handlers: Mapping[type[Command], Handler[Any]], is_strict: bool) -> HttpOperation:
    description = description_of(route.handler) or UNDESCRIBED
    if is_strict and description is UNDESCRIBED:
        raise ValueError(f"{route.method} {route.path} is not described: decorate its handler with `described`")
    command = description.command
    handler = None if command is None else handlers.get(command)
    if command is not None and handler is None and is_strict:
        raise ValueError(f"{route.method} {route.path} issues {command.type}, which none of these services handles")
    parameters = _parameters(route, description)
    return HttpOperation(
        method=route.method,
        path=_IN_PATH.sub(r"{\1}", route.path),
        text="\n\n".join(filter(None, (_without_codes(command), description.summary))),
        command=command,
        has_target=handler is not None and handler.target is not None,
        is_open=is_open_handler(route.handler),
        reads_query=description.query is not None,
        parameters=parameters,
        body=description.body,
        is_body_optional=description.is_body_optional,
        body_types=description.body_types,
        media_types=PATCH_TYPES if route.method == "PATCH" else JSON_TYPES,
        headers=_headers(route, description, handler),
        answers=_answers(route, description, handler),
        answer_types=description.answer_types,
        codes=_codes(description),
        are_codes_known=command is not None and REJECTED in (command.__doc__ or ""),
        example=description.example or _made_up(command, parameters),
        links=description.links,
    )


def _made_up(command: type[Command] | None, parameters: Iterable[OperationParameter]) -> Mapping[str, Any]:
    """A body of this command, without what is in the path."""
    needed = {each.name for each in parameters if each.place == "body" and each.is_required}
    arguments = None if command is None or not needed else example_arguments(command)
    return {} if arguments is None else {name: each for name, each in arguments.items() if name in needed}


def _parameters(route: web.RouteDef, description: RouteDescription) -> tuple[OperationParameter, ...]:
    named = [(part, description.path.get(part, part)) for part in _IN_PATH.findall(route.path)]
    fields = {} if description.command is None else _fields(description.command)
    in_path = [
        OperationParameter(place="path", name=part, schema=_schema_in_path(given, fields), is_required=True)
        for part, given in named
    ]
    query = {} if description.query is None else _fields(description.query)
    in_query = [msgspec.structs.replace(each, place="query") for each in query.values()]
    arguments = [given for _, given in named]
    in_body = [each for name, each in fields.items() if name not in arguments]
    return (*in_path, *in_query, *in_body)


def _schema_in_path(given: Any, fields: Mapping[str, OperationParameter]) -> Json:
    """Of an argument's name, or of a type; every other part of a path is an id."""
    if given in fields:
        return fields[given].schema
    return msgspec.json.schema(Id if isinstance(given, str) else given)


def _fields(model: type[Struct]) -> dict[str, OperationParameter]:
    _, schemas = msgspec.json.schema_components([model])
    schema = schemas[model.__name__]
    required = schema.get("required", ())
    return {
        name: OperationParameter(place="body", name=name, schema=each, is_required=name in required)
        for name, each in schema.get("properties", {}).items()
    }


def _headers(route: web.RouteDef, description: RouteDescription, handler: Handler[Any] | None) -> tuple[str, ...]:
    found = list(description.headers)
    if description.command is not None:
        found += [*_OF_WRITES, *(["If-Match"] if handler is not None and handler.target is not None else [])]
    elif _has_tag(route, description.answer):
        found.append("If-None-Match")
    if description.reads_rows:
        found.append("Read-After")
    return tuple(found)


def _answers(
    route: web.RouteDef, description: RouteDescription, handler: Handler[Any] | None
) -> tuple[OperationAnswer, ...]:
    special = (*description.answer_headers, *(("Served-By",) if description.reads_rows else ()))
    if description.command is None:
        tag = ("ETag",) if _has_tag(route, description.answer) else ()
        answers = description.answer
        if not isinstance(answers, Mapping):
            answers = dict.fromkeys(description.statuses, answers)
        found = [
            OperationAnswer(status=status, content=content, headers=(*tag, *special))
            for status, content in answers.items()
        ]
        if tag:
            found.append(OperationAnswer(status=HTTPStatus.NOT_MODIFIED, content=None, headers=(*tag, *special)))
        return tuple(found)
    result: Any = Any
    # Whatever that cannot be read: a made gateway would not be made, and another one serves all the same.
    with suppress(TypeError, NameError):
        result = Any if handler is None else handler.result
    tag = ("ETag",) if isinstance(result, type) and issubclass(result, VersionedRow) else ()
    headers = {
        HTTPStatus.CREATED: (*_OF_WRITTEN, *tag, "Location"),
        HTTPStatus.ACCEPTED: (*_OF_WRITTEN, "Location"),
        HTTPStatus.NO_CONTENT: _OF_WRITTEN,
    }
    return tuple(
        OperationAnswer(
            status=status,
            content=result,
            headers=(*headers.get(HTTPStatus(status), (*_OF_WRITTEN, *tag)), *special),
        )
        for status in description.statuses
    )


def _has_tag(route: web.RouteDef, answer: Any) -> bool:
    return route.method == "GET" and isinstance(answer, type) and issubclass(answer, VersionedRow)


def _codes(description: RouteDescription) -> dict[int, tuple[str, ...]]:
    found: defaultdict[int, list[str]] = defaultdict(list)
    for code, status in description.codes.items():
        found[status].append(code)
    if description.command is not None:
        for code in rejections_of(description.command):
            found[answer_to(CommandRejected("", code, "")).status].append(code)
    return {status: tuple(codes) for status, codes in sorted(found.items())}


def rejections_of(command: type[Command]) -> Sequence[str]:
    """The codes with which a command may be rejected, as its documentation says."""
    return _CODE.findall(_parted(command.__doc__ or "")[1])


def _parted(text: str) -> tuple[str, str]:
    """A documentation without its sentence on rejections, and the codes of that sentence."""
    before, _, after = text.partition(REJECTED)
    sentence, end, rest = after.partition(".")
    return (before.rstrip() + rest, sentence.partition(";")[0]) if end else (text, "")


def _without_codes(command: type[Command] | None) -> str:
    if command is None:
        return ""
    return _parted(cleandoc(command.__doc__ or ""))[0].strip()
