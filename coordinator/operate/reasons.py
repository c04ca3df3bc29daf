"""Why a command failed, as operators are told, and what helps: the log has a text of ours where the reason is not for
clients."""

from collections.abc import Sequence
from typing import Final

import msgspec

from coordinator.service.options import Options
from coordinator.service.outside_calls import EFFECTS_PREFIX
from coordinator.service.text import in_quotes
from coordinator.service.unshown import is_unshown
from coordinator.stores.admin import LaneAdmin, LetterQuery, LetterSummary
from coordinator.stores.lane_tables import DeadLetter, LogEntry

_TRACED: Final = frozenset({"handler_error", "invalid_row"})
"""The codes of letters whose line of code is wanted first."""


def with_reason(entry: LogEntry, letters: Sequence[LetterSummary]) -> LogEntry:
    """An entry of the log with the reason that its dead letter keeps, if it is one of these."""
    if not letters or not is_unshown(entry.error_code):
        return entry
    return msgspec.structs.replace(entry, error_message=letters[-1].reason)


def with_reason_in(admin: LaneAdmin, entry: LogEntry) -> LogEntry:
    """The same, with the letter that there is in the lane's database."""
    if not is_unshown(entry.error_code):
        return entry
    return with_reason(entry, admin.letters(LetterQuery(command_id=entry.command_id), 0, 1))


def told_of(letter: DeadLetter | None) -> str | None:
    """The continuation by which somebody, such as a saga, was told that the command of a letter failed; None: nobody.

    One that was never logged has told nobody yet: its replay does.
    """
    if letter is None or letter.sequence is None or letter.target.startswith(EFFECTS_PREFIX):
        return None
    return Options.decode(letter.options).continuation


def parked_todo(lane: str, ordering_key: str, letter: DeadLetter | None) -> str:
    """What helps the commands that wait for a key, behind the command of this letter; None: it has none any more."""
    release = f"coordinator release {lane} {in_quotes(ordering_key)}"
    if letter is None:
        return f"what they wait for is being replayed: wait for it, or let them go on: {release}"
    return f"{letter_todo(lane, letter, told_of(letter))}; or let them go on: {release}"


def first_letter(admin: LaneAdmin, command_id: str) -> DeadLetter | None:
    """The first dead letter of a command; None: it has none."""
    summary = next(iter(admin.letters(LetterQuery(command_id=command_id), 0, 1)), None)
    return None if summary is None else admin.letter(summary.id)


def letter_todo(lane: str, letter: DeadLetter | LetterSummary, told: str | None) -> str:
    """What helps a command that is a dead letter. `told` is as in `told_of`."""
    replay = f"coordinator dead replay --lane {lane} --letter {letter.id}"
    if told is None and letter.code == "malformed_json":
        # Its replay would fail again, whatever is mended.
        discard = f"coordinator dead discard --lane {lane} --letter {letter.id}"
        return f"nobody can read what was sent: replay it with arguments of yours: {replay} --args JSON; or: {discard}"
    if told is None:
        return f"mend the cause{_mends(lane, letter)}, then: {replay}"
    look = "" if letter.command_id is None else f" (coordinator find {letter.command_id})"
    return (
        f"what asked for it was told that it failed ({told}), and has gone back, or waits for a verdict: look there "
        f"first{look}. A replay would be applied alone, and nobody told (--alone). Mend the cause, have it asked for "
        f"anew, then: coordinator dead discard --lane {lane} --letter {letter.id}"
    )


def _mends(lane: str, letter: DeadLetter | LetterSummary) -> str:
    """What there is to know of the cause.

    Clients' arguments are looked at before they are sent: most that do not fit are of another release.
    """
    if letter.target.startswith(EFFECTS_PREFIX):
        return ""
    if letter.code in _TRACED:
        return f" (its traceback: coordinator dead show --lane {lane} --letter {letter.id})"
    if letter.code != "invalid_arguments":
        return ""
    return " (if its class was changed since it was sent: a version of the class, with an upgrade; or other --args)"
