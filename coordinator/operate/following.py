"""Following a command from lane to lane until its way ends: where it is, why it stays there, and what to do."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Final

from msgspec import Struct

from coordinator.operate.conditions import LaneCondition
from coordinator.operate.parked import ParkedKey, key_of_command
from coordinator.service.continuation import Deferred
from coordinator.service.declared_sagas import DeclaredSaga
from coordinator.service.errors import ConfigurationError, Unavailable
from coordinator.service.ids import continuation_command_id, replay_command_id
from coordinator.service.options import Origin
from coordinator.service.outside_calls import effects_key
from coordinator.service.service import Service
from coordinator.service.text import counted
from coordinator.stores.admin import LaneAdmin, LetterQuery, LetterSummary
from coordinator.stores.lane_tables import LogEntry

OUTBOX_LOOKED_AT: Final = 10_000
"""Entries of an outbox, and timers, that one question looks through."""
_PAGE: Final = 1000
_LETTERS_MAX: Final = 5

Open = Callable[[str], AbstractContextManager[LaneAdmin]]


class Stop(Struct, frozen=True, kw_only=True):
    """A place on the way of a command.

    `kind`: settled, dead_letter, parked, outbox, timer, queue, outside, or away: its database does not answer. `why`
    says what keeps the command there, and `todo` what helps; without `why` nothing does. `said` are the words of its
    outcome, which quote what it holds: `text` has none of them. `letter` is its number in `lane`.
    """

    kind: str
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


class Follower:
    """Follows commands, among lanes whose conditions are known. What it asks blocks."""

    def __init__(self, open_admin: Open, conditions: Mapping[str, LaneCondition]) -> None:
        self._open = open_admin
        self._conditions = conditions

    def command(self, lane: str, command_id: str, command_type: str | None, sender: str | None) -> Iterator[Stop]:
        """The places of a command of this lane, which `sender`, another one, has emitted (None: nobody knows)."""
        condition = self._conditions.get(lane)
        if condition is None:
            yield Stop(
                kind="queue", lane=lane, text=f"sent to {lane}, which is none of the lanes here", type=command_type
            )
            return
        if not condition.can_be_asked:
            yield Stop(
                kind="away",
                lane=lane,
                text=f"for lane {lane}",
                command_id=command_id,
                type=command_type,
                why=f"lane {lane} cannot be looked into: {condition.why}",
                todo=_todo(condition),
            )
            return
        try:
            with self._open(lane) as admin:
                found = list(_in_lane(admin, condition, command_id))
        except (Unavailable, ConfigurationError) as error:
            yield Stop(kind="away", lane=lane, text=f"for lane {lane}", command_id=command_id, why=str(error))
            return
        if found:
            yield from found
            return
        if sender is not None and sender != lane:
            before = self._in_outbox(sender, lane, command_id)
            if before is not None:
                yield before
                return
        yield _in_queue(condition, command_id, command_type)

    def answer(
        self, saga: DeclaredSaga, owner: str, service: Service | None, step_id: str, step_type: str
    ) -> Iterator[Stop]:
        """The places of the answer to a saga's step, which its lane has settled; none: it has come."""
        lane = step_type.partition(".")[0]
        answer_id = continuation_command_id(f"{step_type} {step_id}")
        places = list(self.command(owner, answer_id, saga.continuation.type, lane))
        if places[0].kind == "queue" and service is not None:
            put_off = self._put_off(lane, service, step_id, step_type, saga.continuation.type)
            if put_off is not None:
                yield put_off
                return
        yield from places

    def _put_off(
        self, lane: str, service: Service, command_id: str, command_type: str, continuation: str
    ) -> Stop | None:
        """The row that keeps a command's answer until a call to the outside, or whatever, has ended."""
        origins: tuple[Origin, ...] = ("system", "public")
        texts = [
            Deferred(command_id=command_id, type=command_type, continuation=continuation, origin=origin).encode()
            for origin in origins
        ]
        condition = self._conditions[lane]
        with self._open(lane) as admin:
            row = admin.keeping(service.models, texts)
            letters = [] if row is None else admin.letters(LetterQuery(target=effects_key(lane)), 0, _LETTERS_MAX)
        if row is None:
            return None
        text = f"row {row.value} of {row.model.table} keeps the answer of lane {lane} until it is known"
        effects = condition.effects
        if effects is None:
            return Stop(kind="outside", lane=lane, text=text, command_id=command_id, type=command_type)
        why, todo = effects.why, None
        if effects.state == "provider_away":
            todo = "nothing is lost: the call is made again once the provider answers; look at it and at its address"
        elif effects.state == "no_worker":
            todo = f"start one: coordinator effects {lane}"
        elif letters:
            why = f"{effects_key(lane)} has dead letters: {letters[0].code}: {letters[0].reason}"
            todo = f"coordinator dead list {effects_key(lane)}"
        elif condition.state in ("paused", "suspended", "stuck"):
            why, todo = f"lane {lane} is {condition.state}: {condition.why}", _todo(condition)
        elif effects.oldest_s:
            why = f"a call to the outside has had no answer for {effects.oldest_s:g} s, and is made again and again"
        return Stop(
            kind="outside",
            lane=lane,
            text=f"{text}: a call to the outside ({effects_key(lane)})",
            command_id=command_id,
            type=command_type,
            why=why,
            todo=todo,
        )

    def _in_outbox(self, sender: str, target: str, command_id: str) -> Stop | None:
        condition = self._conditions.get(sender)
        if condition is None or not condition.can_be_asked:
            return None
        after, looked_at = 0, 0
        with self._open(sender) as admin:
            while looked_at < OUTBOX_LOOKED_AT and (page := admin.emitted(target, after, _PAGE)):
                found = next((each for each in page if each.command_id == command_id), None)
                if found is not None:
                    break
                after, looked_at = page[-1].id, looked_at + len(page)
            else:
                return None
        full = self._conditions[target].full if target in self._conditions else None
        if condition.state in ("paused", "suspended", "stuck"):
            why, todo = f"lane {sender} is {condition.state}: {condition.why}", _todo(condition)
        elif full is not None:
            receiving = self._conditions[target]
            behind = "" if receiving.why is None else f"; lane {target} is {receiving.state}: {receiving.why}"
            why = f"the queue of lane {target} takes nothing more: {full}{behind}"
            todo = _todo(receiving) or f"have lane {target} work off its queue, or give it more room"
        else:
            why, todo = None, None
        return Stop(
            kind="outbox",
            lane=sender,
            text=f"in the outbox of lane {sender}, for {target}",
            command_id=command_id,
            type=found.type,
            at=found.created_at,
            why=why,
            todo=todo,
        )


