"""The transactions of a lane: the next commands of a window, tried together, and what follows from the answer."""

from collections.abc import Collection, Sequence
from types import TracebackType

import msgspec
from msgspec import Struct

from coordinator.lane.basis import Basis, Settled
from coordinator.lane.committed import Committed, counters_in, emitted_by
from coordinator.lane.letters import Letters
from coordinator.lane.orders import Orders
from coordinator.lane.outbox import Outbox, Page
from coordinator.lane.parking import Parking, prepared
from coordinator.lane.publisher_order import PublisherOrder
from coordinator.lane.publisher_progress import PublisherProgress
from coordinator.lane.reading import announced_again, known_entries, letter_refs, named_rows
from coordinator.lane.request import Handlers, Request
from coordinator.lane.settle import settle_in_order
from coordinator.lane.tenancy import Clock, Tenancy
from coordinator.lane.unit_of_work import OUTBOX_SERIES, BatchWork, HandlerWork
from coordinator.lane.window import Window, WindowSize
from coordinator.runtime.settings import LaneSettings
from coordinator.service.errors import ConfigurationError
from coordinator.service.rows import R, Ref, Row
from coordinator.service.service import Service
from coordinator.stores.lane_tables import Cancellation, Counter, OutboxEntry, ParkedCommand, PublisherPosition
from coordinator.stores.port import BatchFault, BatchRefused, Changes, Read, Refusal, Store, StoreError, Transaction
from coordinator.stores.row_checks import RowChecks

_PAGE_ROWS = 5000


class _Begun:
    """A transaction that is rolled back at every error."""

    __slots__ = ("_transaction",)

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def __enter__(self) -> Transaction:
        return self._transaction

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            return
        self._transaction.rollback()
        if isinstance(error, Exception) and not isinstance(error, StoreError | ConfigurationError):
            # Whatever it is that the lane itself cannot make of one of them, such as a row of its own: that one is the
            # culprit, is recorded with less, and ends nothing.
            raise BatchFault(f"{type(error).__name__}: {error}") from error


class _Written(Struct, frozen=True):
    """What a transaction has committed, beside what became of its requests."""

    changes: Changes
    positions: list[PublisherPosition]
    confirmed: list[OutboxEntry]
    pages: list[tuple[Page, list[OutboxEntry]]]


