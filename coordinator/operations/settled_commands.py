"""Commands on a page: those of a lane's log, latest first, and all that a lane knows of one. All of it blocks."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import datetime
from typing import Final

import msgspec
from msgspec import Struct

from coordinator.client.timeline import Timeline
from coordinator.operate.following import Conditions, Open
from coordinator.operate.log_times import first_since
from coordinator.operate.parked import key_of_command
from coordinator.operate.reasons import with_reason
from coordinator.operate.relatives import emitter_of, with_relatives
from coordinator.operate.timelines import emitted_timeline, queued_timeline, timeline_in
from coordinator.operations.content import (
    change_without_content,
    entry_without_content,
    laid_out,
    letter_without_content,
    timeline_without_content,
)
from coordinator.operations.lane_watch import latency_ms, recent_of
from coordinator.operations.views import RecentCommand
from coordinator.service.commands import INTEGER_MAX
from coordinator.service.errors import ConfigurationError, Unavailable
from coordinator.service.ids import is_system_id
from coordinator.stores.admin import LaneAdmin, LetterQuery, LetterSummary
from coordinator.stores.audit import ChangedRow, ChangeQuery
from coordinator.stores.lane_tables import LogEntry

SCANNED_MAX: Final = 100_000
"""How many sequences one question looks through, since the log has no index by type or status."""
_LETTERS_MAX: Final = 20


class CommandPage(Struct, frozen=True, kw_only=True):
    """Commands, latest first. `next` is the `before` to go on with; None: the log has no more.

    With a type or a status there may be fewer than were asked for, and still a `next`: so far was looked.
    """

    commands: list[RecentCommand]
    next: int | None


class KnownCommand(Struct, frozen=True, kw_only=True):
    """What one lane knows of a command: its entry in the log, the rows that it changed, its letters, behind which
    failed command it waits, and all of it as a timeline."""

    lane: str
    entry: LogEntry | None
    changes: list[ChangedRow]
    letters: list[LetterSummary]
    waits_for: str | None
    waits_behind: str | None
    latency_ms: float | None
    timeline: Timeline


class CommandView(Struct, frozen=True, kw_only=True):
    """A command on its page. `waiting` says where it may wait where no lane knows it: of each lane, or of the one to
    which another command sent it. `away` are the lanes that could not be asked, and why."""

    command_id: str
    found: list[KnownCommand]
    waiting: list[Timeline]
    away: list[str]


def page_of_commands(
    admin: LaneAdmin,
    before: int | None,
    limit: int,
    command_type: str | None,
    status: str | None,
    until: datetime | None,
) -> CommandPage:
    """The last commands below a sequence, and settled before a time, that match."""
    start = INTEGER_MAX if before is None else before
    if until is not None:
        start = min(start, first_since(admin, until))
    query, behind = ChangeQuery(), 0
    if command_type is not None or status is not None:
        first = admin.audit_bounds(None).first or 1
        start = min(start, admin.sequence() + 1)
        if (behind := start - 1 - SCANNED_MAX) < first:
            behind = 0
        query = ChangeQuery(type=command_type, status=status, after=behind)
    found = admin.audited(query, start, limit + 1)
    shown = [recent_of(each) for each in found[:limit]]
    if len(found) > limit:
        return CommandPage(commands=shown, next=shown[-1].sequence)
    return CommandPage(commands=shown, next=behind + 1 if behind else None)


def known_command(
    admin: LaneAdmin, lane: str, command_id: str, conditions: Conditions, *, with_content: bool
) -> KnownCommand | None:
    """What a lane knows of a command; None: nothing. `with_content`: also what it held."""
    entry = admin.find(command_id)
    letters = admin.letters(LetterQuery(command_id=command_id), 0, _LETTERS_MAX)
    key = key_of_command(admin, command_id)
    behind = key if key is not None and command_id in key.waiting else None
    timeline = timeline_in(admin, lane, command_id, conditions)
    if timeline is None:
        return None
    changes: list[ChangedRow] = []
    if entry is not None:
        changes = [row for each in admin.audited(ChangeQuery(), entry.sequence + 1, 1) for row in each.changes]
        entry = entry_without_content(entry) if not with_content else with_reason(entry, letters)
        if with_content and entry.result is not None:
            # Here, since a browser rounds large numbers.
            entry = msgspec.structs.replace(entry, result=laid_out(entry.result.encode()))
    return KnownCommand(
        lane=lane,
        entry=entry,
        changes=changes if with_content else [change_without_content(each) for each in changes],
        letters=letters if with_content else [letter_without_content(each) for each in letters],
        waits_for=behind.ordering_key if behind is not None and with_content else None,
        waits_behind=None if behind is None else behind.failed_id,
        latency_ms=None if entry is None else latency_ms(command_id, entry.settled_at),
        timeline=timeline if with_content else timeline_without_content(timeline),
    )


def with_relatives_in(
    found: Sequence[KnownCommand], command_id: str, conditions: Conditions, open_admin: Open
) -> tuple[list[KnownCommand], list[Timeline]]:
    """What lanes know, with what led to the command and what it led to; and where it may wait, if none knows it.

    `conditions` are those of the lanes that may be looked into. `open_admin` opens the database of one.
    """
    if not found and not is_system_id(command_id):
        # No lane has emitted it.
        return [], [queued_timeline(condition, command_id) for condition in conditions.values()]
    with ExitStack() as stack:
        admins: dict[str, LaneAdmin] = {}
        for lane, condition in conditions.items():
            if condition.can_be_asked:
                # What is away by now is said where the lane itself was asked.
                with suppress(Unavailable, ConfigurationError):
                    admins[lane] = stack.enter_context(open_admin(lane))
        if found:
            return [_with_relatives(each, admins) for each in found], []
        with suppress(Unavailable):
            if (emitted := emitter_of(command_id, None, admins)) is not None:
                return [], [emitted_timeline(emitted, conditions)]
    return [], [queued_timeline(condition, command_id) for condition in conditions.values()]


def _with_relatives(known: KnownCommand, admins: Mapping[str, LaneAdmin]) -> KnownCommand:
    if known.timeline.sequence is None:
        return known
    with suppress(Unavailable):
        return msgspec.structs.replace(known, timeline=with_relatives(known.timeline, admins))
    return known
