"""A gateway's routes as an OpenAPI 3.1 document.

It is made from what the routes say of themselves (`route_operations.py`), from the types of commands and rows, and from
the table of problems. The same code makes the same document.
"""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Final

from msgspec import Struct

from coordinator.http.command_bodies import CommandElement
from coordinator.http.contract.credentials import Credentials
from coordinator.http.contract.header_schemas import (
    COMMAND_ID,
    OF_PROBLEMS,
    REQUEST_HEADERS,
    answer_headers,
    header_components,
    request_headers,
)
from coordinator.http.contract.links import links_of
from coordinator.http.contract.route_operations import HttpOperation, OperationAnswer
from coordinator.http.contract.route_problems import problems_of, takes_commands
from coordinator.http.problems import CONTENT_TYPE, TYPE_PREFIX, Problem
from coordinator.http.responses import JSON, Accepted
from coordinator.service.commands import Command
from coordinator.service.json_schemas import DIALECT, Json, TypeSchemas, portable
from coordinator.service.rows import Row, key_columns
from coordinator.service.rows_within import may_pass_for_rows

SCHEMAS: Final = "#/components/schemas/"
_OPEN_STATUSES: Final = frozenset({404, 409, 422, 502})
"""A command whose documentation does not say with which codes it may be rejected may have others of these statuses."""


class ApiFacts(Struct, frozen=True, kw_only=True):
    """What a document is made from: the routes of each gateway of an application, `common` ones of every gateway, and
    `about`, which says in Markdown what it is.

    `commands` are those that `POST /commands` takes, `commands_max` of them in one request. `credentials` are asked
    for; None: the gateway asks nobody who he is. `headers` are those of requests that its routes name, beside those
    that every gateway reads. `ruled` are the classes of rows that are not for everybody.
    """

    name: str
    about: str
    by_gateway: Mapping[str, Sequence[HttpOperation]]
    common: Sequence[HttpOperation]
    commands: Sequence[type[Command]]
    commands_max: int
    credentials: Credentials | None
    headers: Mapping[str, Json]
    ruled: Sequence[type[Row]] = ()

    @property
    def own(self) -> Sequence[HttpOperation]:
        """Those of all gateways."""
        return [operation for operations in self.by_gateway.values() for operation in operations]


def document(facts: ApiFacts) -> Json:
    """The document."""
    return _ApiDocument(facts).document()


def operation_id(operation: HttpOperation) -> str:
    """The name of a route within its document: its command's type, or its method and path."""
    if operation.command is not None:
        return operation.command.type
    return "_".join([operation.method.lower(), *re.findall(r"[A-Za-z0-9_.~-]+", operation.path)])


