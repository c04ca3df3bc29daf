"""Following a command from lane to lane until its way ends: where it is, why it stays there, and what to do."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Final

import msgspec

from coordinator.client.timeline import Related, queued_words
from coordinator.operate.conditions import LaneCondition
from coordinator.operate.effects_conditions import NO_WORKER, STUCK_S, EffectsCondition
from coordinator.operate.kept_lanes import ASK_OTHERS, KEPT, also_kept, lane_todo, lane_why, waiting_words
from coordinator.operate.output import now
from coordinator.operate.places import Stop, dead_stop, known_in, stops_of, stops_on_its_way
from coordinator.operate.relatives import results_of_calls
from coordinator.service.continuation import Deferred
from coordinator.service.declared_sagas import DeclaredSaga
from coordinator.service.errors import ConfigurationError, Unavailable
from coordinator.service.ids import continuation_command_id
from coordinator.service.lane_names import lane_of, tenant_of
from coordinator.service.options import Origin
from coordinator.service.outside_calls import EFFECTS_PREFIX, effects_key
from coordinator.service.rows import shown_key
from coordinator.service.service import Service
from coordinator.stores.admin import LaneAdmin, LetterQuery, LetterSummary

NEVER_SENT: Final = "was never published (does its gateway reach the broker? Its own /readyz says so)"
"""Gateways are asked by nobody here."""

NOT_TAKEN: Final = (
    "the broker has not taken it, or what is before it: it has no room, or the queue was full, or is not there"
)

TRIED_AGAIN: Final = (
    "nothing is lost: lane {lane} tries again by itself, after pauses that grow to 30 s; if it lasts: "
    "docs/OPERATING.md, An outbox grows"
)

MADE_AGAIN: Final = (
    "nothing is lost: the call is made again by itself, after pauses that grow to EFFECTS_RETRY_DELAY_S_MAX; if it "
    "goes on, look at the other side, and at the log {whose}"
)

GIVEN_UP: Final = (
    "the call to the outside has been made, and its result has failed, and has no dead letter: that was discarded, or "
    "a replay is on its way"
)
FIND_OUT: Final = (
    "see by whom (coordinator audit {lane} --operators), and what the call did at the other side: the lane hears of it "
    "by nobody else"
)

Open = Callable[[str], AbstractContextManager[LaneAdmin]]
Conditions = Mapping[str, LaneCondition]


class Follower:
    """Follows commands, among lanes whose conditions are known. What it asks blocks."""

    def __init__(self, open_admin: Open, conditions: Conditions) -> None:
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
            yield _unseen_stop(condition, command_id, command_type)
            return
        try:
            with self._open(lane) as admin:
                found = stops_of(known_in(admin, lane, command_id))
            # What was cancelled here may not have come yet.
            has_come = any(stop.kind != "cancelled" for stop in found)
            if not has_come and sender is not None and sender != lane and self._can_be_asked(sender):
                with self._open(sender) as admin:
                    found = stops_of(known_in(admin, sender, command_id)) or found
        except (Unavailable, ConfigurationError) as error:
            yield Stop(kind="away", lane=lane, text=f"for lane {lane}", command_id=command_id, why=str(error))
            return
        for stop in found:
            yield held_up(stop, self._conditions)
        if not found:
            yield queued_stop(condition, command_id, command_type)

    def _can_be_asked(self, lane: str) -> bool:
        condition = self._conditions.get(lane)
        return condition is not None and condition.can_be_asked

    def answer(
        self, saga: DeclaredSaga, owner: str, service: Service | None, step_id: str, step_type: str
    ) -> Iterator[Stop]:
        """The places of the answer to a saga's step, which its lane has settled; none: it has come."""
        lane = lane_of(step_type.partition(".")[0], tenant_of(owner))
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
        with self._open(lane) as admin:
            row = admin.keeping(service.models, texts)
            if row is None:
                return None
            text = f"row {shown_key(row.value)} of {row.model.table} keeps the answer of lane {lane} until it is known"
            return kept_answer_stop(admin, self._conditions[lane], text, command_id, command_type)


