"""Turns a log entry into the command's outcome."""

import msgspec

from coordinator.service.outcome import NO_RESULT, Outcome, OutcomeError
from coordinator.stores.lane_tables import LogEntry


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
