"""The answer to a command that has to wait behind others with its key."""

from coordinator.lane.basis import Basis, Fate
from coordinator.lane.parking import Standing
from coordinator.lane.repetition import mismatched
from coordinator.lane.request import Request, is_same
from coordinator.lane.untried import verdict_on_number
from coordinator.stores.lane_tables import Cancellation

_WAITS = Fate(None)


def waits(basis: Basis, request: Request, standing: Standing, cancellation: Cancellation | None) -> Fate | None:
    """Have a command wait if it must; None: it need not wait, or there is no room for it."""
    if request.parked_key is not None:
        return _WAITS if standing.is_behind and cancellation is None else None
    if standing.waiting is not None:
        if is_same(standing.waiting.fingerprint, request):
            return _WAITS
        return mismatched(basis, request, standing.waiting.command_id)
    if not standing.is_behind or cancellation is not None:
        return None
    if basis.parking.waiting >= basis.parked_max or verdict_on_number(basis, request.message) is not None:
        return None
    basis.parking.wait(basis.work, request, standing)
    return _WAITS
