"""Rows that a handler returns: they are what its command leaves, so that no client reads what was not written."""

from collections.abc import Iterator

from coordinator.lane.identity_map import IdentityMap
from coordinator.service.leaves import runs
from coordinator.service.rows import Row, key_of
from coordinator.stores.row_checks import WrongUse
from coordinator.stores.same_rows import is_same


def unsaved_row(done: object, work: IdentityMap) -> str | None:
    """A row in a result that is not as the command leaves it, and what to do; None: there is none.

    The result itself is as the unit of work has it, or was removed by the command. A row within the result may also be
    as it was before a change of the command, to tell that.
    """
    for row in _rows_in(done):
        if work.has(row) or not _is_the_services(row, work):
            continue
        now = work.now_or_removed(row)
        if (now is not None and is_same(now, row)) or (row is not done and work.was(row)):
            continue
        named = f"{type(row).__name__} {key_of(row)!r:.100}"
        if now is None:
            return f"{named}, of which there is no row: work.add(…) makes it, and returns it"
        return f"{named} as it was not saved: work.save(…) it, and return the row that save returns"
    return None


def _is_the_services(row: Row, work: IdentityMap) -> bool:
    """Whether rows of this class can be kept at all; others are made for the answer."""
    try:
        return not work.kinds[type(row)].is_the_lanes
    except WrongUse:
        return False


def _rows_in(thing: object) -> Iterator[Row]:
    # Many at a time: what is returned as `Any` may be a lot, and have no row at all.
    for run in runs(thing, whole=(Row,)):
        if isinstance(run[0], Row):
            yield from run