def _in_lane(admin: LaneAdmin, condition: LaneCondition, command_id: str) -> Iterator[Stop]:
    """What a lane's database knows of a command."""
    lane = condition.lane
    entry = admin.find(command_id)
    letters = admin.letters(LetterQuery(command_id=command_id), 0, _LETTERS_MAX)
    key = key_of_command(admin, command_id) if condition.state != "unknown" else None
    behind = key if key is not None and command_id in key.waiting else None
    if entry is not None:
        waiting = key if key is not None and key.failed_id == command_id else None
        yield from _settled(admin, lane, entry, letters, waiting)
    elif behind is not None:
        yield Stop(
            kind="parked",
            lane=lane,
            text=f"waits for {behind.ordering_key}, behind command {behind.failed_id}",
            command_id=command_id,
            why=f"command {behind.failed_id} failed ({behind.error_code}), and "
            f"{counted(len(behind.waiting), 'command waits', 'commands wait')} for {behind.ordering_key}",
            todo=f"mend the cause, then: coordinator dead replay {behind.failed_id} --lane {lane}; or let them go on: "
            f"coordinator release {lane} '{behind.ordering_key}'",
            letter=next((each.id for each in admin.letters(LetterQuery(command_id=behind.failed_id), 0, 1)), None),
        )
    else:
        for letter in letters:
            yield _dead(lane, letter, None)


def _settled(
    admin: LaneAdmin, lane: str, entry: LogEntry, letters: list[LetterSummary], waiting: ParkedKey | None
) -> Iterator[Stop]:
    if letters:
        yield _dead(lane, letters[-1], waiting)
        return
    yield _said(lane, entry, f"{entry.status} in lane {lane} as number {entry.sequence}")
    if entry.status == "failed" and (again := admin.find(replay_command_id(entry.command_id))) is not None:
        yield _said(lane, again, f"replayed, and {again.status} as number {again.sequence}")


def _said(lane: str, entry: LogEntry, text: str) -> Stop:
    return Stop(
        kind="settled",
        lane=lane,
        text=text,
        command_id=entry.command_id,
        type=entry.type,
        status=entry.status,
        at=entry.settled_at,
        said=None if entry.error_code is None else f"{entry.error_code}: {entry.error_message}",
    )


def _dead(lane: str, letter: LetterSummary, waiting: ParkedKey | None) -> Stop:
    behind = ""
    if waiting is not None:
        wait = counted(len(waiting.waiting), "command waits", "commands wait")
        behind = f"; {wait} behind it for {waiting.ordering_key}"
    return Stop(
        kind="dead_letter",
        lane=lane,
        text=f"dead letter {letter.id} of lane {lane}",
        command_id=letter.command_id,
        type=letter.type,
        status="failed",
        at=letter.dead_at,
        why=f"{letter.type} failed ({letter.code}): {letter.reason}{behind}",
        todo=f"mend the cause, then: coordinator dead replay --lane {lane} --letter {letter.id}",
        letter=letter.id,
    )


def _in_queue(condition: LaneCondition, command_id: str, command_type: str | None) -> Stop:
    lane, waiting = condition.lane, condition.waiting
    before = "" if not waiting else f", in which {counted(waiting, 'message waits', 'messages wait')}"
    is_kept = condition.state in ("paused", "suspended", "stuck", "unknown")
    return Stop(
        kind="queue",
        lane=lane,
        text=f"not settled yet: in the queue of lane {lane}{before}, or on its way there",
        command_id=command_id,
        type=command_type,
        why=f"lane {lane} is {condition.state}: {condition.why}" if is_kept else None,
        todo=_todo(condition),
    )


def _todo(condition: LaneCondition) -> str | None:
    lane = condition.lane
    match condition.state:
        case "paused":
            return f"once the reason is over: coordinator resume {lane}"
        case "suspended" | "unknown":
            return "bring back what is away: the lane goes on by itself"
        case "stuck" if condition.why and "no coordinator" in condition.why:
            return f"start one: coordinator run {lane}"
        case "stuck":
            return f"look at the coordinator of lane {lane}: its /readyz and its log say what it waits for"
    return None