class Transactions:
    """What a lane knows while it has its lease, and how it commits."""

    def __init__(
        self,
        service: Service,
        store: Store,
        clock: Clock,
        settings: LaneSettings,
        handlers: Handlers,
        targets: Collection[str] | None,
        tenancy: Tenancy,
        order: PublisherOrder,
    ) -> None:
        self._name = service.name
        self._store = store
        self._clock = clock
        self._settings = settings
        self._handlers = handlers
        self._targets = targets
        self._tenancy = tenancy
        self._order = order
        self.checks = RowChecks(service.metadata)
        self.outbox = Outbox(settings.outbox_max)
        self.window_size = WindowSize(settings.batch_commands_max)
        self.inherited = 0
        """The last emitted command that is older than the lease."""
        self._cancelled: dict[str, Cancellation] = {}
        self._parking = Parking()
        self._counters: dict[str, Counter] = {}
        self._asks_log = True

    def begin_again(self) -> None:
        """The lease is new, or was in doubt: read what others, or lost commits of this consumer, have left."""
        transaction = self._store.begin()
        try:
            cancelled = _all(transaction, Cancellation)
            backlog = transaction.backlog()
            parked = _all(transaction, ParkedCommand)
            (emitted,) = transaction.load([Read(Counter, Counter.key, [OUTBOX_SERIES])])
        finally:
            transaction.rollback()
        self._cancelled = {cancellation.command_id: cancellation for cancellation in cancelled}
        self._parking = Parking(parked)
        self._counters = {}
        self.inherited = sum(counter.value for counter in emitted)
        self._asks_log = True
        self.outbox.begin_again(each.target for each in backlog)

    @property
    def has_ready(self) -> bool:
        """Whether there are commands that need not wait for their key any more."""
        return bool(self._parking.ready())

    def ready(self) -> list[Request]:
        """As many of them as a window takes, in order."""
        rows = self._parking.ready()[: self.window_size.commands]
        return [prepared(row, self._handlers, self._targets) for row in rows]

    def advance(self, window: Window, into: Committed) -> None:
        """Try one transaction, and draw the conclusions.

        Raises Blocked at a command that blocks the lane, once what comes before it is committed; BatchRefused to have
        the same transaction tried again, after a pause; StoreError.
        """
        if window.known is None and self._are_most_likely_new(window.requests):
            self._take_for_new(window, into)
        else:
            self._ask_and_apply(window, into)

    def search(self, window: Window, size: int, refusal: Refusal) -> None:
        """Try less of what is refused next, or name the culprit."""
        if isinstance(refusal, BatchRefused) and size > 1:
            # It may be too much for a time limit.
            self.window_size.shrink(size)
        window.refused(size, refusal)

    def sweep(self) -> Committed:
        """Remove confirmed entries from the outbox, and read what there is room for."""
        swept = Committed()
        with _Begun(self._store.begin()) as transaction:
            basis, _ = self._basis(transaction, Window(), (), 0)
            written = self._commit(transaction, basis, [], basis.lease.sequence)
        self._note(basis, (), [], basis.lease.sequence, written, swept)
        return swept

    def _are_most_likely_new(self, requests: Sequence[Request]) -> bool:
        """Whether the log most likely has none of their ids."""
        return not (
            self._asks_log or self._parking.rows or any(request.redelivered or request.letter for request in requests)
        )

    def _take_for_new(self, window: Window, into: Committed) -> None:
        """Apply the next commands without asking the log for their ids.

        If it has one, its database refuses the second entry, and with it the whole transaction.
        """
        size = window.size()
        requests, culprits = window.piece(size)
        written: _Written | None = None
        try:
            with _Begun(self._store.begin()) as transaction:
                basis, refs = self._basis(transaction, window, requests, len(culprits))
                basis.work.prefetch(refs)
                settled, sequence, blocked = settle_in_order(basis, requests, basis.lease.sequence, culprits)
                if blocked is None and not basis.parking.has_waiting:
                    written = self._commit(transaction, basis, settled, sequence)
                else:
                    # What has to wait, or blocks the lane, may be settled already.
                    transaction.rollback()
        except Refusal as refusal:
            if not (isinstance(refusal, BatchFault) and self._ask_log(window)):
                self._refused(window, size, refusal)
            return
        if written is None:
            self._ask_log(window)
            return
        self._note(basis, requests, settled, sequence, written, into)
        window.committed(size)

    def _ask_and_apply(self, window: Window, into: Committed) -> None:
        """Apply the next commands of which the log has none, and answer the others from it."""
        size = window.size()
        requests, culprits = window.piece(size)
        try:
            with _Begun(self._store.begin()) as transaction:
                basis, refs = self._basis(transaction, window, requests, len(culprits))
                if window.known is None:
                    window.known = known_entries(basis.work, window.pending, refs)
                else:
                    basis.work.prefetch(refs)
                basis.known.update(window.known)
                saved, removed = announced_again(basis.work, requests, basis.known, self.checks)
                settled, sequence, blocked = settle_in_order(basis, requests, basis.lease.sequence, culprits)
                written = self._commit(transaction, basis, settled, sequence)
        except Refusal as refusal:
            self._refused(window, size, refusal)
            return
        window.known.update((done.entry.command_id, done.entry) for done in settled if done.entry is not None)
        if requests:
            window.repeats = window.repeats or any(done.entry is None for done in settled)
            self._asks_log = window.repeats
        into.saved += saved
        into.removed += removed
        self._note(basis, requests, settled, sequence, written, into)
        window.committed(size)
        if blocked is not None:
            raise blocked

    def _refused(self, window: Window, size: int, refusal: Refusal) -> None:
        """Find the culprit. Raises BatchRefused to have the same transaction tried again, after a pause."""
        if window.is_worth_another_try(size, refusal):
            raise BatchRefused(f"{window.described(size)} is refused: {refusal}") from refusal
        self.search(window, size, refusal)

    def _ask_log(self, window: Window) -> bool:
        """Whether the log has the ids of a window, which was not asked so far."""
        self._asks_log = True
        transaction = self._store.begin()
        try:
            window.known = known_entries(BatchWork(transaction, self._clock()), window.pending, [])
        finally:
            transaction.rollback()
        return bool(window.known)

    def _basis(
        self, transaction: Transaction, window: Window, requests: Sequence[Request], culprits: int
    ) -> tuple[Basis, list[Ref[Row]]]:
        """What the requests are settled on, once the rows are read that are returned with it."""
        work = BatchWork(transaction, self._clock(), self._targets, self.checks)
        for counter in self._counters.values():
            work.adopt(Counter, counter.name, counter)
        progress = PublisherProgress(work, self._order, [request.message for request in requests])
        named, misread = named_rows(requests[culprits:], self.checks)
        parking = self._parking.copy()
        letters = Letters(work, self._name, self._settings.nameless_dead_max)
        basis = Basis(
            work=work,
            handlers_work=HandlerWork(work),
            lease=self._tenancy.certain(),
            known={},
            cancelled=self._cancelled,
            parking=parking,
            letters=letters,
            orders=Orders(work, parking, letters, self._handlers, self._settings.message_bytes_max),
            progress=progress,
            parked_max=self._settings.parked_max,
            misread={culprits + place: text for place, text in misread.items()},
            spared=window.spared,
        )
        return basis, [*progress.refs, *letter_refs(requests, self._name), *named]

    def _commit(self, transaction: Transaction, basis: Basis, settled: Sequence[Settled], sequence: int) -> _Written:
        """Write what the requests have come to, and read more of the outbox in the same transaction."""
        positions = basis.progress.save()
        entries = [done.entry for done in settled if done.entry is not None]
        basis.work.insert_new(entries)
        changes = basis.work.changes()
        confirmed = self.outbox.confirmed
        written = msgspec.structs.replace(changes, deletes=[*changes.deletes, confirmed]) if confirmed else changes
        pages = [
            (page, transaction.scan(OutboxEntry, self.outbox.page_rows, page.after, ("lane", page.target)))
            for page in self.outbox.pages()
        ]
        if written.deletes or written.updates or written.inserts:
            transaction.commit(basis.lease, sequence, written)
        else:
            transaction.rollback()
        return _Written(changes, positions, confirmed, pages)

    def _note(
        self,
        basis: Basis,
        requests: Sequence[Request],
        settled: Sequence[Settled],
        sequence: int,
        written: _Written,
        into: Committed,
    ) -> None:
        """Know what a transaction has done, now that it is committed."""
        self._tenancy.committed(sequence)
        self._order.advanced(written.positions, basis.progress.refused())
        self._parking = basis.parking
        self._counters.update(counters_in(written.changes))
        self.outbox.deleted(written.confirmed)
        for page, found in written.pages:
            into.emitted += self.outbox.read(page.target, found)
        self.outbox.withdrawn(into.add(requests, settled, written.changes))
        into.emitted += self.outbox.emitted(emitted_by(written.changes))


def _all(transaction: Transaction, model: type[R]) -> list[R]:
    """Every row of a model, of which one that were left out would be one forgotten."""
    rows: list[R] = []
    while True:
        page = transaction.scan(model, _PAGE_ROWS, getattr(rows[-1], model.key) if rows else None)
        rows += page
        if len(page) < _PAGE_ROWS:
            return rows
