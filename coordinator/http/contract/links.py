"""From an answer to the requests that it makes possible: OpenAPI's links, found by the routes' paths and types."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from coordinator.http.contract.route_operations import HttpOperation
from coordinator.service.json_schemas import Json
from coordinator.service.rows import Row, key_columns

_PART: Final = re.compile(r"\{([a-z_]+)\}")
_OUTCOME: Final = "/commands/{id}"
_CREATED: Final = 201


def links_of(operation: HttpOperation, names: Mapping[tuple[str, str], str], known: Iterable[HttpOperation]) -> Json:
    """The links of a route's answers of success. `names` are the operations' ids, by method and path."""
    found: Json = {
        (name := names["GET", path]): {"operationId": name, "parameters": dict(parameters)}
        for path, parameters in operation.links.items()
    }
    if operation.command is None:
        return found
    for other in known:
        parameters = dict(_parameters(operation, other))
        if parameters:
            name = names[other.method, other.path]
            found[name] = {"operationId": name, "parameters": parameters}
    return found


def _parameters(operation: HttpOperation, other: HttpOperation) -> Iterator[tuple[str, str]]:
    parts = _PART.findall(other.path)
    if other.path == _OUTCOME:
        yield "id", "$response.header.Command-Id"
    elif any(answer.status == _CREATED for answer in operation.answers) and _is_below(operation.path, other.path):
        *above, own = parts
        yield from ((part, f"$request.path.{part}") for part in above)
        yield own, "$response.body#/id"
    elif other.method == "GET" and parts and _shows_the_row(operation, other):
        (row,) = {answer.content for answer in other.answers if answer.content is not None}
        columns = key_columns(row)
        named = dict(zip(parts, columns, strict=True)) if len(parts) > 1 else {parts[0]: columns[0]}
        yield from ((part, f"$response.body#/{column}") for part, column in named.items())


def _is_below(path: str, other: str) -> bool:
    """Whether the other path leads to one of what is made at this path, or to a part of it."""
    return re.fullmatch(re.escape(path) + r"/\{[a-z_]+\}(?:/[a-z_]+)*", other) is not None


def _shows_the_row(operation: HttpOperation, other: HttpOperation) -> bool:
    """Whether the other route shows a row by its key, and this write returns such a row."""
    shown = [answer.content for answer in other.answers if answer.content is not None]
    returned = [answer.content for answer in operation.answers]
    is_row = len(shown) == 1 and isinstance(shown[0], type) and issubclass(shown[0], Row)
    return is_row and shown[0] in returned and len(key_columns(shown[0])) == len(_PART.findall(other.path))
