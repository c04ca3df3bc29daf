"""The way of a command through its transaction: pure decisions, in the order that the protocol gives them.

Each answer has a module of its own: a message that is only kept (`unapplied`), an id that the log knows (`repetition`),
a command that only a newer release knows (`newer`), a key that others wait for (`waiting_for_key`), an answer without a
try (`untried`). Any other command is tried (`trying`). The answers of the last two are recorded (`recording`).
"""

from collections.abc import Sequence

import msgspec

from coordinator.lane.basis import BARE, Basis, Blocked, Fate
from coordinator.lane.handler_work import end
from coordinator.lane.newer import is_announced, outdated_by
from coordinator.lane.parking import ALONE
from coordinator.lane.recording import recorded
from coordinator.lane.repetition import repeated
from coordinator.lane.request import Request
from coordinator.lane.traced import may_be_traced
from coordinator.lane.trying import tried
from coordinator.lane.unapplied import kept
from coordinator.lane.untried import is_past_trying, untried
from coordinator.lane.waiting_for_key import refused_at_once, waits
from coordinator.runtime.recording import recorder
from coordinator.stores.port import Refusal


def settle_in_order(
    basis: Basis, requests: Sequence[Request], sequence: int, culprits: Sequence[Refusal] = ()
) -> tuple[list[Fate], int, Blocked | None]:
    """Settle requests one after the other; returns also the last sequence, and the block that stops before the rest.

    The first requests are culprits, each of which the database refused alone: `culprits` has its refusals. Handlers may
    use their unit of work until then.
    """
    fates: list[Fate] = []
    faults: dict[int, Refusal | str] = {**basis.misread, **dict(enumerate(culprits))}
    recording = recorder()
    try:
        for place, request in enumerate(requests):
            noting = None if recording is None or not may_be_traced(request.message) else recording
            began_ns = 0 if noting is None else noting.clock_ns()
            fate = settle(basis, request, sequence + 1, faults.get(place) if faults else None)
            if noting is not None and fate.entry is not None:
                fate = msgspec.structs.replace(fate, applied_ns=(began_ns, noting.clock_ns()))
            if fate.block is not None:
                return fates, sequence, fate.block
            entry = fate.entry
            if entry is not None:
                sequence += 1
                basis.known[entry.command_id] = entry
            fates.append(fate)
            if request.message.publisher_seq is not None and basis.spared < BARE:
                basis.progress.advance(request.message)
    finally:
        end(basis.handlers_work, basis.reading_work)
    return fates, sequence, None


def settle(basis: Basis, request: Request, sequence: int, fault: Refusal | str | None) -> Fate:
    """Apply one request, or find out why not.

    `fault` is the database's refusal when the request was tried alone, or the fault of its handler's `reads`.
    """
    command_id, parking = request.message.command_id, basis.parking
    if request.letter is not None or command_id is None:
        return kept(basis, request)
    standing = parking.standing(request) if parking.rows or request.parks_key else ALONE
    entry = basis.known.get(command_id)
    if entry is not None:
        return repeated(basis, request, standing, entry)
    if not basis.fingerprints.is_made_now(request.fingerprint):
        # The lane had other keys when it was prepared, which may be lost with the copy of the database that had them.
        again = basis.fingerprints.of(request.message)
        request = msgspec.structs.replace(request, fingerprint=again)
    cancellation = basis.cancelled.get(command_id)
    may_wait = request.is_newer and cancellation is None and not is_past_trying(basis, request.message)
    if may_wait and is_announced(basis.work, request):
        return Fate(None, block=outdated_by(request, basis.work.targets))
    verdict = None
    if parking.rows:
        verdict = refused_at_once(basis, request, standing, cancellation)
        if verdict is None and (waiting := waits(basis, request, standing, cancellation)) is not None:
            return waiting
    verdict = verdict or untried(basis, request, standing, cancellation, fault) or tried(basis, request)
    return recorded(basis, request, standing, sequence, verdict)
