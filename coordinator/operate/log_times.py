"""Where a time is in a lane's log."""

from datetime import datetime

from coordinator.stores.admin import LaneAdmin
from coordinator.stores.audit import ChangeQuery


def first_since(admin: LaneAdmin, at: datetime) -> int:
    """The sequence of the first entry that was settled at a time or later: the log is in order of time, but for clocks
    that were wrong, so it is found by halving. Behind the last one where none was."""
    bounds = admin.audit_bounds(None)
    low, high = bounds.first or 1, admin.sequence() + 1
    while low < high:
        middle = (low + high) // 2
        found = admin.audited(ChangeQuery(), middle + 1, 1)
        if found and found[0].settled_at >= at:
            high = min(middle, found[0].sequence)
        else:
            low = middle + 1
    return low
