"""The answer to a command that has to wait behind others with its key."""

from coordinator.lane.allowed import refuse_without_rows
from coordinator.lane.basis import Basis, Fate
from coordinator.lane.parking import NONE_WAIT, Standing
from coordinator.lane.repetition import mismatched
from coordinator.lane.request import Request
from coordinator.lane.trying import Verdict
from coordinator.lane.untried import verdict_on_number
from coordinator.service.allowing import anybody
from coordinator.service.errors import Rejected
from coordinator.stores.lane_tables import Cancellation

_WAITS = Fate(None)


def waits(basis: Basis, request: Request, standing: Standing, cancellation: Cancellation | None) -> Fate | None:
    """Have a command wait if it must; None: it need not wait, or there is no room for it."""
    if request.parked_key is not None:
        return _WAITS if standing.is_behind and cancellation is None else None
    if standing.waiting is not None:
        if basis.is_same(standing.waiting.fingerprint, request):
            return _WAITS
        return mismatched(basis, request, standing.waiting.command_id)
    if not standing.is_behind or cancellation is not None:
        return None
    if not has_room(basis, request) or verdict_on_number(basis, request.message) is not None:
        return None
    basis.parking.wait(basis.work, request, standing)
    return _WAITS


def has_room(basis: Basis, request: Request) -> bool:
    """Whether one more may wait: somebody has as much of the room as he leaves free for the others.

    A rule that looks at rows is asked when a command's turn comes, for the rows as they are then. So whoever would be
    refused by it waits, too, and must not take the place of those who would not.
    """
    parking, message = basis.parking, request.message
    own = parking.waiting_of(message.actor) if _has_share(request) else NONE_WAIT
    left = basis.parked_max - parking.waiting.commands
    left_bytes = basis.parked_bytes_max - parking.waiting.size_bytes
    return own.commands < left and own.size_bytes + len(message.arguments) <= left_bytes


def _has_share(request: Request) -> bool:
    """What the system says to itself has all of the room, and so has everybody where nobody is asked who he is."""
    if request.message.origin == "system":
        return False
    return request.message.actor is not None or (request.handler is not None and request.handler.allow is anybody)


def refused_at_once(
    basis: Basis, request: Request, standing: Standing, cancellation: Cancellation | None
) -> Verdict | None:
    """The refusal of a command that would wait, and that its actor may not issue whatever it waits for: those who may
    need the room. None: it is not certain."""
    is_to_wait = standing.is_behind and standing.waiting is None and request.parked_key is None and cancellation is None
    if not is_to_wait or verdict_on_number(basis, request.message) is not None:
        return None
    try:
        refuse_without_rows(request)
    except Rejected as refusal:
        return Verdict("rejected", refusal.code, str(refusal))
    return None
