"""What commands hold is for operators: for whoever may only look it is taken out of all that pages show.

The words of an error, and the reason of a letter, are of it: they quote what they are about, such as an address.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, get_args

import msgspec

from coordinator.client.timeline import Timeline
from coordinator.lane.blocking import without_words
from coordinator.operate.conditions import LaneCondition
from coordinator.operate.effects_conditions import EffectsCondition
from coordinator.operate.found import Found
from coordinator.operate.places import Stop
from coordinator.operations.views import LaneView
from coordinator.service.nesting import NESTING_MAX, is_too_deep
from coordinator.service.outcome import Status
from coordinator.service.outside_calls import without_providers_words
from coordinator.service.saga_timeline import SagaStep
from coordinator.service.text import printable
from coordinator.stores.admin import LetterSummary, ParkedKeySummary
from coordinator.stores.audit import ChangedRow
from coordinator.stores.audit_tables import OperatorAct
from coordinator.stores.lane_tables import LogEntry

LAID_OUT_BYTES_MAX: Final = 4 << 20
"""Beyond it JSON text is shown in one line: a stranger's of a hundred levels would grow to a hundred times as much."""
HIDDEN_REASON: Final = "for operators only"
_INDENT: Final = 2
_USUAL_LEVELS: Final = 8
_PARTS: Final = (b",", b"[", b"{", b"]", b"}")
"""Behind each of these a line may end. Those in strings count, too: it is a bound."""


def entry_without_content(entry: LogEntry) -> LogEntry:
    """An entry of the log as whoever may only look sees it."""
    # By the fingerprint a guess at the arguments could be proved.
    return msgspec.structs.replace(entry, result=None, error_message=None, fingerprint="")


def letter_without_content(letter: LetterSummary) -> LetterSummary:
    """The same of a dead letter."""
    return msgspec.structs.replace(letter, reason=HIDDEN_REASON)


def key_without_content(key: ParkedKeySummary) -> ParkedKeySummary:
    """The same of a key for which commands wait: a service makes it of their arguments."""
    return msgspec.structs.replace(key, ordering_key=HIDDEN_REASON)


def change_without_content(change: ChangedRow) -> ChangedRow:
    """The same of a row that a command has changed: mostly its arguments name the key."""
    return msgspec.structs.replace(change, row_key=HIDDEN_REASON)


def act_without_content(act: OperatorAct) -> OperatorAct:
    """The same of an act: a released key is one. An earlier release kept a digest of whom it was to forget."""
    details: dict[str, Any] = msgspec.json.decode(act.details)
    field = "subject" if act.act == "forget" else "ordering_key"
    if not details.get(field):
        return act
    hidden = msgspec.json.encode(details | {field: HIDDEN_REASON}).decode()
    return msgspec.structs.replace(act, details=hidden)


def timeline_without_content(timeline: Timeline) -> Timeline:
    """The same of a timeline: where a command waits may be seen, and what an outcome says may not."""
    if timeline.standing in get_args(Status):
        return msgspec.structs.replace(timeline, why=None)
    if timeline.standing == "outside" and timeline.why is not None:
        return msgspec.structs.replace(timeline, why=HIDDEN_REASON)
    if timeline.standing == "parked":
        # What helps names the key.
        return msgspec.structs.replace(timeline, todo=HIDDEN_REASON)
    return timeline


_LANES_REASONS: Final = frozenset({"queue", "cancelled", "timer", "outbox", "parked", "away"})
"""The kinds of places where a command stands for a reason of its lane, and not for what it holds."""


