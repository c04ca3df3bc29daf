"""What operators ask of a lane's timers, on SQL."""

from sqlalchemy import Connection, select

from coordinator.stores.admin import TimerSummary, WaitingTimers
from coordinator.stores.lane_tables import TIMERS_WAITING, Series, Timer, metadata
from coordinator.stores.times import utc

_TIMERS = metadata.tables[Timer.table]
_COUNTERS = metadata.tables[Series.table]


def waiting_timers(connection: Connection) -> WaitingTimers:
    """How many wait, and when the first is due."""
    first = connection.execute(select(_TIMERS.c.due_at).order_by(_TIMERS.c.id).limit(1)).scalar()
    count = connection.execute(select(_COUNTERS.c.value).where(_COUNTERS.c.name == TIMERS_WAITING)).scalar()
    return WaitingTimers(count=count or 0, next_at=None if first is None else utc(first))


def timers_of(connection: Connection, after: str, limit: int) -> list[TimerSummary]:
    """The first of those with a higher key, in order."""
    names = [name for name in TimerSummary.__struct_fields__ if name != "target"]
    wanted = select(_TIMERS.c.lane.label("target"), *(_TIMERS.c[name] for name in names))
    found = connection.execute(wanted.where(_TIMERS.c.id > after).order_by(_TIMERS.c.id).limit(limit)).mappings()
    return [TimerSummary(**{name: utc(value) for name, value in row.items()}) for row in found]