def kept_answer_stop(admin: LaneAdmin, condition: LaneCondition, text: str, command_id: str, command_type: str) -> Stop:
    """The place of a command whose answer a row keeps until a call to the outside, or whatever, has ended."""
    lane = condition.lane
    entry = admin.find(command_id)
    calls = [] if entry is None else results_of_calls(admin, lane, entry)
    for call, results in calls:
        failed = failed_result(admin, lane, results) if results else failed_call(admin, lane, call)
        if failed is not None:
            return _also_kept(failed, condition)
    unanswered = [call for call, results in calls if not results]
    if entry is not None and unanswered:
        text = f"{text}: a call to the outside ({effects_key(lane)})"
        ways = admin.on_its_way([each.command_id for each in unanswered])
        waits = next((stop for way in ways.values() for stop in stops_on_its_way(lane, way)), None)
        if waits is not None and waits.kind == "timer":
            return held_up(msgspec.structs.replace(waits, text=f"{text} {waits.text}"), {lane: condition})
        if waits is not None and not condition.is_local:
            text = f"{text} is {waits.text}"
        stop = outside_stop(condition, text, command_id, command_type, asked_at=entry.settled_at)
        if waits is None:
            return stop
        stop = msgspec.structs.replace(stop, kind=waits.kind, target=waits.target)
        return stop if stop.why is not None or condition.is_local else held_up(stop, {lane: condition})
    if calls or condition.effects is None:
        made = "; ".join(carried_out_stop(*each).text for each in calls)
        text = f"{text}; its call to the outside is {made}" if made else text
        stop = Stop(kind="outside", lane=lane, text=text, command_id=command_id, type=command_type)
        is_given_up = any(all(each.standing == "failed" for each in results) for _, results in calls)
        return msgspec.structs.replace(stop, why=GIVEN_UP, todo=FIND_OUT.format(lane=lane)) if is_given_up else stop
    # Another command has asked for the call, or the entry does not name it.
    letters = admin.letters(LetterQuery(target=effects_key(lane)), 0, 1)
    text = f"{text}: a call to the outside ({effects_key(lane)})"
    return outside_stop(condition, text, command_id, command_type, letters=letters)


def failed_result(admin: LaneAdmin, lane: str, results: Iterable[Related]) -> Stop | None:
    """The dead letter that the result of a call to the outside is; None: there is none."""
    for result in results:
        stop = next(reversed(stops_of(known_in(admin, lane, result.command_id))), None)
        if stop is not None and stop.kind == "dead_letter":
            text = f"the call to the outside has been made, and its result ({result.type}) is {stop.text}"
            return msgspec.structs.replace(stop, text=text)
    return None


def failed_call(admin: LaneAdmin, lane: str, call: Related) -> Stop | None:
    """The dead letter that a call to the outside is; None: the call goes on."""
    # A stranger may send another one by the same id.
    query = LetterQuery(command_id=call.command_id, target=effects_key(lane), origin="system")
    letter = next(iter(admin.letters(query, 0, 1)), None)
    if letter is None:
        return None
    stop = dead_stop(lane, letter)
    return msgspec.structs.replace(stop, text=f"its call to the outside ({call.type}) is {stop.text}")


def held_up(stop: Stop, conditions: Conditions) -> Stop:
    """A place with what keeps a command there that waits for its lane, for an operator's order there, or for another
    lane's queue."""
    if (sender := conditions.get(stop.lane)) is None:
        return stop
    if stop.kind in ("parked", "dead_letter"):
        return _also_kept(stop, sender)
    if stop.kind == "cancelled" and sender.state in (*KEPT, "unknown"):
        return _kept(stop, sender)
    is_due = stop.kind == "outbox" or (stop.due_at is not None and stop.due_at <= now())
    return _on_its_way(stop, sender, conditions) if is_due else stop


def _on_its_way(stop: Stop, sender: LaneCondition, conditions: Conditions) -> Stop:
    receiving = conditions.get(stop.target or "")
    if stop.kind == "outbox" and sender.is_local and stop.target == effects_key(stop.lane):
        return _with_worker(stop, sender)
    if stop.kind == "outbox" and sender.is_local and receiving is not None and receiving.is_local:
        return _handed_over(stop, receiving)
    if stop.kind == "outbox" and receiving is not None and receiving.full is not None:
        # What a lane has emitted already leaves it, whatever it settles now: what it does itself comes second.
        return _also_kept(_refused(stop, receiving), sender)
    if sender.state in KEPT:
        why, todo = also_kept(lane_why(sender), lane_todo(sender), receiving)
        return msgspec.structs.replace(stop, why=why, todo=todo)
    is_late = stop.kind == "outbox" and stop.at is not None and (now() - stop.at).total_seconds() >= STUCK_S
    # In one process what is handed over stays in the outbox until it is settled, or carried out.
    is_handed_over = sender.is_local and (receiving is None or receiving.is_local)
    return _tried_again(stop, receiving) if is_late and not is_handed_over else stop


