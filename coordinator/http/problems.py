"""Errors as problem details (RFC 9457), and the one table that maps codes to statuses.

| error | status |
| --- | --- |
| RequestRefused | its own: HTTP or this API does not take the request |
| InvalidCommand | 400 `malformed_json`, else 422 |
| NotFound | 404 |
| CommandRejected | by its code: STATUSES; 404 for `*_not_found`; 422 for `unknown_*`; 409 for every other reason |
| CommandFailed | by its code: STATUSES; else 502: the lane behind this gateway could not apply it |
| OutcomeUnknown | 503; with `Retry-After` only if the same request, repeated, is the same command |
| Unavailable | 503 with `Retry-After` |
| web.HTTPException | its own: 404, 405 with `Allow` |
| UnreadableRow | 500 `row_unreadable`: another release or program has written a row that is none of its class |
| anything else | 500 `internal_error`: a defect of ours, whose traceback is logged and not shown |

A failed command is recorded, and repeating it under the same key returns the same failure. So the status is 502 and
not 503, which would ask for a repetition. If the code is that of a malformed command, the lane refused a command that
this gateway let through (one of them is of another release): the request is at fault, and the status is 422.

An exception's own text may name hosts, rows and constraints: it is in the log, on the line of the request. The client
gets a code, a text of ours, and the ids that this line has: `trace_id`, and `command_id` if there is a command.

Once a command has its outcome, only that outcome may be an error: if anything else fails then, the middleware answers
202 with the place of the outcome.
"""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec
from aiohttp import web
from msgspec import UNSET, Struct, UnsetType

from coordinator.service.errors import (
    BrokerUnavailable,
    CommandFailed,
    CommandRejected,
    CoordinatorError,
    DatabaseUnavailable,
    InvalidCommand,
    NotFound,
    OutcomeUnknown,
    Unavailable,
    UnreadableRow,
)
from coordinator.service.outcome import FORGOTTEN
from coordinator.service.unshown import is_unshown, shown_answer

CONTENT_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "/problems/"
"""A problem's `type` is an address at its gateway, where its meaning is (RFC 9457, section 3.1.1)."""
DETAIL_CHARACTERS_MAX: Final = 1000
REALM: Final = "write-coordinator"
_MAY_NOT: Final = f'Bearer realm="{REALM}", error="insufficient_scope"'
"""The challenge of an answer to somebody who is known, and may not do what he asked for (RFC 6750)."""

HOW_TO_REPEAT: Final = (
    "To have it applied once, whatever became of it, repeat the request with its Idempotency-Key; if it had none,"
    " with the header Command-Id, as in this answer"
)

UNCERTAIN: Final = frozenset({OutcomeUnknown.code, "internal_error"})
"""Codes after which the command may be applied: repeating it blindly may apply it twice."""

STATUSES: Final = {
    "forbidden": 403,
    "version_conflict": 412,
    "idempotency_mismatch": 422,
    # Not applied, though it was once: what it left is gone, and nobody can tell its result.
    FORGOTTEN: 410,
    # This type of command cannot have the condition: the request must be made without it.
    "expected_version_unsupported": 400,
    "deadline_expired": 504,
    "expired": 504,
    "invalid_arguments": 422,
    "invalid_command": 422,
    "upgrade_failed": 422,
    "malformed_json": 400,
}
"""The statuses of codes that do not follow the rule of their error's class."""


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of every error. `code` is stable: clients branch on it; `detail` is for people."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    instance: str
    field: str | UnsetType = UNSET
    command_id: str | UnsetType = UNSET
    trace_id: str | UnsetType = UNSET
    checks: dict[str, str] | UnsetType = UNSET
    reasons: dict[str, str] | UnsetType = UNSET
    outcomes: Sequence[Any] | UnsetType = UNSET
    next: Any = UNSET


