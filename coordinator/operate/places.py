"""Where a command stands, by what one lane's database knows of it, in words: the same wherever it is asked."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final, Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from coordinator.client.timeline import outcome_words, settled_words
from coordinator.operate.parked import ParkedKey, key_of_command, waiters
from coordinator.operate.reasons import first_letter, letter_todo, parked_todo, told_of, with_reason
from coordinator.service.ids import replay_command_id
from coordinator.service.json_text import time_for_people
from coordinator.service.text import counted
from coordinator.stores.admin import LaneAdmin, LetterQuery, LetterSummary, OnItsWay, proved_entry
from coordinator.stores.lane_tables import DeadLetter, LogEntry

_LETTERS_MAX: Final = 20
_UNPROVED: Final = "the database's synchronous standby may not have it: a failover would lose it then"
_PROVING: Final = "bring the standby back; the lane's next commit, or its first idle moment, makes sure of it"

PlaceKind: TypeAlias = Literal[
    "settled", "cancelled", "dead_letter", "parked", "outbox", "timer", "queue", "outside", "away"
]


class Stop(Struct, frozen=True, kw_only=True):
    """A place on the way of a command.

    `kind`: settled, cancelled (and not settled), dead_letter, parked, outbox, timer, queue, outside (at an effect
    worker), or away: its database does not answer. `why` says what keeps the command there, and `todo` what helps;
    without `why` nothing does. `said` are the words of its outcome, which quote what it holds: `text` has none of them.
    Nor has it, nor `why`, the `ordering_key` for which a parked one waits: that is made of its arguments, and `todo`
    names it. `letter` is its number in `lane`.
    `before` are those that wait before it. `target` is where it goes from an outbox, or when its time has come at
    `due_at`.
    """

    kind: PlaceKind
    lane: str
    text: str
    command_id: str | None = None
    type: str | None = None
    status: str | None = None
    at: datetime | None = None
    why: str | None = None
    todo: str | None = None
    letter: int | None = None
    said: str | None = None
    before: int | None = None
    target: str | None = None
    due_at: datetime | None = None
    ordering_key: str | None = None


class Known(Struct, frozen=True, kw_only=True):
    """What a lane's database has of a command: its entry in the log, its last replay, its dead letters, the key for
    which it waits, with the letter of the command behind which it waits, the key that waits for it, and where it is on
    its way to another lane. `is_proved`: the entry is safe, as far as others than the lane can tell. `told`: the
    continuation by which the failure of its last letter has gone back."""

    lane: str
    command_id: str
    entry: LogEntry | None
    replay: "Known | None"
    letters: Sequence[LetterSummary]
    parked: ParkedKey | None
    parked_letter: DeadLetter | None
    keeps: ParkedKey | None
    way: OnItsWay
    is_proved: bool = True
    told: str | None = None


def known_in(admin: LaneAdmin, lane: str, command_id: str) -> Known:
    """Ask one lane's database for all of it. Raises Unavailable."""
    entry = admin.find(command_id)
    letters = admin.letters(LetterQuery(command_id=command_id), 0, _LETTERS_MAX)
    key = key_of_command(admin, command_id)
    parked = key if key is not None and entry is None and command_id in key.waiting else None
    is_elsewhere = entry is None and parked is None and not letters
    has_failed = entry is not None and entry.status == "failed"
    return Known(
        lane=lane,
        command_id=command_id,
        entry=None if entry is None else with_reason(entry, letters),
        # To replay it takes its letter away.
        replay=_last_replay(admin, lane, command_id) if has_failed and not letters else None,
        letters=letters,
        parked=parked,
        parked_letter=None if parked is None else first_letter(admin, parked.failed_id),
        keeps=key if key is not None and key.failed_id == command_id else None,
        way=admin.on_its_way([command_id])[command_id] if is_elsewhere else OnItsWay(),
        is_proved=entry is None or proved_entry(admin, command_id) is not None,
        told=told_of(admin.letter(letters[-1].id)) if letters else None,
    )


def _last_replay(admin: LaneAdmin, lane: str, command_id: str) -> Known | None:
    """What failed again may have been replayed again."""
    failed = None
    replay_id = replay_command_id(command_id)
    while (entry := admin.find(replay_id)) is not None and entry.status == "failed":
        failed, replay_id = replay_id, replay_command_id(replay_id)
    last = known_in(admin, lane, replay_id)
    if stops_of(last):
        return last
    return None if failed is None else known_in(admin, lane, failed)


