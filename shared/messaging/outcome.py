"""Outcomes: what became of a command."""

from typing import Literal

import msgspec
from msgspec import Struct

from shared.lane_tables import LogEntry

Status = Literal["applied", "rejected", "expired", "failed"]

NO_RESULT = msgspec.Raw(b"null")


class OutcomeError(Struct, frozen=True, kw_only=True):
    """Why a command was not applied. Codes are stable; messages are for people."""

    code: str
    message: str


class Outcome(Struct, frozen=True, kw_only=True):
    """What became of one command.

    `sequence` is its place in the lane's total order; it is None for a command that got none: one without an id, or
    one whose id was taken by a command with other content. `result` is JSON text.
    """

    command_id: str | None
    type: str | None
    status: Status
    sequence: int | None
    result: msgspec.Raw = NO_RESULT
    error: OutcomeError | None = None
    replayed: bool = False


def from_log(entry: LogEntry, *, replayed: bool) -> Outcome:
    """The outcome that a log entry records."""
    return Outcome(
        command_id=entry.command_id,
        type=entry.type,
        status=entry.status,  # type: ignore[arg-type]  # the lane writes no other
        sequence=entry.sequence,
        result=NO_RESULT if entry.result is None else msgspec.Raw(entry.result.encode()),
        error=None
        if entry.error_code is None
        else OutcomeError(code=entry.error_code, message=entry.error_message or ""),
        replayed=replayed,
    )


_OUTCOMES = msgspec.json.Decoder(list[Outcome])


def encode_outcomes(outcomes: list[Outcome]) -> bytes:
    """The body of an outcome message, or of several packed."""
    return msgspec.json.encode(outcomes)


def encode_outcome(outcome: Outcome) -> bytes:
    """The body of an outcome message."""
    return msgspec.json.encode(outcome)


def decode_outcomes(body: bytes) -> list[Outcome]:
    """The outcomes in a message's body that are packed. Raises msgspec.MsgspecError."""
    return _OUTCOMES.decode(body)


def decode_outcome(body: bytes) -> Outcome:
    """The outcome in a message's body. Raises msgspec.MsgspecError."""
    return msgspec.json.decode(body, type=Outcome)