def found_without_content(found: Found, operated: Collection[str]) -> Found:
    """The same of what was found: of lanes that are not operated, the places and not what was said there.

    Why lanes keep commands waiting it says as their conditions do: look with those of `conditions_seen`.
    """

    def seen(stop: Stop) -> Stop:
        if stop.lane in operated:
            return stop
        stop = msgspec.structs.replace(stop, said=None)
        if stop.ordering_key is not None:
            stop = msgspec.structs.replace(stop, ordering_key=None, todo=HIDDEN_REASON)
        if stop.why is None or stop.kind in _LANES_REASONS:
            return stop
        return msgspec.structs.replace(stop, why=HIDDEN_REASON)

    def why_of(lane: str, why: str | None, stops: Sequence[Stop]) -> str | None:
        at = next((each for each in stops if each.why == why), None)
        if at is not None:
            return seen(at).why
        return why if why is None or lane in operated else HIDDEN_REASON

    def todo_of(todo: str | None, stops: Sequence[Stop]) -> str | None:
        at = next((each for each in stops if each.todo == todo), None)
        return todo if at is None else seen(at).todo

    def step_of(lane: str, step: SagaStep) -> SagaStep:
        return step if lane in operated else msgspec.structs.replace(step, error_message=None)

    return msgspec.structs.replace(
        found,
        sagas=[
            msgspec.structs.replace(
                each,
                reason=each.reason if each.lane in operated else None,
                why=why_of(each.lane, each.why, each.stops),
                todo=todo_of(each.todo, each.stops),
                stops=[seen(stop) for stop in each.stops],
                steps=[step_of(each.lane, step) for step in each.steps],
            )
            for each in found.sagas
        ],
        commands=[
            msgspec.structs.replace(
                each,
                why=why_of(each.lane, each.why, each.stops),
                todo=todo_of(each.todo, each.stops),
                stops=[seen(stop) for stop in each.stops],
            )
            for each in found.commands
        ],
        rows=[msgspec.structs.replace(each, why=why_of(each.lane, each.why, ())) for each in found.rows],
    )


def conditions_seen(
    conditions: Mapping[str, LaneCondition], seen: Collection[str], operated: Collection[str]
) -> dict[str, LaneCondition]:
    """How the lanes do that may be looked at: all that is said of what waits in one, and of what waits for it
    elsewhere, is made of this."""
    return {
        lane: each
        if lane in operated
        else msgspec.structs.replace(each, why=without_words(each.why), effects=_effects_without_words(each.effects))
        for lane, each in conditions.items()
        if lane in seen
    }


def view_without_content(view: LaneView) -> LaneView:
    """The same of a lane."""
    status, failed = view.status, view.status.last_failed
    if failed is not None:
        failed = msgspec.structs.replace(failed, message=None)
    # A lane without a broker says there why it is suspended.
    errors = [without_words(each) for each in status.errors]
    suspended = without_words(status.suspended)
    # And how its calls to the outside do.
    effects = _effects_without_words(status.effects)
    status = msgspec.structs.replace(status, last_failed=failed, errors=errors, suspended=suspended, effects=effects)
    processes = [
        msgspec.structs.replace(each, reason=without_providers_words(without_words(each.reason)))
        for each in view.processes
    ]
    return msgspec.structs.replace(
        view,
        status=status,
        why=without_words(view.why),
        processes=processes,
        effects=_effects_without_words(view.effects),
    )


def _effects_without_words(effects: EffectsCondition | None) -> EffectsCondition | None:
    """A provider's words quote what it was asked."""
    return None if effects is None else msgspec.structs.replace(effects, why=without_providers_words(effects.why))


def laid_out(text: bytes) -> str:
    """JSON text for eyes, a part a line; in one line where that would be much more than there is.

    It is the same JSON, in which characters that nobody sees, or that turn others around, are escaped: an operator
    edits it, and sends what he has seen. Raises msgspec.DecodeError for what is no JSON.
    """
    return printable(_laid_out(text), keep="\n")


def _laid_out(text: bytes) -> str:
    in_one_line = msgspec.json.format(text, indent=-1)
    parts = sum(map(in_one_line.count, _PARTS))

    def fits(levels: int) -> bool:
        return len(in_one_line) + parts * (1 + _INDENT * levels) <= LAID_OUT_BYTES_MAX

    # The depth is looked for only where it matters, since that takes a while.
    if fits(NESTING_MAX) or (fits(_USUAL_LEVELS) and not is_too_deep(in_one_line, _USUAL_LEVELS)):
        return msgspec.json.format(text, indent=_INDENT).decode()
    return in_one_line.decode()
