"""The lane: applies commands in order, exactly once, in transactions that it groups.

It is given deliveries, a store and a clock, and returns what to do with them (`Decision`). It holds no queue, no thread
and no socket, so that the same code runs under RabbitMQ, in a monolith, in tests and in simulation.
"""

import traceback
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from coordinator.lane.delivery import DeadLetter, Decision, Delivery, Deposed, Hold, Reply, Settlement
from coordinator.lane.request import Handlers, Request, prepare
from coordinator.lane.unit_of_work import BatchWork
from coordinator.stores.port import (
    BatchFault,
    Changes,
    Conflict,
    Fenced,
    Lease,
    Store,
    StoreError,
    StoreUnavailable,
    Transaction,
)
from shared.errors import Rejected
from shared.lane_tables import LogEntry, OutboxEntry
from shared.messaging.outcome import Outcome, OutcomeError, from_log
from shared.messaging.wire import Problem
from shared.rows import Ref, Row, VersionedRow
from shared.service import Service
from shared.settings import LaneSettings
from shared.unit_of_work import Handler

ERROR_CHARACTERS_MAX = 2000
TRACEBACK_CHARACTERS_MAX = 8000
OUTBOX_SCAN_MAX = 1000
_CONFLICT_DELAY_S = 0.01

Clock = Callable[[], datetime]
"""The time in UTC, to the millisecond."""


class _Settled(Struct, frozen=True):
    """What became of one request."""

    outcome: Outcome
    dead_letter: DeadLetter | None = None
    entry: LogEntry | None = None


class _Committed(Struct):
    """What the transactions of one call to `apply` have done so far."""

    settled: list[_Settled]
    emitted: list[OutboxEntry]
    saved: list[Row]
    removed: list[Row]


