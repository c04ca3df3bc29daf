"""Which problems a route may answer with, beside those that its description and its command name."""

from collections.abc import Iterator, Mapping
from typing import Final

from coordinator.http.contract.route_operations import HttpOperation

ROUTE_PROBLEMS: Final[Mapping[str, Mapping[int, tuple[str, ...]]]] = {
    "every": {417: ("expectation_failed",), 500: ("internal_error",), 503: ("overloaded",)},
    "known": {401: ("unauthenticated",), 429: ("too_many_requests",), 503: ("authentication_unavailable",)},
    "query": {400: ("invalid_query",)},
    "read": {500: ("row_unreadable",), 503: ("database_unavailable",)},
    "recency": {400: ("invalid_header",), 503: ("read_not_recent",)},
    "body": {
        400: ("invalid_header", "malformed_body", "malformed_json", "missing_body"),
        408: ("body_timeout",),
        413: ("body_too_large",),
        415: ("unsupported_content_encoding", "unsupported_content_type"),
    },
    "issue": {
        400: ("invalid_header",),
        422: ("invalid_arguments", "invalid_command", "message_refused", "upgrade_failed"),
        503: ("broker_unavailable", "database_unavailable", "idempotency_unavailable", "outcome_unknown"),
    },
    "write": {
        400: ("expected_version_unsupported", "malformed_json", "unknown_command_version"),
        403: ("forbidden",),
        409: ("cancelled", "publisher_seq_settled", "too_many_gaps", "too_many_parked"),
        410: ("forgotten",),
        412: ("version_conflict",),
        422: ("idempotency_mismatch",),
        502: (
            *("database_refused", "dead_lettered", "handler_error", "invalid_row", "message_too_large"),
            *("pack_too_large", "row_unreadable", "unknown_command_type", "unknown_command_version"),
        ),
        504: ("deadline_expired",),
    },
    "commands": {
        413: ("too_many_commands",),
        422: (
            *("invalid_command_id", "malformed_command", "malformed_commands", "reserved_command_id"),
            *("unknown_command_type", "unknown_command_version"),
        ),
    },
}
"""By what a route does (`kinds_of`): statuses, and the codes of the problems."""

OF_NO_ROUTE: Final = frozenset({"method_not_allowed", "misdirected_request", "not_found"})
"""Codes of answers to requests for which there is no route."""


def problems_of(
    operation: HttpOperation, of_credentials: Mapping[int, tuple[str, ...]] | None
) -> dict[int, tuple[str, ...]]:
    """All codes that a route may answer with, by status.

    `of_credentials` are those of a credential that does not count; None: the gateway asks nobody who he is.
    """
    found: dict[int, set[str]] = {status: set(codes) for status, codes in operation.codes.items()}
    kinds = [ROUTE_PROBLEMS[kind] for kind in kinds_of(operation)]
    if of_credentials is not None and not operation.is_open:
        kinds.append(of_credentials)
    for kind in kinds:
        for status, codes in kind.items():
            found.setdefault(status, set()).update(codes)
    return {status: tuple(sorted(codes)) for status, codes in sorted(found.items())}


def takes_commands(operation: HttpOperation) -> bool:
    """Whether the route takes many commands in one request."""
    return bool(operation.body_types) and operation.path == COMMANDS_PATH


def kinds_of(operation: HttpOperation) -> Iterator[str]:
    """What a route does, as far as its problems go."""
    is_write, takes_many = operation.command is not None, takes_commands(operation)
    yield "every"
    if operation.reads_query:
        yield "query"
    if operation.method == "GET" and operation.reads_query:
        yield "read"
    if "Read-After" in operation.headers:
        yield "recency"
    if operation.body or operation.body_types or operation.of("body"):
        yield "body"
    if is_write or takes_many:
        yield "issue"
    if is_write:
        yield "write"
    if takes_many:
        yield "commands"


COMMANDS_PATH: Final = "/commands"
"""The path to which many commands are sent in one request."""
