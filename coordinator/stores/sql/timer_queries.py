"""What operators ask of what a lane is to send, its timers and one command that it has emitted, on SQL."""

from collections.abc import Sequence

from msgspec.structs import replace
from sqlalchemy import Connection, func, select

from coordinator.stores.admin import EmittedSummary, OnItsWay, TimerSummary, WaitingTimers
from coordinator.stores.lane_tables import TIMERS_WAITING, Cancellation, OutboxEntry, Series, Timer, metadata
from coordinator.stores.times import utc

_TIMERS = metadata.tables[Timer.table]
_OUTBOX = metadata.tables[OutboxEntry.table]
_CANCELLATIONS = metadata.tables[Cancellation.table]
_COUNTERS = metadata.tables[Series.table]

_SHOWN = select(
    _TIMERS.c.lane.label("target"),
    *(_TIMERS.c[name] for name in TimerSummary.__struct_fields__ if name != "target"),
)
_SHOWN_EMITTED = select(
    _OUTBOX.c.lane.label("target"),
    *(_OUTBOX.c[name] for name in EmittedSummary.__struct_fields__ if name != "target"),
)
_CANCELLED = select(_CANCELLATIONS.c.command_id, _CANCELLATIONS.c.requested_at)


def waiting_timers(connection: Connection) -> WaitingTimers:
    """How many wait, and when the first is due."""
    first = connection.execute(select(_TIMERS.c.due_at).order_by(_TIMERS.c.id).limit(1)).scalar()
    count = connection.execute(select(_COUNTERS.c.value).where(_COUNTERS.c.name == TIMERS_WAITING)).scalar()
    return WaitingTimers(count=count or 0, next_at=None if first is None else utc(first))


def timers_of(connection: Connection, after: str, limit: int) -> list[TimerSummary]:
    """The first of those with a higher key, in order."""
    found = connection.execute(_SHOWN.where(_TIMERS.c.id > after).order_by(_TIMERS.c.id).limit(limit)).mappings()
    return [TimerSummary(**{name: utc(value) for name, value in row.items()}) for row in found]


def on_its_way(connection: Connection, command_ids: Sequence[str]) -> dict[str, OnItsWay]:
    """Where each of these commands is."""
    found = dict.fromkeys(command_ids, OnItsWay())
    counted: dict[str, tuple[int, int]] = {}
    emitted = _SHOWN_EMITTED.where(_OUTBOX.c.command_id.in_(command_ids)).order_by(_OUTBOX.c.id)
    for row in connection.execute(emitted).mappings().all():
        entry = EmittedSummary(**{name: utc(value) for name, value in row.items()})
        # On from the one before of the same target: all of them count its entries once.
        first, before = counted.get(entry.target, (0, 0))
        ahead = _OUTBOX.c.lane == entry.target, _OUTBOX.c.id >= first, _OUTBOX.c.id < entry.id
        before += int(connection.execute(select(func.count()).where(*ahead)).scalar_one())
        counted[entry.target] = entry.id, before
        if found[entry.command_id].emitted is None:
            found[entry.command_id] = OnItsWay(emitted=entry, before=before)
    # By the index: a command's own timer is about itself.
    own = _SHOWN.where(_TIMERS.c.about.in_(command_ids), _TIMERS.c.command_id == _TIMERS.c.about)
    for row in connection.execute(own.order_by(_TIMERS.c.id.desc())).mappings():
        timer = TimerSummary(**{name: utc(value) for name, value in row.items()})
        found[timer.command_id] = replace(found[timer.command_id], timer=timer)
    for command_id, at in connection.execute(_CANCELLED.where(_CANCELLATIONS.c.command_id.in_(command_ids))):
        found[command_id] = replace(found[command_id], cancelled_at=utc(at))
    return found
