"""Recording the result of a command: in the log and, if it failed, for operators and for commands that wait.

The log's entry becomes the outcome, which anybody may get who issued the command. A text that is for operators only is
in the dead letter (`coordinator/service/unshown.py`).
"""

import msgspec

from coordinator.lane.basis import BARE, ERROR_CHARACTERS_MAX, NO_FOLLOW_UP, Basis, Blocked, Fate
from coordinator.lane.blocking import blocked_text
from coordinator.lane.delivery import Arrival, BareFailure
from coordinator.lane.follow_up import follow_up
from coordinator.lane.parking import Standing
from coordinator.lane.request import Request
from coordinator.lane.subjects import entries_of
from coordinator.lane.trying import Verdict
from coordinator.lane.unit_of_work import BatchWork
from coordinator.protocol.fields import TYPE
from coordinator.protocol.wire import Defect
from coordinator.service.commands import Command
from coordinator.service.continuation import Continuation
from coordinator.service.ids import is_system_id, is_uuid
from coordinator.service.text import storable
from coordinator.service.unshown import is_unshown, shown_outcome
from coordinator.stores.lane_tables import DeadLetter, LogEntry
from coordinator.stores.outcomes import from_log
from coordinator.stores.passages import passage_text


def recorded(basis: Basis, request: Request, standing: Standing, sequence: int, verdict: Verdict) -> Fate:
    """Write its dead letter, its parked key and its continuation; return its entry for the log."""
    message = request.message
    text = None if verdict.text is None else storable(verdict.text, ERROR_CHARACTERS_MAX)
    entry = LogEntry(
        command_id=message.command_id or "",
        sequence=sequence,
        epoch=basis.lease.epoch,
        type=message.type or "",
        fingerprint=request.fingerprint,
        status=verdict.status,
        result=None if verdict.result is None else verdict.result.decode(),
        error_code=verdict.code,
        error_message=text,
        settled_at=basis.work.now,
        actor=None if message.actor is None else message.actor.as_logged,
        passage=_passage(basis.work, request, is_applied=verdict.status == "applied"),
    )
    if verdict.status == "applied" and basis.work.audited:
        basis.work.audit_command(sequence)
    letter: DeadLetter | None = None
    bare: BareFailure | None = None
    if verdict.status == "failed":
        if request.handler is not None and request.handler.on_failure == "block" and not verdict.is_of_rule:
            reason = blocked_text(entry.command_id, entry.type, text or "")
            return Fate(None, block=Blocked(reason))
        if basis.spared < BARE:
            defect = Defect(verdict.code or "", text or "")
            letter = basis.letters.failed(message, defect, verdict.traceback, sequence)
        else:
            bare = BareFailure(entry.command_id, entry.type, verdict.code or "", text or "")
    if verdict.is_of_rule:
        # Also of one that has waited itself: whoever may not issue it waits, too, since a rule is asked in its turn.
        request = msgspec.structs.replace(request, parks_key=False)
    if (basis.parking.rows or request.parks_key) and basis.spared < BARE:
        basis.parking.settled(basis.work, request, standing, entry)
    if verdict.status == "failed" and is_unshown(verdict.code):
        shown = shown_outcome(verdict.code, text, entry.command_id)
        entry = msgspec.structs.replace(entry, error_message=shown)
    if basis.subjects.are_any and basis.spared < BARE:
        _note_subjects(basis, request, verdict, entry)
    outcome = from_log(entry, replayed=False)
    if message.continuation is not None and not verdict.is_deferred and basis.spared < NO_FOLLOW_UP:
        follow_up(basis.work, message, outcome)
    return Fate(outcome, letter, entry, bare=bare)


def _passage(work: BatchWork, request: Request, *, is_applied: bool) -> str | None:
    """How the command came here. What a failed one had emitted is taken back."""
    arrival = request.arrival
    if arrival is not work.arrival:
        # All commands of a delivery have the same.
        work.arrival, work.delivered = arrival, _delivered(work, arrival)
    is_systems = is_system_id(request.message.command_id or "")
    if not work.children and not is_systems:
        return work.delivered
    attempts = 1 if arrival is None else arrival.attempts
    delivered_ms = None if arrival is None else work.now_ms - arrival.at_ms
    result_of = request.message.result_of
    parent = result_of or (_parent(request.command) if is_systems else None)
    children = work.children if is_applied else ()
    return passage_text(delivered_ms, attempts, parent, children, is_result=result_of is not None)


def _delivered(work: BatchWork, arrival: Arrival | None) -> str | None:
    return None if arrival is None else passage_text(work.now_ms - arrival.at_ms, arrival.attempts)


def _parent(command: Command | None) -> str | None:
    """The command whose outcome has become this one. It is believed of a command with an id of the system's."""
    if not isinstance(command, Continuation):
        return None
    if not is_uuid(command.command_id) or TYPE.form.check(command.command_type) is None:
        return None
    return f"{command.command_type} {command.command_id}"


def _note_subjects(basis: Basis, request: Request, verdict: Verdict, entry: LogEntry) -> None:
    """Note whose personal data the command leaves, so that it is found when it is to be forgotten."""
    work, is_applied = basis.work, verdict.status == "applied"
    digests = verdict.subjects if is_applied else basis.subjects.of_unapplied(work, request)
    if digests:
        emitted = work.personal_emitted if is_applied else ()
        work.insert_new(entries_of(digests, entry.sequence, entry.command_id, emitted))