class RequestRefused(CoordinatorError):  # named for the client's request, like coordinator.service.errors.Rejected
    """Raised for a request that this API does not accept. Nothing was issued."""

    def __init__(self, status: int, code: str, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.field = field
        self.challenge: str | None = None
        """The value of `WWW-Authenticate`."""
        self.retry_after_s: int | None = None


def body_unreadable(error: Exception) -> RequestRefused:
    """For a body that does not come, or not as it was announced."""
    return RequestRefused(400, "malformed_body", f"the body cannot be read: {type(error).__name__}")


def body_too_large(bytes_max: int) -> RequestRefused:
    """For a body of more bytes than a gateway takes."""
    return RequestRefused(
        413,
        "body_too_large",
        f"the body is larger than the {bytes_max} bytes that this gateway takes (GATEWAY_BODY_BYTES_MAX);"
        " several commands can go in several requests",
        field="body",
    )


class NotReady(Unavailable):
    """Raised by the readiness check, with the state of each part of the process, and why some are down."""

    code = "not_ready"

    def __init__(self, checks: dict[str, str], reasons: dict[str, str]) -> None:
        super().__init__("this gateway cannot serve now; `reasons` says what is missing")
        self.checks = checks
        self.reasons = reasons


class NothingIssued(Unavailable):
    """Raised when none of a request's commands could be handed over, with the answer to each."""

    def __init__(self, code: str, message: str, outcomes: Sequence[Struct]) -> None:
        super().__init__(message)
        self.code = code
        self.outcomes = outcomes


class Answer(Struct, frozen=True):
    """The answer to an error, except for the parts that only the request knows.

    `is_quoted`: the reason is in the log, under the id of the request's line.
    """

    status: int
    code: str
    detail: str
    field: str | None = None
    command_id: str | None = None
    replayed: bool = False
    retry: bool = False
    is_quoted: bool = False
    checks: dict[str, str] | None = None
    reasons: dict[str, str] | None = None
    outcomes: Sequence[Struct] | None = None
    next: Any = None


def answer_to(error: Exception) -> Answer:  # noqa: PLR0911  # one line an error
    """The answer to this error. Never raises; an unknown error is a 500."""
    match error:
        case RequestRefused():
            return Answer(error.status, error.code, str(error), error.field)
        case InvalidCommand():
            text = shown_answer(error.code, str(error))
            return Answer(
                STATUSES.get(error.code, 422), error.code, text, error.field, is_quoted=is_unshown(error.code)
            )
        case NotFound():
            return Answer(404, error.code, str(error))
        case CommandRejected():
            return _settled(error, _of_rejection(error.code))
        case CommandFailed():
            return _settled(error, 502)
        case Unavailable():
            return _unavailable(error)
        case UnreadableRow():
            return Answer(500, error.code, _of_row(error), next=error.next)
        case web.HTTPException():
            return _of_http(error)
        case _:
            return Answer(500, "internal_error", "a defect of this service; its log has the details")


def shown(error: Unavailable) -> str:
    """What a client is told of a part that is away. The error's own text, of a driver say, goes to the log only."""
    match error:
        case DatabaseUnavailable():
            return "the database cannot be read now"
        case OutcomeUnknown():
            return "the command may be applied, now or later: nobody has confirmed it yet"
        case BrokerUnavailable():
            return "the command could not be handed over to its lane, and is not applied"
        case _:
            return str(error)


def _of_rejection(code: str) -> int:
    """The status of a rejection: a thing that does not exist, that can never be, or that cannot be now."""
    if code.endswith("_not_found"):
        return 404
    return 422 if code.startswith("unknown_") else 409


def _settled(error: CommandRejected | CommandFailed, fallback: int) -> Answer:
    status = STATUSES.get(error.code, fallback)
    return Answer(status, error.code, str(error), command_id=error.command_id, replayed=error.replayed)


def _unavailable(error: Unavailable) -> Answer:
    detail = shown(error)
    if isinstance(error, OutcomeUnknown):
        detail = f"{detail}. {HOW_TO_REPEAT}"
    checks, reasons = (error.checks, error.reasons) if isinstance(error, NotReady) else (None, None)
    outcomes = error.outcomes if isinstance(error, NothingIssued) else None
    return Answer(503, error.code, detail, checks=checks, reasons=reasons, outcomes=outcomes, retry=True)


def _of_row(error: UnreadableRow) -> str:
    """Which row it is, the log says: of this client we know only that it may ask."""
    behind = "" if error.next is None else "; `next` is the `after` of the rows behind it"
    return f"a row is none of its class: another release or program wrote it, and operators find it in the log{behind}"


def _of_http(error: web.HTTPException) -> Answer:
    match error:
        case web.HTTPNotFound():
            return Answer(404, "not_found", "there is nothing at this path")
        case web.HTTPMethodNotAllowed():
            return Answer(405, "method_not_allowed", f"this path takes {error.headers['Allow']}")
        case _:
            return Answer(error.status, error.reason.lower().replace(" ", "_"), error.reason)


def problem_response(
    request: web.Request,
    error: Exception,
    *,
    command_id: str | None,
    trace_id: str | None,
    is_repeatable: bool,
    retry_after_s: int,
) -> web.Response:
    """The response for an error; `command_id` is that of the command under way, `trace_id` that of the log line.

    `is_repeatable`: the same request, sent again, is the same command.
    """
    answer = answer_to(error)
    known_id = answer.command_id or command_id
    is_quoted = answer.is_quoted or answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR
    problem = Problem(
        type=TYPE_PREFIX + answer.code,
        title=_title(answer),
        status=answer.status,
        detail=_clean(answer.detail),
        code=answer.code,
        instance=_clean(request.rel_url.raw_path),
        field=UNSET if answer.field is None else _clean(answer.field),
        command_id=UNSET if known_id is None else known_id,
        trace_id=trace_id if trace_id is not None and is_quoted else UNSET,
        checks=UNSET if answer.checks is None else answer.checks,
        reasons=UNSET if answer.reasons is None else answer.reasons,
        outcomes=UNSET if answer.outcomes is None else answer.outcomes,
        next=UNSET if answer.next is None else answer.next,
    )
    response = web.Response(status=answer.status, body=msgspec.json.encode(problem), content_type=CONTENT_TYPE)
    if isinstance(error, web.HTTPMethodNotAllowed):
        response.headers["Allow"] = error.headers["Allow"]
    if isinstance(error, RequestRefused) and error.challenge is not None:
        response.headers["WWW-Authenticate"] = error.challenge
    elif answer.code == "forbidden":
        response.headers["WWW-Authenticate"] = _MAY_NOT
    if answer.code == "unsupported_content_encoding":
        response.headers["Accept-Encoding"] = "identity"
    if isinstance(error, RequestRefused) and error.retry_after_s is not None:
        response.headers["Retry-After"] = str(error.retry_after_s)
    elif answer.retry and (is_repeatable or answer.code not in UNCERTAIN):
        response.headers["Retry-After"] = str(retry_after_s)
    if answer.replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return response


def _title(answer: Answer) -> str:
    """The title of the type, not of the occurrence: RFC 9457, section 3.1.3."""
    if answer.code == "internal_error":
        return HTTPStatus(500).phrase
    return answer.code.replace("_", " ").capitalize()


def _clean(text: str) -> str:
    """Text that can be encoded: clients may send bytes in paths and headers that are not UTF-8."""
    return text[:DETAIL_CHARACTERS_MAX].encode("utf-8", "replace").decode()