class Lane:
    """One lane as its active consumer runs it. Used by one thread."""

    def __init__(self, service: Service, store: Store, clock: Clock, holder: str, settings: LaneSettings) -> None:
        self._handlers: Handlers = {handler.command.type: handler for handler in service.handlers}
        self._store = store
        self._clock = clock
        self._holder = holder
        self._settings = settings
        self._lease: Lease | None = None
        self._lease_in_doubt: Lease | None = None
        self._failures = 0
        self._published: list[OutboxEntry] = []

    @property
    def lease(self) -> Lease | None:
        """The lease, while there is one that is not in doubt."""
        return self._lease

    def depose(self) -> None:
        """Forget the lease: the next batch takes the lane over, as one does when the broker begins to deliver."""
        self._lease = self._lease_in_doubt = None

    def activate(self) -> list[OutboxEntry] | Hold:
        """Take the lane over, and return what the last consumer left in the outbox.

        Called when the broker delivers to this consumer, which it does to one at a time.
        """
        try:
            self._lease = self._store.take_over(self._holder, self._clock())
            self._lease_in_doubt = None
            transaction = self._store.begin()
            left = transaction.scan(OutboxEntry, OUTBOX_SCAN_MAX)
            transaction.rollback()
        except (StoreUnavailable, Conflict) as error:
            self._lease = None
            return self._hold(error)
        self._failures = 0
        return left

    def confirm(self, entries: Sequence[OutboxEntry]) -> None:
        """The broker has these emitted commands: the next transaction removes them from the outbox."""
        self._published.extend(entries)

    def apply(self, deliveries: Sequence[Delivery]) -> Decision:
        """Apply the commands of some deliveries, in order.

        A Settlement means that all of them are settled and on disk. Anything else means that the same deliveries must
        be offered again, here (Hold) or by the broker to whoever has the lane now (Deposed).
        """
        requests = [
            prepare(message, self._handlers, redelivered=delivery.redelivered)
            for delivery in deliveries
            for message in delivery.commands
        ]
        committed = _Committed([], [], [], [])
        try:
            self._hold_lease()
            self._apply_or_bisect(requests, committed)
        except Fenced:
            self.depose()
            return Deposed()
        except (StoreUnavailable, Conflict, BatchFault) as error:
            return self._hold(error)
        self._failures = 0
        return _settlement(deliveries, committed)

    def sweep(self) -> Hold | Deposed | None:
        """Remove confirmed entries from the outbox now, for want of a batch to do it with."""
        if not self._published:
            return None
        try:
            self._hold_lease()
            self._transact([], _Committed([], [], [], []), None)
        except Fenced:
            self.depose()
            return Deposed()
        except (StoreUnavailable, Conflict, BatchFault) as error:
            return self._hold(error)
        return None

    def _hold_lease(self) -> None:
        if self._lease is None:
            now = self._clock()
            if self._lease_in_doubt is not None:
                self._lease = self._store.renew(self._holder, now, self._lease_in_doubt.epoch)
            else:
                self._lease = self._store.take_over(self._holder, now)
            self._lease_in_doubt = None

    def _hold(self, error: Exception) -> Hold:
        """Try again later. After a failure whose outcome is not certain the lease is in doubt, to be renewed first."""
        if isinstance(error, StoreUnavailable):
            if self._lease is not None:
                self._lease_in_doubt, self._lease = self._lease, None
            first = self._settings.retry_delay_s
        else:
            first = _CONFLICT_DELAY_S
        delay_s = min(first * 2 ** min(self._failures, 16), self._settings.retry_delay_s_max)
        self._failures += 1
        return Hold(delay_s, f"{type(error).__name__}: {error}")

    def _apply_or_bisect(self, requests: Sequence[Request], committed: _Committed) -> None:
        """One transaction for all; when something in it is at fault, two for the halves, down to the culprit."""
        try:
            self._transact(requests, committed, None)
        except BatchFault as fault:
            if len(requests) == 1:
                self._transact(requests, committed, fault)
                return
            middle = len(requests) // 2
            self._apply_or_bisect(requests[:middle], committed)
            self._apply_or_bisect(requests[middle:], committed)

    def _transact(self, requests: Sequence[Request], committed: _Committed, fault: BatchFault | None) -> None:
        """Settle requests in one transaction. With a fault, the one request is the culprit and is not applied."""
        lease = self._lease
        if lease is None:
            raise StoreUnavailable("the lane has no lease")
        transaction = self._store.begin()
        try:
            now = self._clock()
            work = BatchWork(transaction, now)
            known = _known(transaction, requests)
            if fault is None:
                work.prefetch(_reads(requests, known))
            settled: list[_Settled] = []
            sequence = lease.sequence
            for request in requests:
                done = self._settle(work, request, known, lease.epoch, sequence + 1, fault)
                settled.append(done)
                if done.entry is not None:
                    sequence += 1
                    known[done.entry.command_id] = done.entry
            work.insert_new([done.entry for done in settled if done.entry is not None])
            published = self._published
            changes = work.changes()
            if published:
                changes = msgspec.structs.replace(changes, deletes=[*changes.deletes, published])
            if sequence > lease.sequence or published:
                transaction.commit(lease, sequence, changes)
            else:
                transaction.rollback()
        except BaseException:
            transaction.rollback()
            raise
        self._published = []
        self._lease = Lease(lease.epoch, sequence)
        _record(committed, settled, changes)

    def _settle(
        self,
        work: BatchWork,
        request: Request,
        known: dict[str, LogEntry],
        epoch: int,
        sequence: int,
        fault: BatchFault | None,
    ) -> _Settled:
        """Decide about one request: the order of these questions is the protocol's."""
        message = request.message
        if message.command_id is None:
            problem = request.problem or Problem("missing_command_id", "a command needs an id")
            return _nameless(request, problem)
        entry = known.get(message.command_id)
        if entry is not None:
            return _repeated(request, entry)
        result: Struct | None = None
        status, code, text, trace = "applied", None, None, None
        if request.problem is not None:
            status, code, text = "failed", request.problem.code, request.problem.message
        elif fault is not None:
            status, code, text = "failed", "database_refused", str(fault)
        elif message.deadline_ms is not None and work.now.timestamp() * 1000 > message.deadline_ms:
            status, code, text = (
                "expired",
                "deadline_expired",
                "the deadline had passed when the command's turn came",
            )
        else:
            work.begin_command(message.command_id)
            try:
                result = _handle(work, request)
                encoded = msgspec.json.encode(result)
            except Rejected as rejection:
                work.undo()
                status, code, text = "rejected", rejection.code, str(rejection)
            except StoreError:
                raise
            except Exception as error:  # noqa: BLE001  # whatever a handler does must not stop the lane
                work.undo()
                status, code, text = "failed", "handler_error", f"{type(error).__name__}: {error}"
                trace = _tail(traceback.format_exc(), TRACEBACK_CHARACTERS_MAX)
        text = None if text is None else _storable(text)
        entry = LogEntry(
            command_id=message.command_id,
            sequence=sequence,
            epoch=epoch,
            type=message.type or "",
            fingerprint=request.fingerprint,
            status=status,
            result=encoded.decode() if status == "applied" else None,
            error_code=code,
            error_message=text,
            settled_at=work.now,
        )
        dead_letter = None
        if status == "failed":
            dead_letter = DeadLetter(message, code or "", text or "", trace, sequence)
        return _Settled(from_log(entry, replayed=False), dead_letter, entry)


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


