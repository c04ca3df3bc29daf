"""What operators ask of what a lane is to send, its timers and one command that it has emitted, on SQL."""

from sqlalchemy import Connection, func, select

from coordinator.stores.admin import EmittedSummary, OnItsWay, TimerSummary, WaitingTimers
from coordinator.stores.lane_tables import TIMERS_WAITING, OutboxEntry, Series, Timer, metadata
from coordinator.stores.times import utc

_TIMERS = metadata.tables[Timer.table]
_OUTBOX = metadata.tables[OutboxEntry.table]
_COUNTERS = metadata.tables[Series.table]

_SHOWN = select(
    _TIMERS.c.lane.label("target"),
    *(_TIMERS.c[name] for name in TimerSummary.__struct_fields__ if name != "target"),
)
_SHOWN_EMITTED = select(
    _OUTBOX.c.lane.label("target"),
    *(_OUTBOX.c[name] for name in EmittedSummary.__struct_fields__ if name != "target"),
)


def waiting_timers(connection: Connection) -> WaitingTimers:
    """How many wait, and when the first is due."""
    first = connection.execute(select(_TIMERS.c.due_at).order_by(_TIMERS.c.id).limit(1)).scalar()
    count = connection.execute(select(_COUNTERS.c.value).where(_COUNTERS.c.name == TIMERS_WAITING)).scalar()
    return WaitingTimers(count=count or 0, next_at=None if first is None else utc(first))


def timers_of(connection: Connection, after: str, limit: int) -> list[TimerSummary]:
    """The first of those with a higher key, in order."""
    found = connection.execute(_SHOWN.where(_TIMERS.c.id > after).order_by(_TIMERS.c.id).limit(limit)).mappings()
    return [TimerSummary(**{name: utc(value) for name, value in row.items()}) for row in found]


def on_its_way(connection: Connection, command_id: str) -> OnItsWay:
    """Where one emitted command is."""
    row = connection.execute(_SHOWN_EMITTED.where(_OUTBOX.c.command_id == command_id).limit(1)).mappings().first()
    before = 0
    if row is not None:
        ahead = select(func.count()).where(_OUTBOX.c.lane == row["target"], _OUTBOX.c.id < row["id"])
        before = int(connection.execute(ahead).scalar_one())
    # By the index: a command's own timer is about itself.
    own = _SHOWN.where(_TIMERS.c.about == command_id, _TIMERS.c.command_id == command_id)
    timer = connection.execute(own.order_by(_TIMERS.c.id).limit(1)).mappings().first()
    return OnItsWay(
        emitted=None if row is None else EmittedSummary(**{name: utc(value) for name, value in row.items()}),
        before=before,
        timer=None if timer is None else TimerSummary(**{name: utc(value) for name, value in timer.items()}),
    )
