"""What lanes know of one command, as a timeline: from the log, parked keys, dead letters, the outbox and timers."""

from collections.abc import Sequence
from typing import Final

import msgspec

from coordinator.client.timeline import LaneTimes, Related, Timeline, issued_at, settled_timeline, with_moments
from coordinator.operate.actors import actor_of_options, actor_of_text
from coordinator.operate.output import age
from coordinator.operate.parked import ParkedKey, key_of_command
from coordinator.operate.reasons import with_reason
from coordinator.operate.status import LaneStatus, collect
from coordinator.runtime.settings import LaneSettings, load
from coordinator.service.ids import continuation_command_id, replay_command_id
from coordinator.service.outside_calls import EFFECTS_PREFIX
from coordinator.service.text import counted
from coordinator.stores.admin import EmittedSummary, LaneAdmin, LetterQuery, LetterSummary, OnItsWay, TimerSummary
from coordinator.stores.audit import ChangeQuery
from coordinator.stores.lane_tables import LogEntry

_LETTERS_MAX: Final = 20
_NEAR: Final = 100
_FAR: Final = 2000
"""How far before and behind a command others of its batch are looked for: more are not in one transaction."""
_TIME: Final = "%Y-%m-%d %H:%M:%SZ"


def timeline_in(admin: LaneAdmin, lane: str, command_id: str) -> Timeline | None:
    """What one lane's database knows of a command; None: nothing.

    It may be a command of this lane's, or one that the lane has emitted for another, or an effect.
    """
    entry = admin.find(command_id)
    letters = admin.letters(LetterQuery(command_id=command_id), 0, _LETTERS_MAX)
    if entry is not None:
        return _settled(admin, lane, entry, letters)
    key = key_of_command(admin, command_id)
    if key is not None and command_id in key.waiting:
        return _parked(lane, command_id, key)
    way = admin.on_its_way(command_id)
    if way.emitted is not None:
        return _emitted(lane, way, way.emitted)
    if way.timer is not None:
        return _timed(lane, way.timer)
    return _dead(command_id, letters) if letters else None


def continuation_in(admin: LaneAdmin, lane: str, command: Timeline) -> Related | None:
    """The command that the outcome of this one has become, if this lane has settled it or is yet to send it.

    Its id is made from that of the command, so it is found in whichever lane it is.
    """
    if command.type is None or command.sequence is None:
        return None
    command_id = continuation_command_id(f"{command.type} {command.command_id}")
    entry = admin.find(command_id)
    if entry is not None:
        standing = settled_timeline(lane, entry).standing
        return Related(command_id=command_id, how="continuation", lane=lane, type=entry.type, standing=standing)
    emitted = admin.on_its_way(command_id).emitted
    if emitted is None:
        return None
    return Related(command_id=command_id, how="continuation", lane=emitted.target, type=emitted.type, standing="outbox")


def unsettled_in(lane: str, command_id: str) -> Timeline:
    """What can be said of a command of which no database knows: how many messages wait in the lane at most.

    Raises ConfigurationError.
    """
    (status,) = collect((lane,), 0)
    waiting_before = _waiting_before(status)
    words = [f"it is not settled in {lane}: it waits in a queue, was never published, or is older than the log"]
    if waiting_before is not None:
        words.append(f"at most {counted(waiting_before, 'message waits', 'messages wait')} there before it")
    if status.is_paused:
        words.append(f"{lane} is paused by an operator: {status.paused} (`coordinator resume {lane}`)")
    words += status.errors
    if (issued := issued_at(command_id)) is not None:
        words.append(f"its id was made {age(issued)} ago")
    timeline = Timeline(
        command_id=command_id,
        standing="queued" if status.ready or (status.is_paused and waiting_before) else "unknown",
        why="; ".join(words),
        lane=lane,
        waiting_before=waiting_before,
    )
    return with_moments(timeline, None, LaneTimes())


def _waiting_before(status: LaneStatus) -> int | None:
    """At most: RabbitMQ does not tell how many of the messages that a coordinator may hold it does hold."""
    if status.ready is None:
        return None
    return status.ready + (load(LaneSettings).prefetch if status.consumers else 0)


