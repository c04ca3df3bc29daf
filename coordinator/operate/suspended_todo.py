"""What helps a suspended lane, by the kind of what it waits for. docs/OPERATING.md, A lane is suspended, has all of
it."""

from typing import Final

from coordinator.lane.delivery import SuspensionCause
from coordinator.service.lane_names import settings_prefix

_UNSAID: Final = "mend what it waits for, or bring that back: the lane goes on by itself"
_TODO: Final[dict[SuspensionCause, str]] = {
    "database": "bring its database back, or give that what it says it needs: the lane goes on by itself",
    "refusal": "the lane tries again by itself; if this lasts: docs/OPERATING.md, A database refuses everything",
    "conflict": "the lane tries again by itself; if this lasts, end the session that has the lock",
    "paused": "once the reason is over: coordinator resume {lane}",
    "move": "if this lasts, whoever moves the lane has ended: the same `coordinator move {lane}` again, or --cancel",
    "blocked": "deploy a release in which that is mended, or give the command up: coordinator cancel ID --lane {lane}",
    "commits_lost": "look first whether {prefix}DATABASE_URL of its processes leads to the right database, then for "
    "a copy of it that has the rest (docs/OPERATING.md, A database has lost acknowledged commands)",
    "newer_release": "start a coordinator of the newer release: it takes the lane over; or go on with the upgrade",
}


def suspended_todo(lane: str, cause: SuspensionCause | None) -> str:
    """What helps this lane. None: its coordinator has not said the cause, as where an answer is late, or by an earlier
    release."""
    return _UNSAID if cause is None else _TODO[cause].format(lane=lane, prefix=settings_prefix(lane))
