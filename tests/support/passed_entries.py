"""What logs in memory say of how their commands passed."""

from collections.abc import Iterable

from coordinator.client.command_log import Passed
from coordinator.stores.lane_tables import LogEntry


def passed(entries: Iterable[LogEntry], first: int, last: int) -> list[Passed]:
    """As `CommandLog.passages`."""
    found = sorted((each for each in list(entries) if first <= each.sequence <= last), key=lambda each: each.sequence)
    return [
        Passed(command_id=each.command_id, sequence=each.sequence, settled_at=each.settled_at, passage=each.passage)
        for each in found
    ]
