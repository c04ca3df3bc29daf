"""Outcomes: the ends of commands."""

from typing import Final, Literal

import msgspec
from msgspec import Struct

Status = Literal["applied", "rejected", "expired", "failed"]

NO_RESULT = msgspec.Raw(b"null")

FORGOTTEN: Final = "forgotten"
"""The code of a command that was settled, and whose personal content was taken out since."""


class OutcomeError(Struct, frozen=True, kw_only=True):
    """Why a command was not applied. Codes are stable; messages are for people."""

    code: str
    message: str


class Outcome(Struct, frozen=True, kw_only=True):
    """The end of one command.

    `sequence` is its place in the lane's total order. It is None for a command without an id, and for one whose id
    belongs to a command with other content. `result` is JSON text.
    """

    command_id: str | None
    type: str | None
    status: Status
    sequence: int | None
    result: msgspec.Raw = NO_RESULT
    error: OutcomeError | None = None
    replayed: bool = False
