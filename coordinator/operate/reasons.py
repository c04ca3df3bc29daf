"""Why a command failed, as operators are told: the log has a text of ours where the reason is not for clients."""

from collections.abc import Sequence

import msgspec

from coordinator.service.unshown import is_unshown
from coordinator.stores.admin import LaneAdmin, LetterQuery, LetterSummary
from coordinator.stores.lane_tables import LogEntry


def with_reason(entry: LogEntry, letters: Sequence[LetterSummary]) -> LogEntry:
    """An entry of the log with the reason that its dead letter keeps, if it is one of these."""
    if not letters or not is_unshown(entry.error_code):
        return entry
    return msgspec.structs.replace(entry, error_message=letters[-1].reason)


def with_reason_in(admin: LaneAdmin, entry: LogEntry) -> LogEntry:
    """The same, with the letter that there is in the lane's database."""
    if not is_unshown(entry.error_code):
        return entry
    return with_reason(entry, admin.letters(LetterQuery(command_id=entry.command_id), 0, 1))
