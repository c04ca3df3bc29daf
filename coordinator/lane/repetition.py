"""An id that the lane knows: the recorded outcome, or an error if it means another command now."""

import msgspec

from coordinator.lane.basis import Basis, Fate
from coordinator.lane.follow_up import continuation_of
from coordinator.lane.parking import Standing
from coordinator.lane.request import Request
from coordinator.protocol.actors import is_anothers
from coordinator.protocol.fingerprints import UNKEYED
from coordinator.protocol.wire import Defect
from coordinator.service.continuation import continued
from coordinator.service.ids import system_command_id
from coordinator.service.outcome import FORGOTTEN, Outcome, OutcomeError
from coordinator.stores.lane_tables import LogEntry
from coordinator.stores.outcomes import from_log, is_forgotten


def repeated(basis: Basis, request: Request, standing: Standing, entry: LogEntry) -> Fate:
    """The log has an entry of this id."""
    if request.parked_key is not None and standing.waiting is not None:
        basis.parking.leave(basis.work, request)
    # Nothing tells any more what a forgotten one said, nor who asked where he is forgotten, too.
    is_known = entry.type == request.message.type if is_forgotten(entry) else basis.is_same(entry.fingerprint, request)
    if not is_known or _is_anothers(entry, request):
        when = f", settled with sequence {entry.sequence}" if _may_know(entry, request) else ""
        return mismatched(basis, request, f"{entry.command_id}{when}")
    if is_forgotten(entry) and not _may_know(entry, request):
        return Fate(_untold(entry))
    return Fate(from_log(entry, replayed=True))


def _untold(entry: LogEntry) -> Outcome:
    """What anybody learns of a forgotten command by its id: neither what became of it, nor its place."""
    text = "a command with this id was settled before; its content was personal, and is forgotten"
    return Outcome(
        command_id=entry.command_id,
        type=entry.type,
        status="rejected",
        sequence=None,
        error=OutcomeError(code=FORGOTTEN, message=text),
        replayed=True,
    )


def _is_anothers(entry: LogEntry, request: Request) -> bool:
    """What became of somebody's command is told to him alone, though another may know its id and its arguments."""
    return request.message.origin == "public" and is_anothers(entry.actor, request.message.actor)


def _may_know(entry: LogEntry, request: Request) -> bool:
    """Whether whoever sends a command has sent the other one of its id, or is the system: its letters are operators'.

    Anybody else learns that the id is taken and nothing more: not whether that command is settled, nor its place.
    """
    message = request.message
    return message.origin == "system" or (message.actor is not None and message.actor.as_logged == entry.actor)


def mismatched(basis: Basis, request: Request, known: str) -> Fate:
    """The id means another command. A stranger is told so; one of the system's own fails, since somebody waits."""
    message = request.message
    defect = Defect("idempotency_mismatch", f"the id is that of another command: {known}")
    error = OutcomeError(code=defect.code, message=defect.message)
    is_ours = message.origin == "system"
    outcome = Outcome(
        command_id=message.command_id,
        type=message.type,
        status="failed" if is_ours else "rejected",
        sequence=None,
        error=error,
    )
    # The same whichever key is in use. Ids are made of it, by which nobody may prove a guess at the arguments.
    again = message.arguments if request.is_unread else None
    told_apart_by = basis.fingerprints.of_first(message, again)
    # A release before made letters without the key, and the message may come once more.
    before = UNKEYED.of(message, again)
    letter = basis.letters.mismatched(message, (told_apart_by, before), defect) if is_ours else None
    deferred = continuation_of(message)
    if letter is not None and deferred is not None:
        # Nothing of what the lane knows of the other command: told again, once the letter is gone, it is the same.
        told = OutcomeError(code=defect.code, message=f"the id is that of another command: {message.command_id}")
        emission = continued(deferred, "failed", None, told)
        # The command that has this id may have a letter of its own.
        own_id = system_command_id(emission.command_id, "mismatch", told_apart_by)
        basis.work.send_out(msgspec.structs.replace(emission, command_id=own_id))
    return Fate(outcome, letter)
