"""Dead letters on a page: read in pages, replayed in steps, discarded. All of it blocks."""

import itertools
from collections.abc import Callable, Sequence
from datetime import datetime
from threading import Event
from time import monotonic
from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct, UnsetType

from coordinator.lane.control import DiscardLetter, Replayed, ReplayLetter
from coordinator.operate.dead import ARGUMENTS_BYTES_MAX
from coordinator.operate.giving_orders import OrderAnswer, give
from coordinator.operate.open import lane_admin
from coordinator.operate.output import Misused
from coordinator.operate.reasons import with_reason_in
from coordinator.operate.selected_letters import Letter, described
from coordinator.operations.content import laid_out, letter_without_content
from coordinator.operations.kept_admins import SILENCE_S
from coordinator.service.commands import Command, repeated
from coordinator.service.nesting import NESTING_MAX, is_too_deep
from coordinator.service.outcome import OutcomeError
from coordinator.service.repeated_names import repeated_name
from coordinator.stores.admin import LaneAdmin, LetterQuery, LetterSummary, proved_entry

STEP_MAX: Final = 100
_ASK_AGAIN_S: Final = 0.1


class LetterPage(Struct, frozen=True, kw_only=True):
    """Letters, oldest first. `next` is the `after` of the page behind it; None: there is none."""

    letters: list[LetterSummary]
    next: int | None


class WholeLetter(Struct, frozen=True, kw_only=True):
    """A letter. `text` has its arguments: with `is_json` laid out, else as they came, of which `kept_bytes` are there.
    `options` are the fields of the command beside its arguments. `is_hidden`: whoever asks may only look. `told` is the
    continuation by which somebody, such as a saga, was told that the command failed; None: nobody was.
    """

    lane: str
    letter: int
    target: str
    command_id: str | None
    type: str | None
    origin: str
    code: str
    reason: str
    sequence: int | None
    size_bytes: int
    copies: int
    dead_at: datetime
    traceback: str | None
    kept_bytes: int
    text: str | None
    options: dict[str, Any]
    told: str | None
    is_hidden: bool
    is_json: bool


class LetterResult(Struct, frozen=True, kw_only=True):
    """What came of the order for one letter: applied, rejected or pending.

    A letter that was replayed has its command's new id, and the status of that command, where it was settled in time.
    `error` says why the order, or else the command, was not applied.
    """

    letter: int
    status: str
    replayed_as: str | None = None
    outcome: str | None = None
    error: OutcomeError | None = None


def page_of_letters(admin: LaneAdmin, query: LetterQuery, after: int, limit: int, *, with_content: bool) -> LetterPage:
    """The letters behind a number that the query chooses."""
    found = admin.letters(query, after, limit + 1)
    shown = found[:limit] if with_content else [letter_without_content(each) for each in found[:limit]]
    return LetterPage(letters=shown, next=found[limit - 1].id if len(found) > limit else None)


def whole_letter(admin: LaneAdmin, lane: str, number: int, *, with_content: bool) -> WholeLetter | None:
    """One letter; without content it has neither text, reason nor traceback. None: there is none."""
    summary = next(iter(admin.letters(LetterQuery(), number - 1, 1)), None)
    row = admin.letter(number)
    if row is None or summary is None or summary.id != number:
        return None
    shown = Letter(lane, summary if with_content else letter_without_content(summary))
    fields: dict[str, Any] = described(shown, row)
    arguments = fields.pop("arguments")
    if with_content and isinstance(arguments, msgspec.Raw):
        # As text, since a browser rounds large numbers.
        fields["text"] = laid_out(bytes(arguments))
    if not with_content:
        fields |= {"text": None, "traceback": None}
    return WholeLetter(**fields, is_hidden=not with_content, is_json=arguments is not None)


def replay_letters(
    lane: str,
    numbers: Sequence[int],
    author: str,
    reason: str,
    wait_s: float,
    arguments: bytes | None = None,
    *,
    without_deadline: bool = False,
    alone: bool = False,
) -> list[LetterResult]:
    """Have letters replayed, and wait for what becomes of their commands. Raises Misused, Unavailable."""
    args: msgspec.Raw | UnsetType = UNSET if arguments is None else _checked(arguments)
    deadline_s = monotonic() + wait_s
    results = _given(
        lane,
        numbers,
        lambda letter: ReplayLetter(
            letter=letter, args=args, without_deadline=without_deadline, alone=alone, by=author, reason=reason
        ),
        wait_s,
    )
    return _settled(lane, results, deadline_s)


def discard_letters(lane: str, numbers: Sequence[int], author: str, reason: str, wait_s: float) -> list[LetterResult]:
    """Have letters removed for good. Raises Unavailable."""
    return _given(lane, numbers, lambda letter: DiscardLetter(letter=letter, by=author, reason=reason), wait_s)


def _given(lane: str, numbers: Sequence[int], order: Callable[[int], Command], wait_s: float) -> list[LetterResult]:
    found: dict[int, LetterResult] = {}

    def on_answer(answer: OrderAnswer) -> None:
        number, outcome = numbers[answer.position], answer.outcome
        if outcome is None:
            found[number] = LetterResult(letter=number, status="pending")
            return
        replayed_as = None
        if outcome.status == "applied" and outcome.type == ReplayLetter.type:
            replayed = msgspec.json.decode(outcome.result, type=Replayed)
            # Of an effect no log tells what came of it.
            replayed_as = replayed.replayed_as if replayed.target == lane else None
        found[number] = LetterResult(letter=number, status=outcome.status, replayed_as=replayed_as, error=outcome.error)

    give(lane, [order(number) for number in numbers], wait_s, on_answer)
    return [found[number] for number in numbers]


def _settled(lane: str, results: list[LetterResult], deadline_s: float) -> list[LetterResult]:
    """The same, with the outcomes of the replayed commands, as far as they come in time."""
    waiting = {each.replayed_as for each in results if each.replayed_as is not None}
    outcomes: dict[str, tuple[str, OutcomeError | None]] = {}
    with lane_admin(lane, silence_s=SILENCE_S) as admin:
        for _ in itertools.count():
            for command_id in waiting - outcomes.keys():
                entry = proved_entry(admin, command_id)
                if entry is not None:
                    entry = with_reason_in(admin, entry)
                    code, message = entry.error_code, entry.error_message
                    error = None if code is None else OutcomeError(code=code, message=message or "")
                    outcomes[command_id] = entry.status, error
            if len(outcomes) == len(waiting) or monotonic() >= deadline_s:
                break
            Event().wait(_ASK_AGAIN_S)
    return [
        msgspec.structs.replace(
            each, outcome=outcomes[each.replayed_as][0], error=each.error or outcomes[each.replayed_as][1]
        )
        if each.replayed_as in outcomes
        else each
        for each in results
    ]


def _checked(arguments: bytes) -> msgspec.Raw:
    """Raises Misused for what no command's arguments can be."""
    if len(arguments) > ARGUMENTS_BYTES_MAX:
        raise Misused(f"the arguments have {len(arguments)} bytes; an order carries {ARGUMENTS_BYTES_MAX} at most")
    if is_too_deep(arguments):
        raise Misused(f"the arguments are nested deeper than {NESTING_MAX} levels")
    try:
        msgspec.json.decode(arguments, type=dict[str, object])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Misused(f"the arguments must be a JSON object: {error}") from None
    if (name := repeated_name(arguments)) is not None:
        raise Misused(f"the arguments: {repeated(name)}")
    return msgspec.Raw(arguments)
