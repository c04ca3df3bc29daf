"""What keeps commands for a row from being applied: a key that is parked, or a dead letter whose target the row is.

A dead letter whose id the row keeps counts, too, as that of its timer.
"""

from typing import Any, Final
from uuid import UUID

import msgspec

from coordinator.lane.row_texts import row_text
from coordinator.operate.parked import key_named, waiters
from coordinator.operate.reasons import first_letter, letter_todo, parked_todo, told_of
from coordinator.service.options import Options
from coordinator.service.rows import Key, Ref, Row, key_of, needs_review
from coordinator.service.service import Service
from coordinator.service.unit_of_work import Handler
from coordinator.service.upgrades import parse_sent
from coordinator.stores.admin import LaneAdmin, LetterQuery
from coordinator.stores.lane_tables import DeadLetter

LETTERS_LOOKED_AT_MAX: Final = 20
"""So many dead letters that have the row's key, or a unique value of it, in their arguments are read."""


def row_waits(admin: LaneAdmin, service: Service, ref: Ref[Row], row: Row | None) -> tuple[str, str] | None:
    """Why the commands for a row are not applied, and what to do; None: nothing is known to keep them.

    A command is for the row that its handler's `target` names: by its key, or by a unique column. `row` is None where
    it is not there, or cannot be read, or where whoever asks may not see what commands hold: then dead letters are not
    looked at.
    """
    lane, names = service.lane, {ref.column: ref.value} | ({} if row is None else _names_of(row))
    for each, its in names.items():
        ordering_key = row_text(Ref(ref.model, each, its))
        parked = key_named(admin, ordering_key)
        if parked is None:
            continue
        first = first_letter(admin, parked.failed_id)
        # Whoever may not see what commands hold, for whom there is no row, is told the code alone.
        reason = "" if first is None or row is None else f": {first.reason}"
        behind = f"behind command {parked.failed_id}, which failed ({parked.error_code}){reason}"
        return f"{waiters(parked)} for {ordering_key}, {behind}", parked_todo(lane, ordering_key, first)
    if row is None:
        return None
    letter = _letter_for(admin, service, row)
    if letter is not None:
        why = f"{letter.type} for it failed ({letter.code}): {letter.reason}"
        return why, letter_todo(lane, letter, told_of(letter))
    return _review(row) or _kept_command(admin, lane, row)


def _kept_command(admin: LaneAdmin, lane: str, row: Row) -> tuple[str, str] | None:
    """That a command failed whose id the row keeps, as that of its timer: nobody could read for which row it was."""
    for column in row.__struct_fields__:
        value = getattr(row, column)
        letter = first_letter(admin, value) if isinstance(value, str) and _is_id(value) else None
        if letter is not None:
            why = f"{letter.type}, whose id is its {column}, failed ({letter.code}): {letter.reason}"
            return why, letter_todo(lane, letter, told_of(letter))
    return None


def _is_id(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def _review(row: Row) -> tuple[str, str] | None:
    """That a person has to look at the row itself."""
    if row.__review__ is None or not needs_review(row):
        return None
    column, code = row.__review__[0], getattr(row, "reason_code", None)
    said = "" if code is None else f" ({code})"
    return f"its {column} is {getattr(row, column)}{said}", "a person decides: docs/OPERATING.md, What needs a person"


def _names_of(row: Row) -> dict[str | tuple[str, ...], Key]:
    """By what the row is found."""
    return {row.key: key_of(row), **{column: getattr(row, column) for column in row.unique}}


def _letter_for(admin: LaneAdmin, service: Service, row: Row) -> DeadLetter | None:
    """The first dead letter of a command for this row, among those that are looked at."""
    named = _names_of(row)
    handlers = {handler.command.type: handler for handler in service.handlers}
    if not any(handler.target is not None for handler in handlers.values()):
        return None
    parts = (part for value in named.values() for part in (value if isinstance(value, tuple) else (value,)))
    for value in dict.fromkeys(parts):
        if not isinstance(value, int | str):
            continue
        query = LetterQuery(target=service.lane, contains=msgspec.json.encode(value).strip(b'"'))
        for summary in admin.letters(query, 0, LETTERS_LOOKED_AT_MAX):
            handler = handlers.get(summary.type or "")
            letter = None if handler is None else admin.letter(summary.id)
            if handler is not None and letter is not None and _is_for(handler, letter, type(row), named):
                return letter
    return None


def _is_for(
    handler: Handler[Any], letter: DeadLetter, model: type[Row], named: dict[str | tuple[str, ...], Key]
) -> bool:
    """Whether its handler's `target` names the row. A letter may hold anything, and so may its handler's code raise."""
    try:
        version = Options.decode(letter.options).command_version
        command = parse_sent(handler.command, letter.arguments, version, handler.upgrades)
        target = None if handler.target is None else handler.target(command)
    except Exception:  # noqa: BLE001  # of the service's author
        return False
    return isinstance(target, Ref) and target.model is model and (target.column, target.value) in named.items()