def _refused(stop: Stop, receiving: LaneCondition) -> Stop:
    """What the queue of another lane has no room for, and why that is not worked off."""
    lane = receiving.lane
    behind = "" if receiving.why is None else f"; lane {lane} is {receiving.state}: {receiving.why}"
    return msgspec.structs.replace(
        stop,
        why=f"the queue of lane {lane} takes nothing more: {receiving.full}{behind}",
        todo=lane_todo(receiving) or f"have lane {lane} work off its queue, or give it more room",
    )


def _tried_again(stop: Stop, receiving: LaneCondition | None) -> Stop:
    """What the broker has not taken, and would take now for all that is known: its lane has not tried again yet."""
    keeping = None if receiving is None or receiving.state not in KEPT else receiving
    behind = "" if keeping is None else f"; lane {keeping.lane} is {keeping.state}: {keeping.why}"
    why = f"{NOT_TAKEN}{behind}"
    todo = TRIED_AGAIN.format(lane=stop.lane)
    return msgspec.structs.replace(stop, why=why, todo=todo if keeping is None else lane_todo(keeping) or todo)


def _handed_over(stop: Stop, receiving: LaneCondition) -> Stop:
    """What one lane of a process has emitted to another one there, which has settled nothing of it: until then it stays
    in the outbox."""
    text = f"in the outbox of lane {stop.lane}, for lane {receiving.lane} of its process, which has not settled it yet"
    stop = msgspec.structs.replace(stop, text=text)
    return _kept(stop, receiving) if receiving.state in (*KEPT, "unknown") else stop


def _unseen_stop(condition: LaneCondition, command_id: str, command_type: str | None) -> Stop:
    """The place of a command of a lane whose database does not answer: whether it is settled there nobody knows."""
    lane = condition.lane
    return Stop(
        kind="away",
        lane=lane,
        text=f"for lane {lane}",
        command_id=command_id,
        type=command_type,
        why=f"lane {lane} cannot be looked into: {condition.why}",
        todo=lane_todo(condition),
    )


def _with_worker(stop: Stop, condition: LaneCondition) -> Stop:
    """A call to the outside that a lane of a process has handed over to the worker there: until it is carried out it
    stays in the outbox."""
    text = f"with the worker of {stop.target} in the process of lane {stop.lane}, which has not carried it out yet"
    call = outside_stop(condition, text, stop.command_id or "", stop.type, asked_at=stop.at)
    return msgspec.structs.replace(stop, text=text, why=call.why, todo=call.todo)


def queued_stop(condition: LaneCondition, command_id: str, command_type: str | None) -> Stop:
    """The place of a command of a lane that no database knows: with the broker, if it was published at all."""
    stop = Stop(
        kind="queue",
        lane=condition.lane,
        text=queued_words(condition.lane, condition.waiting),
        command_id=command_id,
        type=command_type,
        before=condition.waiting,
    )
    return _kept(stop, condition) if condition.state in (*KEPT, "unknown") else stop


def unsettled_words(command_id: str, conditions: Collection[LaneCondition], none: str = "no lane") -> str:
    """What is said of a command of which none of these lanes knows: where it may be, and what keeps it there. `none` is
    how none of them is called."""
    waits = waiting_words(conditions, none)
    names = [each.lane for each in conditions]
    who = f"lane {names[0]} has not settled" if len(names) == 1 else f"{none} has settled"
    return f"{who} command {command_id}: it waits in a queue, is older than the log, or {NEVER_SENT}; {waits}"


