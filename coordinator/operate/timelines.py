"""What one lane's database knows of a command, as a timeline. What led to it, and it to, is in `relatives.py`."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from coordinator.client.timeline import (
    LaneTimes,
    Related,
    Standing,
    Timeline,
    issued_at,
    lane_times,
    settled_timeline,
    with_moments,
)
from coordinator.client.transaction_times import REACHES, TransactionTimes, have_whole, transaction_times
from coordinator.operate.actors import actor_of_options, actor_of_text
from coordinator.operate.conditions import LaneCondition
from coordinator.operate.following import Conditions, emitted_stop, held_up, queued_stop
from coordinator.operate.output import age, now
from coordinator.operate.places import Known, PlaceKind, Stop, known_in, stops_of
from coordinator.operate.relatives import EmittedBy
from coordinator.runtime.settings import LaneSettings, load
from coordinator.service.ids import replay_command_id
from coordinator.stores.admin import LaneAdmin, PassedEntry
from coordinator.stores.lane_tables import LogEntry

_AHEAD_MAX: Final = timedelta(seconds=1)
"""So far ahead a lane's clock may be without a word of it."""

_STANDINGS: Final[dict[PlaceKind, Standing]] = {
    "dead_letter": "failed",
    "parked": "parked",
    "outbox": "outbox",
    "timer": "timed",
    "cancelled": "cancelled",
    "outside": "outside",
    "away": "unknown",
}


def timeline_in(admin: LaneAdmin, lane: str, command_id: str, conditions: Conditions) -> Timeline | None:
    """What one lane's database knows of a command; None: nothing. Raises Unavailable.

    It may be a command of this lane's, or one that the lane has emitted for another, or an effect. `conditions` of
    lanes say more of why it waits, where there are any.
    """
    known = known_in(admin, lane, command_id)
    stops = stops_of(known)
    if not stops:
        return None
    stop = held_up(stops[0] if known.replay is None else stops[-1], conditions)
    return _waiting(known, stop) if known.entry is None else _settled(admin, known, known.entry, stop)


def queued_timeline(condition: LaneCondition, command_id: str) -> Timeline:
    """What can be said of a command of which no database knows: how many messages wait in this lane at most."""
    stop = queued_stop(condition, command_id, None)
    words = [stop.text, "or it was never published, or is older than the log"]
    if (issued := issued_at(command_id)) is not None:
        words.append(f"its id was made {age(issued)} ago")
    is_queued = bool(condition.waiting) or condition.state in ("paused", "moved")
    timeline = Timeline(
        command_id=command_id,
        standing="queued" if is_queued else "unknown",
        where="; ".join(words),
        why=stop.why,
        todo=stop.todo,
        lane=condition.lane,
        waiting_before=_waiting_before(stop, {condition.lane: condition}),
    )
    return with_moments(timeline, None, LaneTimes())


def emitted_timeline(emitted: EmittedBy, conditions: Conditions) -> Timeline:
    """What can be said of a command that a lane has emitted, and of which no database knows but that of its parent."""
    child, results = emitted.child, emitted.results
    stop = emitted_stop(child, results, conditions)
    timeline = Timeline(
        command_id=child.command_id,
        standing="carried_out" if results else _STANDINGS.get(stop.kind, "queued"),
        where=stop.text,
        why=stop.why,
        todo=stop.todo,
        lane=child.lane,
        type=child.type,
        waiting_before=_waiting_before(stop, conditions),
        parent=emitted.parent,
        children=results,
    )
    return with_moments(timeline, None, LaneTimes())


def _waiting_before(stop: Stop, conditions: Conditions) -> int | None:
    """At most: RabbitMQ does not tell how many of the messages that a coordinator may hold it does hold. That of a lane
    that is idle has said it."""
    if stop.before is None or stop.kind != "queue":
        return None
    condition = conditions.get(stop.lane)
    is_said = condition is not None and condition.state == "idle"
    return stop.before if is_said else stop.before + load(LaneSettings).prefetch


def _waiting(known: Known, stop: Stop) -> Timeline:
    emitted, timer, key = known.way.emitted, known.way.timer, known.parked
    options = emitted or timer
    if key is not None:
        actor = key.waiting_actors[key.waiting.index(known.command_id)]
    else:
        actor = None if options is None else actor_of_options(options.options)
    timeline = Timeline(
        command_id=known.command_id,
        standing=_STANDINGS[stop.kind],
        where=stop.text,
        why=stop.why,
        todo=stop.todo,
        lane=stop.target or (known.letters[-1].target if known.letters else known.lane),
        type=stop.type,
        waiting_before=stop.before,
        letters=[letter.id for letter in known.letters],
        actor=actor,
    )
    return with_moments(timeline, None, LaneTimes(emitted_at=stop.at if options is not None else None))


def _settled(admin: LaneAdmin, known: Known, entry: LogEntry, stop: Stop) -> Timeline:
    batch = _transaction_of(admin, entry)
    timeline = settled_timeline(known.lane, entry)
    is_its_own = stop.kind == "settled" and stop.command_id == known.command_id
    timeline = msgspec.structs.replace(
        timeline,
        where=timeline.where if is_its_own else f"{timeline.where}; {stop.text}",
        why=stop.why or timeline.why,
        # What helps a parked replay names its key, which not everybody may see who may see that it waits.
        todo=stop.todo if stop.ordering_key is None else f"coordinator command {stop.command_id} says what helps that",
        batch_size=batch.size,
        place=batch.place,
        consumer=_consumer(admin, entry),
        letters=[letter.id for letter in known.letters],
        actor=actor_of_text(entry.actor),
        children=[*timeline.children, *_replays(admin, known)],
    )
    times = msgspec.structs.replace(
        lane_times(entry), committing_at=batch.committing_at, committed_at=batch.committed_at
    )
    timeline = with_moments(timeline, None, times)
    return msgspec.structs.replace(timeline, clocks=timeline.clocks or _ahead_of_us(known.lane, entry.settled_at))


def _ahead_of_us(lane: str, settled_at: datetime) -> str | None:
    """What is wrong with the clocks where a command is settled that was settled later than now; None: nothing."""
    ahead = settled_at - now()
    if ahead <= _AHEAD_MAX:
        return None
    return (
        f"the clock of lane {lane} is at least {ahead.total_seconds():.0f} s ahead of that of this machine: only times "
        "of one clock can be compared, and deadlines are by the lane's"
    )


def _transaction_of(admin: LaneAdmin, entry: LogEntry) -> TransactionTimes:
    around: Sequence[PassedEntry] = ()
    for reach in REACHES:
        around = admin.passages(entry.sequence - reach, entry.sequence + reach)
        if have_whole(entry, around, reach):
            break
    return transaction_times(entry, around)


def _consumer(admin: LaneAdmin, entry: LogEntry) -> str | None:
    """The process that settled it, if the lane is still in the epoch of then."""
    lease = admin.state().lease
    return lease.holder if lease is not None and lease.epoch == entry.epoch else None


def _replays(admin: LaneAdmin, known: Known) -> list[Related]:
    """Its replay, if an operator had it replayed: its id is made from the command's."""
    entry = known.entry
    if entry is None or entry.status != "failed":
        return []
    replay_id = replay_command_id(entry.command_id)
    standing: Standing
    if (replay := admin.find(replay_id)) is not None:
        standing = settled_timeline(known.lane, replay).standing
    elif known.letters or admin.on_its_way([replay_id])[replay_id].emitted is None:
        return []
    else:
        standing = "outbox"
    return [Related(command_id=replay_id, how="replay", lane=known.lane, type=entry.type, standing=standing)]