class _ApiDocument:
    def __init__(self, facts: ApiFacts) -> None:
        self._facts = facts
        self._all = [*facts.own, *facts.common]
        self._names = _names(self._all)
        self._tags = {
            (each.method, each.path): name for name, operations in facts.by_gateway.items() for each in operations
        }
        self._problems: dict[str, Json] = {}
        self._of_credentials = None if facts.credentials is None else facts.credentials.problems
        self._of_requests: Mapping[str, Json] = {**REQUEST_HEADERS, **facts.headers}
        kinds: list[Any] = [Problem, *facts.commands]
        if any(each.command is not None or takes_commands(each) for each in self._all):
            kinds += [Accepted, CommandElement]
        for operation in self._all:
            kinds += [answer.content for answer in operation.answers if _is_type(answer.content)]
            kinds += [*operation.answer_types.values(), *operation.body_types.values()]
            kinds += [] if operation.command is None else [operation.command]
        self._schemas = TypeSchemas(kinds, SCHEMAS + "{name}")

    def document(self) -> Json:
        facts, credentials, paths = self._facts, self._facts.credentials, dict[str, Json]()
        for operation in self._all:
            paths.setdefault(operation.path, {})[operation.method.lower()] = self._operation(operation)
        return {
            "openapi": "3.1.1",
            "jsonSchemaDialect": DIALECT,
            "info": {
                "title": facts.name,
                "version": version("write-coordinator"),
                "description": f"{facts.about} Each `GET` route answers `HEAD`, too.",
            },
            "servers": [{"url": "/", "description": "This gateway."}],
            **({} if credentials is None else {"security": [{credentials.name: []}]}),
            "tags": [
                *({"name": name, "description": "The routes of this service."} for name in facts.by_gateway),
                {"name": "every gateway", "description": "Routes that each gateway has."},
            ],
            "paths": paths,
            "components": {
                "schemas": self._components(),
                "responses": self._problems,
                **header_components(self._of_requests, [paths, self._problems]),
                **({} if credentials is None else {"securitySchemes": {credentials.name: dict(credentials.scheme)}}),
            },
        }

    def _operation(self, operation: HttpOperation) -> Json:
        summary, _, rest = operation.text.partition("\n\n")
        first, dot, second = summary.partition(". ")
        tag = self._tags.get((operation.method, operation.path), "every gateway")
        made: Json = {"operationId": self._names[operation.method, operation.path], "tags": [tag]}
        if first:
            made["summary"] = " ".join(first.split()) + (dot.strip() if second else "")
        made["description"] = self._description(operation, second, rest)
        if operation.is_open and self._facts.credentials is not None:
            made["security"] = []
        if parameters := [*self._places(operation), *request_headers(operation, self._of_requests)]:
            made["parameters"] = parameters
        if body := self._body(operation):
            made["requestBody"] = body
        made["responses"] = self._responses(operation)
        return {key: value for key, value in made.items() if value != ""}

    def _description(self, operation: HttpOperation, *texts: str) -> str:
        issues = "" if operation.command is None else f"Issues `{operation.command.type}`."
        body = f"The body is {operation.body}." if operation.body else ""
        return "\n\n".join(text.strip() for text in (*texts, issues, body) if text.strip())

    def _places(self, operation: HttpOperation) -> list[Json]:
        return [
            {
                "name": each.name,
                "in": each.place,
                "required": each.is_required,
                **_parameter_schema(each.schema),
            }
            for each in operation.parameters
            if each.place in ("path", "query")
        ]

    def _body(self, operation: HttpOperation) -> Json:
        if operation.body_types:
            content = {media: {"schema": self._body_type(kind)} for media, kind in operation.body_types.items()}
        elif operation.command is not None and operation.of("body"):
            schema = self._command_body(operation)
            example = {"example": dict(operation.example)} if operation.example else {}
            content = {media: {"schema": schema, **example} for media in operation.media_types}
        elif operation.body:
            content = {media: {"schema": {}} for media in operation.media_types}
        else:
            return {}
        return {"required": not operation.is_body_optional, "content": content}

    def _body_type(self, kind: Any) -> Json:
        schema = self._type(kind)
        takes_commands = schema.get("items") == {"$ref": SCHEMAS + CommandElement.__name__}
        return {"$ref": SCHEMAS + "Commands"} if takes_commands else schema

    def _command_body(self, operation: HttpOperation) -> Json:
        """The command's arguments, without those that the path gives."""
        schema = self._schemas.of(operation.command)
        fields = {each.name for each in operation.of("body")}
        whole = self._schemas.components.get(schema.get("$ref", "").removeprefix(SCHEMAS), schema)
        if fields == set(whole.get("properties", ())):
            return schema
        left = {name: each for name, each in whole["properties"].items() if name in fields}
        required = [name for name in whole.get("required", ()) if name in fields]
        return {
            "type": "object",
            "properties": left,
            **({"required": required} if required else {}),
            "additionalProperties": False,
        }

    def _responses(self, operation: HttpOperation) -> Json:
        credentials = self._facts.credentials
        asks = credentials is not None and credentials.has_shares and not operation.is_open
        found: Json = {}
        for answer in operation.answers:
            found[str(int(answer.status))] = self._answer(operation, answer, is_limited=asks)
        if operation.command is not None:
            content = {"application/json": {"schema": self._type(Accepted)}}
            earlier = found.get("202", {}).get("content", {}).get(JSON, {}).get("schema")
            if earlier is not None:
                content[JSON]["schema"] = {"anyOf": [earlier, content[JSON]["schema"]]}
            names = (
                "Command-Id",
                "Command-Sequence",
                "Read-After",
                "Location",
                "Preference-Applied",
                "Idempotent-Replayed",
            )
            found["202"] = {
                "description": "The command is safe; its outcome is, or will be, at `Location`.",
                "headers": answer_headers(names, 202, is_limited=asks),
                "content": content,
                "links": links_of(operation, self._names, [each for each in self._all if each.path in _OUTCOMES]),
            }
        problems = problems_of(operation, self._of_credentials)
        for status, codes in problems.items():
            found[str(status)] = self._problem(operation, status, codes, is_limited=asks)
        if not operation.answers:
            found["default"] = {"description": "Nobody has described the answers of this route."}
        return dict(sorted(found.items()))

    def _answer(self, operation: HttpOperation, answer: OperationAnswer, *, is_limited: bool) -> Json:
        names = answer.headers
        if operation.command is not None:
            names = (*names, "Content-Location", "Idempotent-Replayed", "Preference-Applied")
        made: Json = {"description": HTTPStatus(answer.status).phrase}
        if isinstance(answer.content, str):
            made["description"] = answer.content
        if headers := answer_headers(tuple(dict.fromkeys(names)), answer.status, is_limited=is_limited):
            made["headers"] = headers
        has_body = answer.status not in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
        if operation.answer_types:
            made["content"] = {media: {"schema": self._type(kind)} for media, kind in operation.answer_types.items()}
        elif has_body and _is_type(answer.content):
            made["content"] = {JSON: {"schema": self._shown(operation, answer.content)}}
        if links := links_of(operation, self._names, self._all):
            made["links"] = links
        return made

    def _shown(self, operation: HttpOperation, kind: Any) -> Json:
        """The type; of a row that a command returns its key alone, too, where it is known who asks.

        Of what may be a row of another class, as `ShownResults` has it, there is nothing.
        """
        schema = self._type(kind)
        if operation.command is None or self._facts.credentials is None:
            return schema
        if may_pass_for_rows(kind, self._facts.ruled):
            text = "Nothing is shown of rows of a class that has a rule, where they are promised as a base of it."
            return {"anyOf": [schema, {"type": "null", "description": text}]}
        if not (isinstance(kind, type) and issubclass(kind, Row) and hasattr(kind, "table")):
            return schema
        columns = key_columns(kind)
        key: Json = {
            "type": "object",
            "description": "Of a row that is not for whoever asks, the key alone.",
            "properties": {name: {} for name in columns},
            "required": list(columns),
            "additionalProperties": False,
        }
        return {"anyOf": [schema, key]}

    def _problem(self, operation: HttpOperation, status: int, codes: Sequence[str], *, is_limited: bool) -> Json:
        is_open = operation.command is not None and not operation.are_codes_known and status in _OPEN_STATUSES
        code: Json = {"type": "string"} if is_open else {"enum": list(codes)}
        named = ", ".join(f"[`{each}`]({TYPE_PREFIX}{each})" for each in codes)
        example = {
            "type": TYPE_PREFIX + codes[0],
            "title": codes[0].replace("_", " ").capitalize(),
            "status": status,
            "detail": "what happened, for people",
            "code": codes[0],
        }
        own = {"type": "object", "properties": {"status": {"const": status}, "code": code}}
        made: Json = {
            "description": named + (", or a code of the service's own" if is_open else ""),
            "content": {
                CONTENT_TYPE: {"schema": {"allOf": [self._type(Problem), own]}, "example": example},
            },
        }
        # Of whoever is not known there is no share.
        has_share = is_limited and status != HTTPStatus.UNAUTHORIZED
        names = (*OF_PROBLEMS.get(status, ()), *_of_command(operation))
        if headers := answer_headers(names, status, is_limited=has_share):
            made["headers"] = headers
        return self._named(status, made)

    def _named(self, status: int, response: Json) -> Json:
        """A reference to a response, of which there is one however many routes have it."""
        name = next((name for name, each in self._problems.items() if each == response), None)
        if name is None:
            alike = sum(1 for each in self._problems if each.startswith(f"{status}."))
            name = f"{status}.{alike + 1}"
            self._problems[name] = response
        return {"$ref": f"#/components/responses/{name}"}

    def _type(self, kind: Any) -> Json:
        return self._schemas.of(kind)

    def _components(self) -> Json:
        """The types by name; the element of `POST /commands` is one of those that this gateway takes."""
        components = dict(self._schemas.components)
        element = components.pop(CommandElement.__name__, None)
        if element is None:
            return dict(sorted(components.items()))
        names = []
        for command in self._facts.commands:
            name = f"{command.type}.element"
            components[name] = _element(element, command, self._type(command))
            names.append(name)
        components["CommandElement"] = {"anyOf": [{"$ref": SCHEMAS + name} for name in names]} if names else element
        many = {"minItems": 1, "maxItems": self._facts.commands_max}
        components["Commands"] = {"type": "array", "items": {"$ref": SCHEMAS + "CommandElement"}, **many}
        return dict(sorted(components.items()))