def _known(transaction: Transaction, requests: Sequence[Request]) -> dict[str, LogEntry]:
    """What the log says about the ids of a batch."""
    ids = list({request.message.command_id: None for request in requests if request.message.command_id is not None})
    if not ids:
        return {}
    return {entry.command_id: entry for entry in transaction.load(LogEntry, LogEntry.key, ids)}


def _reads(requests: Sequence[Request], known: dict[str, LogEntry]) -> list[Ref[Row]]:
    """The rows that the new commands of a batch name."""
    refs: list[Ref[Row]] = []
    for request in requests:
        if request.handler is None or request.message.command_id in known:
            continue
        try:
            refs.extend(request.handler.reads(request.command))
        except Exception:  # noqa: BLE001, S112  # the handler will meet the same error, where it is recorded
            continue
    return refs


def _nameless(request: Request, problem: Problem) -> _Settled:
    """A message without an id cannot be deduplicated, so it is not applied and not logged."""
    error = OutcomeError(code=problem.code, message=problem.message)
    return _Settled(
        Outcome(command_id=None, type=request.message.type, status="failed", sequence=None, error=error),
        DeadLetter(request.message, problem.code, problem.message, None, None),
    )


def _repeated(request: Request, entry: LogEntry) -> _Settled:
    """An id that the log knows: the recorded outcome, or a refusal if it now means something else."""
    if entry.fingerprint != request.fingerprint:
        error = OutcomeError(
            code="idempotency_mismatch",
            message=f"the id {entry.command_id} is that of another command, settled with sequence {entry.sequence}",
        )
        return _Settled(
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
        # The consumer before us may have died between its commit and the confirm of the dead letter.
        dead_letter = DeadLetter(
            request.message, entry.error_code or "", entry.error_message or "", None, entry.sequence
        )
    return _Settled(from_log(entry, replayed=True), dead_letter)


def _record(committed: _Committed, settled: list[_Settled], changes: Changes) -> None:
    committed.settled.extend(settled)
    for rows in (*changes.updates, *changes.inserts):
        for row in rows:
            if isinstance(row, OutboxEntry):
                committed.emitted.append(row)
            elif not isinstance(row, LogEntry):
                committed.saved.append(row)
    for rows in changes.deletes:
        committed.removed.extend(row for row in rows if not isinstance(row, OutboxEntry))


def _settlement(deliveries: Sequence[Delivery], committed: _Committed) -> Settlement:
    """Put the outcomes back together by delivery."""
    replies: list[Reply] = []
    position = 0
    for delivery in deliveries:
        after = position + len(delivery.commands)
        if delivery.reply_to is not None:
            outcomes = [done.outcome for done in committed.settled[position:after]]
            replies.append(Reply(delivery.reply_to, delivery.correlation_id, delivery.reply_packs, outcomes))
        position = after
    return Settlement(
        last_tag=deliveries[-1].tag,
        outcomes=[done.outcome for done in committed.settled],
        replies=replies,
        dead_letters=[done.dead_letter for done in committed.settled if done.dead_letter is not None],
        emitted=committed.emitted,
        saved=committed.saved,
        removed=committed.removed,
    )


def _storable(text: str) -> str:
    """Text that every database takes: no NUL, no lone surrogates, not too long."""
    return text[:ERROR_CHARACTERS_MAX].replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def _tail(text: str, characters_max: int) -> str:
    return text if len(text) <= characters_max else "…" + text[-characters_max:]
