"""Messages that are kept as dead letters and never applied: letters of an older release, and messages without an id."""

from coordinator.lane.basis import BARE, ERROR_CHARACTERS_MAX, Basis, Fate
from coordinator.lane.delivery import OldLetter
from coordinator.lane.request import Request
from coordinator.protocol.wire import Defect
from coordinator.service.outcome import Outcome, OutcomeError
from coordinator.service.outside_calls import EFFECTS_PREFIX
from coordinator.service.text import storable
from coordinator.service.unshown import shown_outcome


def kept(basis: Basis, request: Request) -> Fate:
    """Keep such a message as a dead letter, unless the database has already refused to."""
    if basis.spared >= BARE:
        return Fate(None, is_dropped=True)
    if request.letter is not None:
        return _taken_in(basis, request, request.letter)
    return _nameless(basis, request, request.defect or Defect("missing_command_id", "a command needs an id"))


def _taken_in(basis: Basis, request: Request, letter: OldLetter) -> Fate:
    """Take in a letter of an older release: of an effect, or of a command known as failed with this content."""
    entry = basis.known.get(request.message.command_id or "")
    is_known = (
        (entry is not None and entry.status == "failed" and basis.is_same(entry.fingerprint, request))
        or basis.parking.has_failed(request, basis.fingerprints)
        or letter.target.startswith(EFFECTS_PREFIX)
    )
    row, is_dropped = basis.letters.taken_in(request.message, letter, is_borne_out=is_known)
    return Fate(None, row, is_dropped=is_dropped)


def _nameless(basis: Basis, request: Request, defect: Defect) -> Fate:
    """A message without an id cannot be deduplicated, so it is not applied and not logged."""
    letter = basis.letters.nameless(request.message, defect)
    shown = shown_outcome(defect.code, defect.message, None) or ""
    error = OutcomeError(code=defect.code, message=storable(shown, ERROR_CHARACTERS_MAX))
    outcome = Outcome(command_id=None, type=request.message.type, status="failed", sequence=None, error=error)
    return Fate(outcome, letter, is_dropped=letter is None)
