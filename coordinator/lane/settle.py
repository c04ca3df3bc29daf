"""What becomes of one request: pure decisions, in the order that the protocol gives them."""

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from coordinator.lane.authors import described
from coordinator.lane.delivery import OldLetter
from coordinator.lane.letters import Letters
from coordinator.lane.orders import Orders
from coordinator.lane.parking import Parking, ordering_key
from coordinator.lane.positions import Positions
from coordinator.lane.request import Request
from coordinator.lane.trying import Verdict, continuation_of, tried
from coordinator.lane.unit_of_work import BatchWork, HandlerWork
from coordinator.protocol.wire import CommandMessage, Problem
from coordinator.service.continuation import continued
from coordinator.service.ids import system_command_id
from coordinator.service.outcome import Outcome, OutcomeError
from coordinator.service.outside_calls import EFFECTS_PREFIX
from coordinator.service.text import storable
from coordinator.stores.lane_tables import Cancellation, DeadLetter, LogEntry
from coordinator.stores.outcomes import from_log
from coordinator.stores.port import Refusal

NO_FOLLOW_UP = 1
"""A failure is recorded without the command that it continues with."""
BARE = 2
"""A failure is recorded as an entry of the log, and nothing else."""
ERROR_CHARACTERS_MAX = 2000


class Settled(Struct, frozen=True):
    """What became of one request. One that `waits` for its key has no outcome yet.

    `letter` is its dead letter, as it is in the database now; one that `is_dropped` would have been one too many.
    """

    outcome: Outcome | None
    letter: DeadLetter | None = None
    entry: LogEntry | None = None
    is_deferred: bool = False
    waits: bool = False
    is_dropped: bool = False


class Turn(Struct, frozen=True):
    """What one transaction knows while its requests are settled, one after the other.

    `takes_for_new`: the log was not asked for their ids, so that `known` is empty at first.
    """

    work: BatchWork
    handlers_work: HandlerWork
    known: dict[str, LogEntry]
    cancelled: Mapping[str, Cancellation]
    parking: Parking
    letters: Letters
    orders: Orders
    positions: Positions
    epoch: int
    parked_max: int
    takes_for_new: bool
    misread: Mapping[int, str] = {}
    """By place among the requests: what is wrong with what a handler's `reads` returned, or raised."""
    spared: int = 0
    """What is not written of a failure, since the database refused it with that: see `NO_FOLLOW_UP`, `BARE`."""


class Held(Exception):
    """Raised where an operator must act first: the lane is paused, or a command blocks it."""


class LogUnasked(Exception):
    """Raised where the log must be asked first: what has to wait, or blocks the lane, may be settled already."""


def settle_in_turn(
    turn: Turn, requests: Sequence[Request], sequence: int, culprits: Sequence[Refusal] = ()
) -> tuple[list[Settled], int, Held | None]:
    """Settle requests one after the other; also the last sequence, and why the rest must be held, if it must.

    Of the first of them the database refused what they wrote, each alone: `culprits` says how.

    Raises LogUnasked.
    """
    settled: list[Settled] = []
    parking, spared = turn.parking, turn.spared
    faults: dict[int, Refusal | str] = {**turn.misread, **dict(enumerate(culprits))}
    for place, request in enumerate(requests):
        done = settle(turn, request, sequence + 1, faults.get(place) if faults else None)
        entry = done.entry
        blocks = entry is not None and entry.status == "failed" and _blocks(request, entry)
        if turn.takes_for_new and (blocks or done.waits):
            raise LogUnasked
        if entry is not None:
            if blocks:
                held = Held(f"blocked by command {entry.command_id} ({entry.type}): {entry.error_message}")
                return settled, sequence, held
            if (parking.rows or request.parks_key) and spared < BARE:
                _note_parking(turn, request, entry)
            if request.message.continuation is not None and not done.is_deferred and spared < NO_FOLLOW_UP:
                _continue(turn.work, request.message, entry)
            sequence += 1
            turn.known[entry.command_id] = entry
        settled.append(done)
        if request.message.publisher_seq is not None and spared < BARE:
            turn.positions.advance(request.message)
    return settled, sequence, None


def _note_parking(turn: Turn, request: Request, entry: LogEntry) -> None:
    key = _key_to_keep(turn, request, entry) if entry.status == "failed" else None
    if key is None:
        turn.parking.leave(turn.work, request)
    else:
        turn.parking.fail(turn.work, request, key, entry.error_code or "", entry.error_message or "")