def emitted_stop(child: Related, results: Sequence[Related], conditions: Conditions) -> Stop:
    """The place of a command, or an effect, that its lane has emitted, and that is in no database that was asked.

    `results` are those of an effect that a lane has.
    """
    if results:
        return carried_out_stop(child, results)
    target, command_id, command_type = child.lane or "", child.command_id, child.type
    lane = target.removeprefix(EFFECTS_PREFIX)
    condition = conditions.get(lane)
    if condition is None:
        text = f"sent to {target}, of which nothing is known here"
        return Stop(kind="queue", lane=lane, text=text, command_id=command_id, type=command_type)
    if not target.startswith(EFFECTS_PREFIX):
        stop_of = queued_stop if condition.can_be_asked else _unseen_stop
        return stop_of(condition, command_id, command_type)
    effects = condition.effects
    parts = [] if effects is None else [(effects.waiting, "wait in their queue"), (effects.under_way, "are under way")]
    known = " and ".join(f"{count} {words}" for count, words in parts if count is not None)
    text = f"with the workers of {target}, or done: the lane hears of it by another command"
    return outside_stop(condition, f"{text} ({known})" if known else text, command_id, command_type)


def carried_out_stop(effect: Related, results: Sequence[Related]) -> Stop:
    """The place of an effect that has come to its end: what came of it are commands of its lane."""
    named = "; ".join(f"{each.type} {each.command_id}, {each.standing} in lane {each.lane}" for each in results)
    lane = (effect.lane or "").removeprefix(EFFECTS_PREFIX)
    text = f"carried out by the workers of {effect.lane}: its result is {named}"
    return Stop(kind="outside", lane=lane, text=text, command_id=effect.command_id, type=effect.type)


def outside_stop(
    condition: LaneCondition,
    text: str,
    command_id: str,
    command_type: str | None,
    *,
    asked_at: datetime | None = None,
    letters: Sequence[LetterSummary] = (),
) -> Stop:
    """The place of a call to the outside that was asked for then, and why there is no answer.

    `letters` are dead ones of the service's calls, where nobody knows whether one is of this.
    """
    lane, effects = condition.lane, condition.effects
    stop = Stop(kind="outside", lane=lane, text=text, command_id=command_id, type=command_type, at=asked_at)
    if effects is None:
        return _also_kept(stop, condition)
    whose, waited_s = "a", effects.oldest_s or 0.0
    if asked_at is not None:
        whose, waited_s = "its", (now() - asked_at).total_seconds()
    # What nobody has gets no answer, whatever keeps other calls from theirs.
    has_it = asked_at is None or effects.may_have(waited_s)
    why, todo = _no_answer(condition, effects, whose, waited_s, letters) if has_it else (None, None)
    return _also_kept(msgspec.structs.replace(stop, why=why, todo=todo), condition)


def _no_answer(
    condition: LaneCondition, effects: EffectsCondition, whose: str, waited_s: float, letters: Sequence[LetterSummary]
) -> tuple[str | None, str | None]:
    """What keeps a call to the outside from its answer, and what helps."""
    lane, why, todo = condition.lane, effects.why, None
    if effects.state == "provider_away":
        todo = "nothing is lost: the call is made again once the provider answers; look at it and at its address"
    elif effects.state == "no_worker":
        is_away = why is not None and why.startswith(NO_WORKER)
        todo = (
            f"start one, with its account: coordinator effects {lane}"
            if is_away
            else "mend that: the workers go on by themselves then"
        )
    elif letters and effects.state != "working":
        why = f"{effects_key(lane)} has dead letters, and one may be its call: {letters[0].code}: {letters[0].reason}"
        todo = f"coordinator dead list {effects_key(lane)}"
    elif effects.state == "unknown":
        todo = ASK_OTHERS
    # Where its lane applies nothing, the result may be there.
    elif effects.state == "working" and waited_s >= STUCK_S and (why is not None or condition.state not in KEPT):
        if condition.state not in KEPT:
            asked = "it is made again until there is one" if why is None else why
            why = f"{whose} call to the outside has had no result for {waited_s:.0f} s; {asked}"
        todo = MADE_AGAIN.format(whose="of the process" if condition.is_local else f"of the effect workers of {lane}")
    return why, todo


def _kept(stop: Stop, condition: LaneCondition) -> Stop:
    return msgspec.structs.replace(stop, why=lane_why(condition), todo=lane_todo(condition))


def _also_kept(stop: Stop, condition: LaneCondition) -> Stop:
    why, todo = also_kept(stop.why, stop.todo, condition)
    return msgspec.structs.replace(stop, why=why, todo=todo)
