"""The headers of requests and answers, as OpenAPI has them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from coordinator.http.contract.route_operations import HttpOperation
from coordinator.http.headers import KEY_CHARACTERS_MAX
from coordinator.service.json_schemas import Json, references_in

_UUID: Final = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-79a-fA-F][0-9a-fA-F]{3}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
COMMAND_ID: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "type": "string",
        "pattern": _UUID,
        "not": {"pattern": "^(?:[0-]+|[fF-]+)$"},
    }
)
"""A UUID that a client may give to a command: none of version 8, and not one of zeros or ones alone."""


def _text(description: str, **schema: Any) -> Json:
    return {"description": description, "schema": {"type": "string", **schema}}


REQUEST_HEADERS: Final[Mapping[str, Json]] = {
    "Idempotency-Key": _text(
        "Names the write: repeated with the same key and content it is applied once at most, and the answer has the "
        f"first outcome again. 1 to {KEY_CHARACTERS_MAX} visible ASCII characters, bare or in quotes. Not together "
        "with `Command-Id`.",
        pattern=r"^(?:[!#-+\-.\/0-9:<-\[\]-~]{1,255}|\"(?:[!#-\[\]-~]|\\[\"\\]){1,255}\")$",
        examples=["order-1"],
    ),
    "Command-Id": {
        "description": "Names the write by its command's id, such as that of an answer that could not tell the "
        "outcome. Not together with `Idempotency-Key`.",
        "schema": dict(COMMAND_ID),
    },
    "If-Match": _text(
        "Applies the write only to the version of this entity tag: else 412. `*` sets no condition.",
        pattern=r"^(?:\*|\"[1-9][0-9]{0,14}\")$",
        examples=['"3"'],
    ),
    "If-None-Match": _text("304 without a body where the version is that of this entity tag.", examples=['"3"']),
    "Prefer": _text(
        "`respond-async`: 202 as soon as the command is safe. `wait=N`: wait N seconds at most for the outcome. What "
        "is not understood is ignored (RFC 7240).",
        examples=["respond-async", "wait=5"],
    ),
    "Read-After": _text(
        "The read shows at least what the lane's commands up to this place left: that of the answer to a write, sent "
        "back as it is. The gateway waits briefly where its database lags, then asks the primary, or answers 503 "
        "`read_not_recent` (a dictionary, RFC 9651).",
        pattern=r"^[ \t]*[a-z*][a-z0-9_.*-]*=[0-9]{1,15}[ \t]*(?:,[ \t]*[a-z*][a-z0-9_.*-]*=[0-9]{1,15}[ \t]*)*$",
    ),
    "traceparent": _text(
        "W3C Trace Context: the request, its command and all that comes of it belong to this trace. What is malformed "
        "is ignored.",
        examples=["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
    ),
    "tracestate": _text("W3C Trace Context: goes with `traceparent`."),
}
"""Those that every gateway reads itself. Another one that a route names is a text."""

ANSWER_HEADERS: Final[Mapping[str, Json]] = {
    "Command-Id": _text("The command's id. Without it no command was issued."),
    "Command-Sequence": _text("The command's place in its lane's order.", pattern="^[1-9][0-9]*$"),
    "Read-After": _text(
        "The places of the request's commands that are settled, of each lane the last one: a read that has this header "
        "sees them (a dictionary, RFC 9651).",
        pattern=r"^[^ =,]+=[0-9]+(?:, [^ =,]+=[0-9]+)*$",
    ),
    "Served-By": _text(
        "Which database answered a read with `Read-After`: `replica` is that of READER_URL, `primary` that of "
        "PRIMARY_URL; `reader` is READER_URL's where no primary is named. Of several hosts it has the "
        "number: `replica-2`."
    ),
    "ETag": _text("The version, in quotes.", pattern=r"^\"[0-9]+\"$"),
    "Location": _text("The path of the new resource, or of 202 that of the outcome.", format="uri-reference"),
    "Content-Location": _text("The path of the row that is shown.", format="uri-reference"),
    "Idempotent-Replayed": _text("The outcome is that of the first request with this key or id.", enum=["true"]),
    "Preference-Applied": _text("Which preferences were followed."),
    "Retry-After": _text("Seconds until the request may be repeated as it is, without harm.", pattern="^[0-9]+$"),
    "WWW-Authenticate": _text("Which credential is needed (RFC 6750)."),
    "Accept-Encoding": _text("How a body may be encoded.", enum=["identity"]),
    "RateLimit-Policy": _text("How much one client may ask (draft-ietf-httpapi-ratelimit-headers-11)."),
    "RateLimit": _text("What is left of that."),
    "Cache-Status": _text("How the cache took part (RFC 9211)."),
    "Set-Cookie": _text("The session's cookie, or its end."),
}

OF_PROBLEMS: Final[Mapping[int, tuple[str, ...]]] = {
    401: ("WWW-Authenticate",),
    403: ("WWW-Authenticate",),
    415: ("Accept-Encoding",),
    429: ("Retry-After",),
    503: ("Retry-After",),
}
"""Headers of problems, by status. `Retry-After` of 503 is there where a repetition does no harm."""
_ALWAYS: Final = frozenset({(401, "WWW-Authenticate"), (403, "WWW-Authenticate"), (429, "Retry-After")})


def request_headers(operation: HttpOperation, known: Mapping[str, Json]) -> list[Json]:
    """The parameters of a route that are headers; `known` are those that stand among the components."""
    names = [*operation.headers, *(["Command-Version"] if operation.command is not None else []), *_OF_ALL]
    return [_parameter(operation, name, known) for name in names]


_OF_ALL: Final = ("traceparent", "tracestate")


def _parameter(operation: HttpOperation, name: str, known: Mapping[str, Json]) -> Json:
    if name == "Command-Version" and operation.command is not None:
        latest = operation.command.command_version
        text = "The version that the fields have. An older one is upgraded."
        schema = {"type": "integer", "minimum": 1, "maximum": latest}
        return {"name": name, "in": "header", "description": text, "schema": schema}
    if name in known:
        return {"$ref": f"#/components/parameters/{name}"}
    return {"name": name, "in": "header", "schema": {"type": "string"}}


def answer_headers(names: tuple[str, ...], status: int, *, is_limited: bool) -> Json:
    """The headers of an answer, by name. `is_limited`: it says what whoever asks may still ask."""
    found: Json = {}
    for name in (*names, *(("RateLimit-Policy", "RateLimit") if is_limited else ())):
        known = {"$ref": f"#/components/headers/{name}"} if name in ANSWER_HEADERS else {"schema": {"type": "string"}}
        found[name] = {**ANSWER_HEADERS[name], "required": True} if (status, name) in _ALWAYS else known
    return found


def header_components(known: Mapping[str, Json], parts: object) -> Json:
    """Those headers to which these parts of the document refer."""
    used = set(references_in(parts))
    parameters = {name: {"name": name, "in": "header", **each} for name, each in known.items()}
    return {
        kind: {name: each for name, each in found.items() if f"#/components/{kind}/{name}" in used}
        for kind, found in (("parameters", parameters), ("headers", ANSWER_HEADERS))
    }