def _key_to_keep(turn: Turn, request: Request, entry: LogEntry) -> str | None:
    """What is to wait for a command that failed: of a replay the key that it was to release, whatever it names now."""
    head = turn.parking.replayed(entry.command_id)
    if head is not None:
        return head.ordering_key
    key, _ = _key_of(request)
    # One too many is behind what failed, and does not wait.
    is_behind = key is None or (request.parked_key is None and turn.parking.holds(key, entry.command_id))
    return key if request.parks_key and not is_behind else None


def _key_of(request: Request) -> tuple[str | None, str | None]:
    """The ordering key of a request; also what is wrong with its handler's `target`, which then names none."""
    try:
        return ordering_key(request), None
    except BaseException as error:  # noqa: BLE001  # a function of the service's author
        return None, f"target: {described(error)}"


def _continue(work: BatchWork, message: CommandMessage, entry: LogEntry) -> None:
    """Have what a settled command names go on with its outcome, if there can be such a command."""
    deferred = continuation_of(message)
    if deferred is not None:
        outcome = from_log(entry, replayed=False)
        try:
            work.send_out(continued(deferred, outcome.status, bytes(outcome.result), outcome.error))
        except ValueError:
            # There is no such lane, or its name has no room. A command that would be applied was checked before.
            return


def _blocks(request: Request, entry: LogEntry) -> bool:
    """Whether the lane must stop at this command instead of recording that it failed."""
    return entry.status == "failed" and request.handler is not None and request.handler.on_failure == "block"


def settle(turn: Turn, request: Request, sequence: int, fault: Refusal | str | None) -> Settled:
    """Apply one request, or find out why not.

    `fault` is what the database said of it when it was tried alone, or what its handler's `reads` did wrong.
    """
    message, parking = request.message, turn.parking
    if turn.spared >= BARE and (request.letter is not None or message.command_id is None):
        return Settled(None, is_dropped=True)
    if request.letter is not None:
        return _taken_in(turn, request, request.letter)
    if message.command_id is None:
        return _nameless(turn, request, request.problem or Problem("missing_command_id", "a command needs an id"))
    has_parked = bool(parking.rows)
    key, broken = _key_of(request) if has_parked or request.parks_key else (None, None)
    entry = turn.known.get(message.command_id)
    if entry is not None:
        return _repeated(turn, request, key, entry)
    cancellation = turn.cancelled.get(message.command_id)
    if has_parked and (waits := _waits(turn, request, key, cancellation)) is not None:
        return waits
    verdict = _verdict(turn, request, key, cancellation, fault or broken)
    text = None if verdict.text is None else storable(verdict.text, ERROR_CHARACTERS_MAX)
    entry = LogEntry(
        command_id=message.command_id,
        sequence=sequence,
        epoch=turn.epoch,
        type=message.type or "",
        fingerprint=request.fingerprint,
        status=verdict.status,
        result=None if verdict.result is None else verdict.result.decode(),
        error_code=verdict.code,
        error_message=text,
        settled_at=turn.work.now,
    )
    letter: DeadLetter | None = None
    if verdict.status == "failed" and turn.spared < BARE and not _blocks(request, entry):
        problem = Problem(verdict.code or "", text or "")
        letter = turn.letters.failed(message, problem, verdict.traceback, sequence)
    return Settled(from_log(entry, replayed=False), letter, entry, verdict.is_deferred)


def _taken_in(turn: Turn, request: Request, letter: OldLetter) -> Settled:
    """A letter of an older release: of a command that is known as failed, with this content, or of an effect."""
    command_id, fingerprint = request.message.command_id or "", request.fingerprint
    logged = (entry := turn.known.get(command_id)) and (entry.status, entry.fingerprint) == ("failed", fingerprint)
    is_known = logged or turn.parking.has_failed(command_id, fingerprint) or letter.target.startswith(EFFECTS_PREFIX)
    row, is_dropped = turn.letters.taken_in(request.message, letter, is_borne_out=bool(is_known))
    return Settled(None, row, is_dropped=is_dropped)


def _waits(turn: Turn, request: Request, key: str | None, cancellation: Cancellation | None) -> Settled | None:
    """Have a request wait if it must; None: it need not."""
    parking, command_id = turn.parking, request.message.command_id or ""
    if request.parked_key is not None:
        must_wait = key is not None and parking.head(key) is not None and cancellation is None
        return _WAITS if must_wait else None
    waiting = parking.waiting(command_id)
    if waiting is not None:
        return _WAITS if waiting.fingerprint == request.fingerprint else _mismatch(turn, request, command_id)
    if key is None or cancellation is not None or not parking.holds(key, command_id):
        return None
    if len(parking) >= turn.parked_max or _number_refused(turn, request.message) is not None:
        return None
    parking.wait(turn.work, request, key)
    return _WAITS