_OUTCOMES: Final = frozenset({"/commands/{id}"})


def _element(element: Json, command: type[Command], arguments: Json) -> Json:
    properties: Json = dict(element["properties"])
    properties["type"] = {"const": command.type}
    properties["args"] = arguments
    properties["id"] = {"anyOf": [dict(COMMAND_ID), {"type": "null"}]}
    latest = {"type": "integer", "minimum": 1, "maximum": command.command_version}
    properties["command_version"] = {"anyOf": [latest, {"type": "null"}]}
    return {
        "type": "object",
        "properties": properties,
        "required": ["type", "args"],
        "additionalProperties": False,
    }


def _of_command(operation: HttpOperation) -> tuple[str, ...]:
    """The headers of a problem that are about the command of its request."""
    if operation.command is not None:
        return ("Command-Id", "Command-Sequence", "Read-After", "Idempotent-Replayed")
    return ("Command-Id",) if any("Command-Id" in answer.headers for answer in operation.answers) else ()


def _names(operations: Sequence[HttpOperation]) -> Mapping[tuple[str, str], str]:
    """The ids of all routes; one that is taken gets its method and path behind it."""
    names: dict[tuple[str, str], str] = {}
    taken: set[str] = set()
    for operation in operations:
        name = operation_id(operation)
        if name in taken:
            name = f"{name} {operation.method} {operation.path}"
        taken.add(name)
        names.setdefault((operation.method, operation.path), name)
    return names


def _is_type(content: Any) -> bool:
    return content is not None and not isinstance(content, str)


def _parameter_schema(schema: Json) -> Json:
    """A parameter cannot be null: one that may be is left out."""
    own: Json = portable(dict(schema))
    kinds = [each for each in own.pop("anyOf", ()) if each != {"type": "null"}]
    if len(kinds) == 1:
        own = {**kinds[0], **{key: value for key, value in own.items() if value is not None}}
    elif kinds:
        own["anyOf"] = kinds
    text = own.pop("description", "")
    return {**({"description": text} if text else {}), "schema": own}
