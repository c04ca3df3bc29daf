"""Turns a log entry into the command's outcome."""

import msgspec

from coordinator.service.outcome import FORGOTTEN, NO_RESULT, Outcome, OutcomeError
from coordinator.stores.lane_tables import LogEntry


def forgotten_entry(entry: LogEntry, *, without_actor: bool) -> LogEntry:
    """What stays of an entry: the command's id, type, place, status and time, and nothing of its content.

    Its fingerprint goes, too: whoever guesses the content could prove the guess by it.
    """
    code = "" if entry.error_code is None else f" ({entry.error_code})"
    return msgspec.structs.replace(
        entry,
        fingerprint=FORGOTTEN,
        result=None,
        error_code=FORGOTTEN,
        error_message=f"the command was settled as {entry.status}{code}; its content was personal, and is forgotten",
        actor=None if without_actor else entry.actor,
    )


def is_forgotten(entry: LogEntry) -> bool:
    """Whether the content of this entry was taken out. No other command has such a fingerprint."""
    return entry.fingerprint == FORGOTTEN


def from_log(entry: LogEntry, *, replayed: bool) -> Outcome:
    """The outcome that a log entry records; that of a forgotten one is `rejected`, since nobody knows its result."""
    return Outcome(
        command_id=entry.command_id,
        type=entry.type,
        status="rejected" if is_forgotten(entry) else entry.status,  # type: ignore[arg-type]  # the lane writes no other
        sequence=entry.sequence,
        result=NO_RESULT if entry.result is None else msgspec.Raw(entry.result.encode()),
        error=None
        if entry.error_code is None
        else OutcomeError(code=entry.error_code, message=entry.error_message or ""),
        replayed=replayed,
    )