def _verdict(  # one return for each answer of the protocol
    turn: Turn, request: Request, key: str | None, cancellation: Cancellation | None, fault: Refusal | str | None
) -> Verdict:
    message, work = request.message, turn.work
    if cancellation is not None:
        if turn.spared < BARE:
            work.drop(cancellation)
        return Verdict("rejected", "cancelled", f"cancelled by an operator: {cancellation.reason}")
    if request.problem is not None or key is not None or message.publisher_seq is not None:
        refusal = _refusal(turn, request, key)
        if refusal is not None:
            return refusal
    if isinstance(fault, Refusal):
        return Verdict("failed", "database_refused", str(fault))
    if message.deadline_ms is not None and work.now.timestamp() * 1000 > message.deadline_ms:
        return Verdict("expired", "deadline_expired", "the deadline had passed when the command's turn came")
    if fault is not None:
        return Verdict("failed", "handler_error", fault)
    return tried(work, turn.handlers_work, turn.orders, request)


def _refusal(turn: Turn, request: Request, key: str | None) -> Verdict | None:
    """Why a command is not even tried."""
    refused = _number_refused(turn, request.message)
    if refused is not None:
        return refused
    if request.problem is not None:
        return Verdict("failed", request.problem.code, request.problem.message)
    if key is not None and request.parked_key is None and turn.parking.holds(key, request.message.command_id or ""):
        return Verdict("rejected", "too_many_parked", f"{len(turn.parking)} commands wait behind failed ones already")
    return None


def _number_refused(turn: Turn, message: CommandMessage) -> Verdict | None:
    """Why the number of its publisher's session keeps a command from being applied, and from waiting to be."""
    if message.publisher_seq is None:
        return None
    named = f"number {message.publisher_seq} of publisher {message.publisher}"
    if turn.positions.is_settled(message):
        return Verdict("rejected", "publisher_seq_settled", f"{named} is settled already, or below 1")
    if turn.positions.leaves_too_many_gaps(message):
        text = f"{named} leaves too many others out: publish those first, or begin another session"
        return Verdict("rejected", "too_many_gaps", text)
    return None


def _nameless(turn: Turn, request: Request, problem: Problem) -> Settled:
    """A message without an id cannot be deduplicated, so it is not applied and not logged."""
    letter = turn.letters.nameless(request.message, problem)
    error = OutcomeError(code=problem.code, message=storable(problem.message, ERROR_CHARACTERS_MAX))
    outcome = Outcome(command_id=None, type=request.message.type, status="failed", sequence=None, error=error)
    return Settled(outcome, letter, is_dropped=letter is None)


def _repeated(turn: Turn, request: Request, key: str | None, entry: LogEntry) -> Settled:
    """An id that the log knows: the recorded outcome, or a refusal if it now means something else."""
    if request.parked_key is not None and key is not None and turn.parking.waiting(entry.command_id) is not None:
        turn.parking.leave(turn.work, request)
    if entry.fingerprint != request.fingerprint:
        return _mismatch(turn, request, f"{entry.command_id}, settled with sequence {entry.sequence}")
    return Settled(from_log(entry, replayed=True))


def _mismatch(turn: Turn, request: Request, known: str) -> Settled:
    """The id means another command. A stranger is told; for the system's own somebody waits, so it is never silent."""
    message = request.message
    problem = Problem("idempotency_mismatch", f"the id is that of another command: {known}")
    error = OutcomeError(code=problem.code, message=problem.message)
    is_ours = message.origin == "system"
    outcome = Outcome(
        command_id=message.command_id,
        type=message.type,
        status="failed" if is_ours else "rejected",
        sequence=None,
        error=error,
    )
    letter = turn.letters.mismatched(message, request.fingerprint, problem) if is_ours else None
    deferred = continuation_of(message)
    if letter is not None and deferred is not None:
        emission = continued(deferred, "failed", None, error)
        # The command that has this id may have one of its own.
        own_id = system_command_id(emission.command_id, "mismatch", request.fingerprint)
        turn.work.send_out(msgspec.structs.replace(emission, command_id=own_id))
    return Settled(outcome, letter)


_WAITS = Settled(None, waits=True)
