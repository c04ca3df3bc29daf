"""docs/HTTP_API.md: the routes of an application's gateways, one after the other, in Markdown."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from inspect import cleandoc
from types import NoneType
from typing import Annotated, Any, Final, get_args, get_origin

import msgspec
from msgspec import Struct

from coordinator.documents.made_gateway import ABOUT, PORT, made_operations
from coordinator.http.app import common_routes
from coordinator.http.contract.route_operations import (
    HttpOperation,
    OperationAnswer,
    OperationParameter,
    operations_of,
)
from coordinator.registry import Registry
from coordinator.service.commands import INTEGER_MAX
from coordinator.service.json_schemas import Json
from coordinator.service.paging import Page

HEAD: Final = """# The HTTP API, route by route

<!-- made by `python -m coordinator.documents.generated --write` -->

What each route takes and answers. [HTTP](HTTP.md) has what all of them have in common: headers, answers of a write,
lists, health, webhooks, and what each problem code means. A body is a JSON object, `Content-Type: application/json`.
Every write may also be answered with 202, and every request with the problems that
[are not special to its route](HTTP.md#codes-of-problems).
"""
ABOUT_ANSWERS: Final = """A field that is not known, or does not apply, is null. A `version` begins at 1 and
goes up by one with each step that writes the row; a `PATCH` writes it, even if it changes nothing.
A write that somebody may issue who may not see the row is answered with the row's key alone: `{"id": 7}`, without
`ETag` ([why](HTTP.md#answers-of-a-write)).
"""
_PATTERN_MAX: Final = 30
_TEN: Final = 10
_LARGE: Final = 10**7
_EXAMPLE_UUID: Final = "01a20507-6e2b-7a53-b60a-13c1c53b3a0d"
_WORDS: Final = {"date-time": "time", "uuid": "UUID"}


def http_api(known: Registry, ports: Mapping[str, int]) -> str:
    """The document. `ports` of the gateways, by the names of services, are those of the examples."""
    gateways = {name: operations_of(known.gateway(name).routes, known.services) for name in known.gateway_names}
    common = operations_of(common_routes, ())
    first = next(iter(ports.values()))
    parts = [HEAD, _contents(gateways)]
    for name, found in gateways.items():
        parts += [f"## {name}\n", *(_section(each, ports.get(name, first)) for each in found)]
    made = made_operations()
    parts += ["## A made gateway\n", ABOUT, *(_section(each, PORT) for each in made)]
    parts += ["## Every gateway\n", *(_section(each, first) for each in common)]
    parts += ["## Answers\n", ABOUT_ANSWERS]
    models = _models([*(each for found in gateways.values() for each in found), *made, *common])
    parts += [_model(model) for model in models]
    return "\n".join(parts)


def _contents(gateways: Mapping[str, Sequence[HttpOperation]]) -> str:
    lines = [
        f"- [{name}](#{name}): {', '.join(f'`{each.method} {each.path}`' for each in found)}"
        for name, found in gateways.items()
    ]
    lines.append("- [A made gateway](#a-made-gateway): that of a service for which nobody wrote one")
    return "\n".join([*lines, "- [Every gateway](#every-gateway)", "- [Answers](#answers)", ""])


def _section(operation: HttpOperation, port: int) -> str:
    lines = [f"### `{operation.method} {operation.path}`", "", operation.text]
    if operation.command is not None:
        lines += ["", f"Issues `{operation.command.type}`."]
    if operation.body:
        lines += ["", f"The body is {operation.body}."]
    lines += ["", *_taken(operation), *_answered(operation), "```sh", *_curl(operation, port), "```", ""]
    return "\n".join(lines)


def _taken(operation: HttpOperation) -> Iterator[str]:
    rows = [_parameter_row(each) for each in operation.parameters]
    if operation.headers:
        names = ", ".join(f"`{name}`" for name in operation.headers)
        rows.append(f"| [header](HTTP.md#{_anchor_of(operation.headers)}) | {names} | |")
    if rows:
        yield from ("| in | name | type and limits |", "| --- | --- | --- |", *rows, "")
    if operation.is_body_optional:
        yield from ("The body may be left out.", "")
    if len(operation.media_types) > 1:
        yield from (f"`Content-Type` may be {' or '.join(f'`{each}`' for each in operation.media_types)}.", "")


def _anchor_of(headers: Sequence[str]) -> str:
    return "webhooks" if any(name.endswith("-Signature") for name in headers) else "headers-of-a-request"


def _parameter_row(parameter: OperationParameter) -> str:
    name, kind = f"`{parameter.name}`", shown(parameter.schema)
    default = parameter.schema.get("default")
    if default is not None:
        kind += f"; {default} if it is left out"
    elif not parameter.is_required:
        name += ", if wanted"
    return f"| {parameter.place} | {name} | {kind} |"


def _answered(operation: HttpOperation) -> Iterator[str]:
    yield from ("| status | answer |", "| --- | --- |")
    for answer in operation.answers:
        yield f"| {int(answer.status)} | {_answer(answer)} |"
    for status, codes in operation.codes.items():
        yield f"| {status} | {', '.join(f'`{code}`' for code in codes)} |"
    yield ""


def _answer(answer: OperationAnswer) -> str:
    content = "" if answer.status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED) else _content(answer.content)
    headers = f"with {', '.join(f'`{name}`' for name in answer.headers)}" if answer.headers else ""
    return ", ".join(part for part in (content or "no body", headers) if part)


def _content(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    origin, arguments = get_origin(content), get_args(content)
    if origin is Page:
        return f"[page](HTTP.md#lists) of {_content(arguments[0])}"
    if origin is list:
        return f"array of {_content(arguments[0])}"
    return f"[{content.__name__}](#{content.__name__.lower()})"


def _curl(operation: HttpOperation, port: int) -> list[str]:
    path = re.sub(r"\{([a-z_]+)\}", lambda part: _example_of(operation, part.group(1)), operation.path)
    method = "" if operation.method in ("GET", "POST") else f"-X {operation.method} "
    is_post = operation.method == "POST"
    line = f"curl {method}localhost:{port}{path}"
    if operation.example:
        text = json.dumps(operation.example, ensure_ascii=False)
        return [f"{line} -H 'Content-Type: application/json' -d '{text}'"]
    if operation.body:
        return [f"{line} -H 'Content-Type: application/json' --data-binary @body.json"]
    return [line.replace("curl ", "curl -X POST ", 1) if is_post else line]


def _example_of(operation: HttpOperation, part: str) -> str:
    (parameter,) = (each for each in operation.of("path") if each.name == part)
    return _EXAMPLE_UUID if parameter.schema.get("format") == "uuid" else "1"


_Time = Annotated[datetime, msgspec.Meta(tz=True)]


def _models(operations: Sequence[HttpOperation]) -> list[type[Struct]]:
    """The types of all answers, and of what is in them, in the order in which they are met."""
    found: dict[type[Struct], None] = {}

    def meet(content: Any) -> None:
        for part in get_args(content):
            meet(part)
        is_model = isinstance(content, type) and issubclass(content, Struct) and get_origin(content) is None
        if is_model and content not in found:
            found[content] = None
            for field in msgspec.structs.fields(content):
                meet(field.type)

    for operation in operations:
        for answer in operation.answers:
            if get_origin(answer.content) is Page:
                meet(get_args(answer.content)[0])
            else:
                meet(answer.content)
    return list(found)


def _model(model: type[Struct]) -> str:
    lines = [f"### {model.__name__}", "", cleandoc(model.__doc__ or ""), "", "| field | type |", "| --- | --- |"]
    for field in msgspec.structs.fields(model):
        (schema,), _ = msgspec.json.schema_components([_with_schema(field.type)], ref_template="{name}")
        lines.append(f"| `{field.encode_name}` | {shown(schema)} |")
    return "\n".join([*lines, ""])


def _with_schema(kind: Any) -> Any:
    """The type; any JSON in place of text that is not decoded, and times in place of those that may have no zone."""
    parts = (kind, *get_args(kind))
    if msgspec.Raw in parts:
        return Any
    if datetime in parts:
        return _Time | None if NoneType in parts else _Time
    return kind


def shown(schema: Json) -> str:  # noqa: PLR0911  # one line a type
    """A type of JSON Schema in words."""
    if "anyOf" in schema:
        return " or ".join(shown(each) for each in schema["anyOf"])
    if "$ref" in schema:
        return f"[{schema['$ref']}](#{schema['$ref'].lower()})"
    if "enum" in schema:
        return ("one of " if len(schema["enum"]) > 1 else "") + ", ".join(f"`{each}`" for each in schema["enum"])
    match schema.get("type"):
        case "integer":
            return "integer" + _range(schema.get("minimum"), schema.get("maximum"), "")
        case "string":
            return _text(schema)
        case "array":
            return f"array of {shown(schema['items'])}"
        case "object" if isinstance(schema.get("additionalProperties"), dict):
            return f"object with values: {shown(schema['additionalProperties'])}"
        case "null":
            return "null"
        case None:
            return "any JSON"
        case kind:
            return str(kind)


def _text(schema: Json) -> str:
    if schema.get("format") in _WORDS:
        return _WORDS[schema["format"]]
    text = "text" + _range(schema.get("minLength"), schema.get("maxLength"), " characters")
    pattern = schema.get("pattern", "").removeprefix(r"\A").removesuffix(r"\Z")
    if "description" in schema:
        return f"{text}: {schema['description']}"
    if pattern and len(pattern) <= _PATTERN_MAX and pattern.isascii() and "|" not in pattern:
        return f"{text}, of the form `{pattern}`"
    return text


def _range(least: int | None, most: int | None, unit: str) -> str:
    if least is None and most is None:
        return ""
    if least == most:
        return f", {_number(most)}{unit}"
    if least is None or most is None:
        return f", at {'most' if least is None else 'least'} {_number(most if least is None else least)}{unit}"
    return f", {_number(least)} to {_number(most)}{unit}"


def _number(number: int | None) -> str:
    """2^53-1 and powers of ten as such: nobody counts their digits."""
    if number is None:
        return ""
    if number == INTEGER_MAX:
        return "2^53-1"
    sign, digits = "-" if number < 0 else "", str(abs(number))
    if abs(number) >= _LARGE and digits.rstrip("0") == "1":
        return f"{sign}{_TEN}^{len(digits) - 1}"
    return str(number)