def stops_of(known: Known) -> list[Stop]:
    """The places of a command, the last one where it stands; empty: this database does not know it."""
    lane = known.lane
    dead = [dead_stop(lane, letter, known.keeps, known.told) for letter in known.letters[-1:]]
    if dead and (known.entry is None or known.entry.status == "failed"):
        return dead
    if known.entry is not None:
        settled = settled_stop(lane, known.entry, settled_words(lane, known.entry))
        stops = [settled if known.is_proved else replace(settled, why=_UNPROVED, todo=_PROVING), *dead]
        return stops if known.replay is None else [*stops, *_replayed(known.replay)]
    if known.parked is not None:
        return [_parked(known, known.parked)]
    return stops_on_its_way(lane, known.way, known.command_id)


def _replayed(known: Known) -> Iterator[Stop]:
    """The places of a replay, in words for the command that was replayed."""
    for stop in stops_of(known):
        if stop.kind == "settled" and known.entry is not None:
            text = f"replayed, and {known.entry.status} as number {known.entry.sequence}"
        else:
            text = f"its replay {'' if stop.kind in ('parked', 'timer') else 'is '}{stop.text}"
        yield replace(stop, text=text)


def settled_stop(lane: str, entry: LogEntry, text: str) -> Stop:
    """The place of a settled command."""
    return Stop(
        kind="settled",
        lane=lane,
        text=text,
        command_id=entry.command_id,
        type=entry.type,
        status=entry.status,
        at=entry.settled_at,
        said=outcome_words(entry),
    )


def _parked(known: Known, key: ParkedKey) -> Stop:
    lane, place = known.lane, key.waiting.index(known.command_id)
    behind = f"behind command {key.failed_id}" + (f" and {counted(place, 'other')}" if place else "")
    return Stop(
        kind="parked",
        lane=lane,
        text=f"waits for its key, {behind}",
        command_id=known.command_id,
        why=f"command {key.failed_id} failed ({key.error_code}), and {waiters(key)} behind it",
        todo=parked_todo(lane, key.ordering_key, known.parked_letter),
        letter=None if known.parked_letter is None else known.parked_letter.id,
        said=None if known.parked_letter is None else known.parked_letter.reason,
        before=place + 1,
        ordering_key=key.ordering_key,
    )


def stops_on_its_way(lane: str, way: OnItsWay, command_id: str | None = None) -> list[Stop]:
    """The place of what this lane has emitted, and the broker does not have yet; empty: it is with the broker.

    Of one that was cancelled the lane knows, too, wherever it is: `command_id`.
    """
    emitted, timer = way.emitted, way.timer
    if emitted is not None:
        behind = f", behind {counted(way.before, 'other')}" if way.before else ""
        text = f"in the outbox of lane {lane}, for {emitted.target}{behind}: the broker has not taken it"
        return [
            Stop(
                kind="outbox",
                lane=lane,
                text=text,
                command_id=emitted.command_id,
                type=emitted.type,
                at=emitted.created_at,
                before=way.before,
                target=emitted.target,
            )
        ]
    if timer is not None:
        return [
            Stop(
                kind="timer",
                lane=lane,
                text=f"waits in lane {lane} until {time_for_people(timer.due_at)}, and goes to {timer.target} then",
                command_id=timer.command_id,
                type=timer.type,
                at=timer.set_at,
                target=timer.target,
                due_at=timer.due_at,
            )
        ]
    if way.cancelled_at is not None:
        at = time_for_people(way.cancelled_at)
        text = f"cancelled {at}: lane {lane} does not apply it when its turn comes"
        return [Stop(kind="cancelled", lane=lane, text=text, command_id=command_id, at=way.cancelled_at)]
    return []


def dead_stop(lane: str, letter: LetterSummary, waiting: ParkedKey | None = None, told: str | None = None) -> Stop:
    """The place of a command, or an effect, that is a dead letter. `waiting` is the key that it keeps."""
    behind = "" if waiting is None else f"; {waiters(waiting)} behind it for {waiting.ordering_key}"
    return Stop(
        kind="dead_letter",
        lane=lane,
        text=f"dead letter {letter.id} of lane {lane}",
        command_id=letter.command_id,
        type=letter.type,
        status="failed",
        at=letter.dead_at,
        why=f"{letter.type} failed ({letter.code}): {letter.reason}{behind}",
        todo=letter_todo(lane, letter, told),
        letter=letter.id,
    )