def _settled(admin: LaneAdmin, lane: str, entry: LogEntry, letters: Sequence[LetterSummary]) -> Timeline:
    size, place = _batch(admin, entry)
    timeline = msgspec.structs.replace(
        settled_timeline(lane, with_reason(entry, letters)),
        batch_size=size,
        place=place,
        consumer=_consumer(admin, entry),
        letters=[letter.id for letter in letters],
        actor=actor_of_text(entry.actor),
        children=_replays(admin, lane, entry),
    )
    if letters and entry.status == "failed":
        more = f"its dead letter waits: mend the cause, then `coordinator dead replay {entry.command_id} --lane {lane}`"
        timeline = msgspec.structs.replace(timeline, why=f"{timeline.why}; {more}")
    return with_moments(timeline, None, LaneTimes(applied_at=entry.settled_at))


def _batch(admin: LaneAdmin, entry: LogEntry) -> tuple[int, int]:
    """Of how many commands its transaction was, and which of them it is: they all were settled at one time.

    Two transactions within the precision of the database's times (1 ms on MySQL and MongoDB) look like one.
    """
    for reach in (_NEAR, _FAR):
        around = admin.audited(ChangeQuery(), entry.sequence + reach, 2 * reach)
        same = [each.sequence for each in around if each.settled_at == entry.settled_at]
        if len(same) < reach:
            break
    return len(same), sum(sequence <= entry.sequence for sequence in same)


def _consumer(admin: LaneAdmin, entry: LogEntry) -> str | None:
    """The process that settled it, if the lane is still in the epoch of then."""
    lease = admin.state().lease
    return lease.holder if lease is not None and lease.epoch == entry.epoch else None


def _replays(admin: LaneAdmin, lane: str, entry: LogEntry) -> list[Related]:
    """Its replay, if an operator had it replayed: its id is made from the command's."""
    if entry.status != "failed":
        return []
    replay_id = replay_command_id(entry.command_id)
    replay = admin.find(replay_id)
    if replay is not None:
        standing = settled_timeline(lane, replay).standing
    elif admin.on_its_way(replay_id).emitted is not None:
        standing = "outbox"
    else:
        return []
    return [Related(command_id=replay_id, how="replay", lane=lane, type=entry.type, standing=standing)]


def _parked(lane: str, command_id: str, key: ParkedKey) -> Timeline:
    place = key.waiting.index(command_id)
    why = (
        f"it is not settled in {lane}: it waits for {key.ordering_key}, behind command {key.failed_id}, which failed "
        f"({key.error_code}), and {counted(place, 'other')}: replay or discard that one (`coordinator dead`), or "
        "release the key (`coordinator release`)"
    )
    timeline = Timeline(
        command_id=command_id,
        standing="parked",
        why=why,
        lane=lane,
        waiting_before=place + 1,
        actor=key.waiting_actors[place],
    )
    return with_moments(timeline, None, LaneTimes())


def _emitted(lane: str, way: OnItsWay, entry: EmittedSummary) -> Timeline:
    what = "an effect" if entry.target.startswith(EFFECTS_PREFIX) else "a command"
    why = (
        f"{lane} has emitted it as {what} for {entry.target}, and RabbitMQ has not taken it: "
        f"{counted(way.before, 'other waits', 'others wait')} before it in the outbox "
        f"(`coordinator outbox list {lane}`)"
    )
    timeline = Timeline(
        command_id=entry.command_id,
        standing="outbox",
        why=why,
        lane=entry.target,
        type=entry.type,
        waiting_before=way.before,
        actor=actor_of_options(entry.options),
    )
    return with_moments(timeline, None, LaneTimes(emitted_at=entry.created_at))


def _timed(lane: str, timer: TimerSummary) -> Timeline:
    timeline = Timeline(
        command_id=timer.command_id,
        standing="timed",
        why=f"it waits in {lane} until {timer.due_at:{_TIME}} (`coordinator timers list {lane}`)",
        lane=timer.target,
        type=timer.type,
        actor=actor_of_options(timer.options),
    )
    return with_moments(timeline, None, LaneTimes(emitted_at=timer.set_at))


def _dead(command_id: str, letters: Sequence[LetterSummary]) -> Timeline:
    """A dead letter without an entry in the log: of an effect, or of a message that is no command of the lane's."""
    last = letters[-1]
    timeline = Timeline(
        command_id=command_id,
        standing="failed",
        why=f"{last.code}: {last.reason}; it is dead letter {last.id} (`coordinator dead show`)",
        lane=last.target,
        type=last.type,
        letters=[letter.id for letter in letters],
    )
    return with_moments(timeline, None, LaneTimes())
