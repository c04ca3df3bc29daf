"""What the code of a problem means: for docs/HTTP.md, which has them all, and for the address that its `type` is."""

from typing import Final

from msgspec import Struct


class ProblemCode(Struct, frozen=True):
    """A code, the statuses of its answers, and its meaning in Markdown.

    `of`: `request` (refused before anything was issued, or a read), `lane` (the command is settled, without an effect)
    and `away` (503).
    """

    code: str
    statuses: tuple[int, ...]
    of: tuple[str, ...]
    meaning: str


PROBLEM_CODES: Final = (
    ProblemCode(
        "authentication_unavailable",
        (503,),
        ("away",),
        "neither the API keys nor the keys of the issuer of tokens are known now",
    ),
    ProblemCode("body_timeout", (408,), ("request",), "the body took longer than `GATEWAY_BODY_TIMEOUT_S`"),
    ProblemCode("body_too_large", (413,), ("request",), "the body has more than `GATEWAY_BODY_BYTES_MAX` bytes"),
    ProblemCode("broker_unavailable", (503,), ("away",), "RabbitMQ is away, or takes nothing now"),
    ProblemCode("cancelled", (409,), ("lane",), "an operator cancelled the command before its turn"),
    ProblemCode(
        "command_not_found", (404,), ("request",), "no such command is settled in this service, or the id is not a UUID"
    ),
    ProblemCode("database_refused", (502,), ("lane",), "the database refused what the command wrote"),
    ProblemCode("database_unavailable", (503,), ("away",), "the database cannot be read now"),
    ProblemCode("dead_lettered", (502,), ("lane",), "RabbitMQ took the command out of the lane's queue"),
    ProblemCode("deadline_expired", (504,), ("lane",), "the command's turn came after its deadline"),
    ProblemCode("expectation_failed", (417,), ("request",), "`Expect` asks for something other than `100-continue`"),
    ProblemCode(
        "expected_version_unsupported",
        (400,),
        ("lane",),
        "this write has no version that could be expected: send it without `If-Match`",
    ),
    ProblemCode(
        "forbidden",
        (403,),
        ("lane", "request"),
        "the service's rule does not let whoever asks do this, or it is not known who asks",
    ),
    ProblemCode(
        "forgotten",
        (410,),
        ("lane",),
        "a repetition of a command whose content was personal, and is "
        "[forgotten](OPERATING.md#a-person-asks-to-be-forgotten): it is not applied again, and its result is "
        "gone",
    ),
    ProblemCode("handler_error", (502,), ("lane",), "a defect of ours: the command is a dead letter"),
    ProblemCode(
        "idempotency_mismatch",
        (422,),
        ("lane",),
        "the key, or the id, is that of another command; `detail` says which of the two, and the place of that command "
        "if the same principal asked for it: nobody else, and nobody where everybody may ask, learns more than that it "
        "is taken",
    ),
    ProblemCode(
        "idempotency_unavailable",
        (503,),
        ("away",),
        "the secret that tells the keys of two clients apart is not known now, or another one is about to "
        "count (some seconds): nothing was issued. Requests without a key need none",
    ),
    ProblemCode(
        "internal_error",
        (500, 503),
        ("request",),
        "a defect of the gateway's; it is unknown whether a write is applied. 503: it met all commands of a "
        "`POST /commands`",
    ),
    ProblemCode(
        "invalid_arguments",
        (422,),
        ("request", "lane"),
        "a field is missing, unknown, or invalid: `field` names it; or the command's class raises an error for them",
    ),
    ProblemCode(
        "invalid_command", (422,), ("request",), "a command, or its idempotency key, cannot be written as JSON"
    ),
    ProblemCode(
        "invalid_command_id",
        (422,),
        ("request",),
        "an `id` in `POST /commands` is not a UUID, or is one of zeros or ones alone",
    ),
    ProblemCode(
        "invalid_header",
        (400,),
        ("request",),
        "`Idempotency-Key`, `Command-Id`, `Command-Version`, `If-Match` or `Read-After` is malformed, given twice, or "
        "not taken here; `Content-Type` or `Content-Encoding` is given twice; at a port of several tenants `Host` is "
        "given twice, or is not the host in the request line",
    ),
    ProblemCode(
        "invalid_query", (400,), ("request",), "a query parameter is unknown, given twice, or out of its limits"
    ),
    ProblemCode(
        "invalid_row",
        (502,),
        ("lane",),
        "a defect of ours: the handler wrote a row that no database takes; the dead letter names the column",
    ),
    ProblemCode("malformed_body", (400,), ("request",), "the body cannot be read as HTTP"),
    ProblemCode(
        "malformed_command",
        (422,),
        ("request",),
        "an element of `POST /commands` is not an object, or has a wrong member",
    ),
    ProblemCode(
        "malformed_commands", (422,), ("request",), "the body of `POST /commands` is not an array, or is empty"
    ),
    ProblemCode(
        "malformed_json",
        (400,),
        ("request", "lane"),
        "the body is not JSON, is nested too deep, or an object in it has a name twice",
    ),
    ProblemCode(
        "message_refused", (422,), ("request",), "RabbitMQ does not take this command, for example for its size"
    ),
    ProblemCode("message_too_large", (502,), ("lane",), "the lane takes smaller messages than the gateway sends"),
    ProblemCode("method_not_allowed", (405,), ("request",), "the path has other methods: `Allow`"),
    ProblemCode(
        "misdirected_request",
        (421,),
        ("request",),
        "a port of [several tenants](SCALING.md#one-gateway-for-several-tenants): `Host` is no host of one of them",
    ),
    ProblemCode("missing_body", (400,), ("request",), "this route needs a body"),
    ProblemCode("not_found", (404,), ("request",), "there is no such path"),
    ProblemCode("not_ready", (503,), ("away",), "`/readyz`: see `reasons`"),
    ProblemCode(
        "outcome_unknown",
        (503,),
        ("away",),
        "sent, and not confirmed in time: it may be applied. Repeat it with its key or its `Command-Id`",
    ),
    ProblemCode(
        "overloaded",
        (503,),
        ("away",),
        "too many commands are under way (three quarters of `GATEWAY_IN_FLIGHT_MAX`; half, for a request of "
        "several commands) or too many requests wait (three quarters of `GATEWAY_CONNECTIONS_MAX`), the "
        "lane's queue is full, too many connections are being served, or so many commands wait that `GET "
        "/commands/{id}` cannot tell whether this is one of them",
    ),
    ProblemCode("pack_too_large", (502,), ("lane",), "the lane takes smaller packs than the gateway sends"),
    ProblemCode("publisher_seq_settled", (409,), ("lane",), "a repetition that is older than the log"),
    ProblemCode(
        "read_not_recent",
        (503,),
        ("away",),
        "a read with `Read-After`: no database that it may ask has come so far within `GATEWAY_READ_AFTER_WAIT_MS`, as "
        "where a replica lags, or the place is of another deployment, or of before a restored backup",
    ),
    ProblemCode(
        "reserved_command_id",
        (422,),
        ("request",),
        "an `id` in `POST /commands` is of UUID version 8, the system's own",
    ),
    ProblemCode(
        "row_not_found", (404,), ("request",), "the table has no such row, in a gateway that is made from a service"
    ),
    ProblemCode(
        "row_unreadable",
        (500, 502),
        ("request", "lane"),
        "another release, or another program, has written a row that is none of its class: a read of it (500), "
        "or a command that needs it (502). Operators find which row under `trace_id`, or `command_id`",
    ),
    ProblemCode(
        "schema_not_found",
        (404,),
        ("request",),
        "`/schemas`: there is no such type of command here, or the version is not known",
    ),
    ProblemCode("too_many_commands", (413,), ("request",), "`POST /commands` has more than `GATEWAY_COMMANDS_MAX`"),
    ProblemCode("too_many_gaps", (409,), ("lane",), "too many numbers of the gateway's session were left out"),
    ProblemCode("too_many_parked", (409,), ("lane",), "too many commands wait behind a failed one"),
    ProblemCode(
        "too_many_requests",
        (429,),
        ("request",),
        "whoever asks has sent [more than one client may](#how-much-one-client-may-ask), or has too much "
        "under way: repeat it after `Retry-After`",
    ),
    ProblemCode(
        "unauthenticated",
        (401,),
        ("request",),
        "there is no credential, or one that does not count: `WWW-Authenticate` ([who asks](#who-asks))",
    ),
    ProblemCode(
        "unknown_command_type",
        (422, 502),
        ("request", "lane"),
        "`POST /commands`: no such type here. Of the lane (502): it runs an older release than the gateway, "
        "and its database was not migrated",
    ),
    ProblemCode(
        "unknown_command_version",
        (400, 422, 502),
        ("request", "lane"),
        "`Command-Version` (400) or a `command_version` of `POST /commands` (422) is not known to this "
        "gateway. Of the lane (502): it runs an older release than the gateway, and its database was not "
        "migrated",
    ),
    ProblemCode("unsupported_content_encoding", (415,), ("request",), "the body is compressed"),
    ProblemCode("unsupported_content_type", (415,), ("request",), "the body is of another media type, or not in UTF-8"),
    ProblemCode(
        "upgrade_failed",
        (422,),
        ("request", "lane"),
        "nothing could be made of the fields of an older version: they are not of that version, or its "
        "upgrade has a defect",
    ),
    ProblemCode(
        "version_conflict",
        (412,),
        ("request", "lane"),
        "the row has another version than `If-Match` says, or the tag cannot be a version",
    ),
)
"""Those of every gateway, and of every lane."""
