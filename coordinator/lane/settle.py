"""What becomes of one request: pure decisions, in the order that the protocol gives them."""

import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from coordinator.lane.delivery import DeadLetter
from coordinator.lane.request import Request
from coordinator.lane.unit_of_work import BatchWork
from coordinator.stores.port import BatchFault, StoreError
from shared.errors import Rejected
from shared.lane_tables import Cancellation, LogEntry
from shared.messaging.outcome import Outcome, OutcomeError, from_log
from shared.messaging.wire import Problem
from shared.rows import Ref, Row, VersionedRow
from shared.unit_of_work import Handler

ERROR_CHARACTERS_MAX = 2000
TRACEBACK_CHARACTERS_MAX = 8000


class Settled(Struct, frozen=True):
    """What became of one request."""

    outcome: Outcome
    dead_letter: DeadLetter | None = None
    entry: LogEntry | None = None


class Verdict(Struct, frozen=True):
    """A status with what goes with it."""

    status: str
    code: str | None = None
    text: str | None = None
    result: bytes | None = None
    traceback: str | None = None


def settle(
    work: BatchWork,
    request: Request,
    known: Mapping[str, LogEntry],
    cancelled: Mapping[str, Cancellation],
    epoch: int,
    sequence: int,
    fault: BatchFault | None,
) -> Settled:
    """Apply one request, or find out why not; `fault` is what the database said of it when it was tried alone."""
    message = request.message
    if message.command_id is None:
        return _nameless(request, request.problem or Problem("missing_command_id", "a command needs an id"))
    entry = known.get(message.command_id)
    if entry is not None:
        return _repeated(request, entry)
    verdict = _verdict(work, request, cancelled.get(message.command_id), fault)
    text = None if verdict.text is None else _storable(verdict.text)
    entry = LogEntry(
        command_id=message.command_id,
        sequence=sequence,
        epoch=epoch,
        type=message.type or "",
        fingerprint=request.fingerprint,
        status=verdict.status,
        result=None if verdict.result is None else verdict.result.decode(),
        error_code=verdict.code,
        error_message=text,
        settled_at=work.now,
    )
    dead_letter = None
    if verdict.status == "failed":
        dead_letter = DeadLetter(message, verdict.code or "", text or "", verdict.traceback, sequence)
    return Settled(from_log(entry, replayed=False), dead_letter, entry)


def _verdict(  # noqa: PLR0911  # one return for each answer of the protocol
    work: BatchWork, request: Request, cancellation: Cancellation | None, fault: BatchFault | None
) -> Verdict:
    message = request.message
    if cancellation is not None:
        work.adopt(Cancellation, cancellation.command_id, cancellation)
        work.remove(cancellation)
        return Verdict("rejected", "cancelled", f"cancelled by an operator: {cancellation.reason}")
    if request.problem is not None:
        return Verdict("failed", request.problem.code, request.problem.message)
    if fault is not None:
        return Verdict("failed", "database_refused", str(fault))
    if message.deadline_ms is not None and work.now.timestamp() * 1000 > message.deadline_ms:
        return Verdict("expired", "deadline_expired", "the deadline had passed when the command's turn came")
    work.begin_command(message.command_id or "")
    try:
        result = _handle(work, request)
        return Verdict("applied", result=msgspec.json.encode(result))
    except Rejected as rejection:
        work.undo()
        return Verdict("rejected", rejection.code, str(rejection))
    except StoreError:
        raise
    except Exception as error:  # noqa: BLE001  # whatever a handler does must not stop the lane
        work.undo()
        trace = traceback.format_exc()[-TRACEBACK_CHARACTERS_MAX:]
        return Verdict("failed", "handler_error", f"{type(error).__name__}: {error}", traceback=trace)


def _handle(work: BatchWork, request: Request) -> Struct | None:
    handler: Handler[Any] | None = request.handler
    if handler is None or request.command is None:
        raise TypeError("a request without a problem has a handler and a command")
    expected = request.message.expected_version
    if expected is not None:
        if handler.target is None:
            raise Rejected("expected_version_unsupported", f"{request.message.type} has no version to expect")
        _check_version(work, handler.target(request.command), expected)
    return handler.handle(work, request.command)


def _check_version(work: BatchWork, target: Ref[Row], expected: int) -> None:
    row = work.find(target.model, target.column, target.value)
    # A row that is not there is the handler's to refuse, in its own words.
    if isinstance(row, VersionedRow) and row.version != expected:
        raise Rejected(
            "version_conflict",
            f"{target.model.table} {target.value} has version {row.version}, not {expected}",
        )


def reads(requests: Sequence[Request]) -> list[Ref[Row]]:
    """The rows that the commands of some requests name."""
    refs: list[Ref[Row]] = []
    for request in requests:
        if request.handler is None:
            continue
        try:
            refs.extend(request.handler.reads(request.command))
        except Exception:  # noqa: BLE001, S112  # the handler will meet the same error, where it is recorded
            continue
    return refs


def _nameless(request: Request, problem: Problem) -> Settled:
    """A message without an id cannot be deduplicated, so it is not applied and not logged."""
    error = OutcomeError(code=problem.code, message=problem.message)
    return Settled(
        Outcome(command_id=None, type=request.message.type, status="failed", sequence=None, error=error),
        DeadLetter(request.message, problem.code, problem.message, None, None),
    )


def _repeated(request: Request, entry: LogEntry) -> Settled:
    """An id that the log knows: the recorded outcome, or a refusal if it now means something else."""
    if entry.fingerprint != request.fingerprint:
        error = OutcomeError(
            code="idempotency_mismatch",
            message=f"the id {entry.command_id} is that of another command, settled with sequence {entry.sequence}",
        )
        return Settled(
            Outcome(
                command_id=entry.command_id,
                type=request.message.type,
                status="rejected",
                sequence=None,
                error=error,
            )
        )
    dead_letter = None
    if entry.status == "failed" and request.redelivered:
        # Whoever settled it may have died, or lost its database, between the commit and the dead letter's confirm.
        dead_letter = DeadLetter(
            request.message, entry.error_code or "", entry.error_message or "", None, entry.sequence
        )
    return Settled(from_log(entry, replayed=True), dead_letter)


def _storable(text: str) -> str:
    """Text that every database takes: no NUL, no lone surrogates, not too long."""
    return text[:ERROR_CHARACTERS_MAX].replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
