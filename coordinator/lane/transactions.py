"""The transactions of a lane: the next commands of a window, tried together, and what follows from the answer."""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime

import msgspec

from coordinator.lane.batch import Committed, counters_in, emitted_by, known_entries, letter_refs, record, told_again
from coordinator.lane.control import CONTROL_HANDLERS
from coordinator.lane.letters import Letters
from coordinator.lane.named_rows import reads
from coordinator.lane.orders import Orders
from coordinator.lane.outbox import Outbox
from coordinator.lane.parking import Parking
from coordinator.lane.positions import Positions
from coordinator.lane.publisher_order import PublisherOrder
from coordinator.lane.request import Handlers, Request
from coordinator.lane.settle import LogUnasked, Turn, settle_in_turn
from coordinator.lane.unit_of_work import BatchWork, HandlerWork
from coordinator.lane.window import Window
from coordinator.runtime.settings import LaneSettings
from coordinator.service.errors import ConfigurationError
from coordinator.service.service import Service
from coordinator.stores.lane_tables import Cancellation, Counter, OutboxEntry
from coordinator.stores.port import (
    BatchFault,
    BatchRefused,
    Lease,
    Refusal,
    Store,
    StoreError,
    StoreUnavailable,
    Transaction,
)
from coordinator.stores.row_checks import RowChecks

Clock = Callable[[], datetime]
"""The time in UTC, to the millisecond."""


class Transactions:
    """What a lane knows while it has its lease, and how it commits."""

    def __init__(
        self,
        service: Service,
        store: Store,
        clock: Clock,
        settings: LaneSettings,
        targets: Collection[str] | None,
    ) -> None:
        self._handlers: Handlers = {handler.command.type: handler for handler in (*service.handlers, *CONTROL_HANDLERS)}
        self._name = service.name
        self._targets = targets
        self._store = store
        self._clock = clock
        self._settings = settings
        self._order = PublisherOrder(settings.held_max, settings.gap_timeout_s)
        self._lease: Lease | None = None
        self._commands_max = settings.batch_commands_max
        self._checks = RowChecks(service.metadata)
        self._cancelled: dict[str, Cancellation] = {}
        self._parking = Parking()
        self._counters: dict[str, Counter] = {}
        self._asks_log = True
        self._carried = Committed()
        self._outbox = Outbox(settings.outbox_max)

    def _advance(self, window: Window) -> None:
        """Try one transaction, and draw the conclusions. Raises Held at a command that blocks the lane."""
        takes_for_new = window.known is None and self._takes_for_new(window.requests)
        size = window.size()
        try:
            self._transact(window, size, takes_for_new=takes_for_new)
        except LogUnasked:
            self._ask_log(window)
        except Refusal as refusal:
            if takes_for_new and isinstance(refusal, BatchFault) and self._ask_log(window):
                # The log has one of the ids.
                return
            self._refused(window, size, refusal)

    def _refused(self, window: Window, size: int, refusal: Refusal) -> None:
        """Find the culprit. Raises BatchRefused to have the same transaction tried again, after a pause."""
        if window.is_worth_another_try(size, refusal):
            raise BatchRefused(f"{window.described(size)} is refused: {refusal}") from refusal
        self._search(window, size, refusal)

    def _search(self, window: Window, size: int, refusal: Refusal) -> None:
        """Try less of what is refused next, or name the culprit."""
        if isinstance(refusal, BatchRefused) and size > 1:
            # It may be too much for a time limit.
            self._commands_max = max(1, size // 2)
        window.refused(size, refusal)

    def _ask_log(self, window: Window) -> bool:
        """Whether the log has the ids of a window, which was not asked so far."""
        self._asks_log = True
        transaction = self._store.begin()
        try:
            window.known = known_entries(BatchWork(transaction, self._clock()), window.pending, [])
        finally:
            transaction.rollback()
        return bool(window.known)

    def _takes_for_new(self, requests: Sequence[Request]) -> bool:
        """Whether requests are applied without asking the log for their ids, since it most likely has none of them.

        If it has one, its database refuses the second entry, and with it the whole transaction.
        """
        return not (
            self._asks_log or self._parking.rows or any(request.redelivered or request.letter for request in requests)
        )

    def _transact(self, window: Window, size: int, *, takes_for_new: bool) -> None:
        """Settle the next requests of a window in one transaction.

        Raises Held at a command that blocks the lane, once what comes before it is committed.
        """
        lease = self._lease
        if lease is None:
            raise StoreUnavailable("the lane has no lease")
        requests, culprits = window.piece(size)
        transaction = self._store.begin()
        try:
            turn = self._turn(transaction, window, requests, lease, len(culprits), takes_for_new=takes_for_new)
            saved, removed = told_again(turn.work, requests, turn.known, self._checks)
            settled, sequence, cut = settle_in_turn(turn, requests, lease.sequence, culprits)
            positions = turn.positions.save()
            entries = [done.entry for done in settled if done.entry is not None]
            turn.work.insert_new(entries)
            changes = turn.work.changes()
            confirmed = self._outbox.confirmed
            written = msgspec.structs.replace(changes, deletes=[*changes.deletes, confirmed]) if confirmed else changes
            pages = [
                (page, transaction.scan(OutboxEntry, self._outbox.page_rows, page.after, ("lane", page.target)))
                for page in self._outbox.pages()
            ]
            if written.deletes or written.updates or written.inserts:
                transaction.commit(lease, sequence, written)
            else:
                transaction.rollback()
        except (StoreError, LogUnasked, ConfigurationError):
            transaction.rollback()
            raise
        except Exception as error:
            # Whatever it is that the lane itself cannot make of one of them, such as a row of its own: that one is the
            # culprit, is recorded with less, and ends nothing.
            transaction.rollback()
            raise BatchFault(f"{type(error).__name__}: {error}") from error
        except BaseException:
            transaction.rollback()
            raise
        self._outbox.deleted(confirmed)
        for page, found in pages:
            self._carried.emitted += self._outbox.read(page.target, found)
        if window.known is not None:
            window.known.update((entry.command_id, entry) for entry in entries)
        if requests and not takes_for_new:
            window.repeats = window.repeats or any(done.entry is None for done in settled)
            self._asks_log = window.repeats
        self._lease = msgspec.structs.replace(lease, sequence=sequence)
        self._order.advanced(positions, turn.positions.refused())
        self._parking = turn.parking
        self._counters.update(counters_in(changes))
        self._carried.saved += saved
        self._carried.removed += removed
        withdrawn = record(self._carried, requests, settled, changes)
        self._outbox.withdrawn(withdrawn)
        self._carried.emitted += self._outbox.emitted(emitted_by(changes))
        window.committed(size)
        if cut is not None:
            raise cut

    def _turn(
        self,
        transaction: Transaction,
        window: Window,
        requests: Sequence[Request],
        lease: Lease,
        culprits: int,
        *,
        takes_for_new: bool,
    ) -> Turn:
        work = BatchWork(transaction, self._clock(), self._targets, self._checks)
        for counter in self._counters.values():
            work.adopt(Counter, counter.name, counter)
        positions = Positions(work, self._order, [request.message for request in requests])
        named, misread = reads(requests[culprits:], self._checks)
        refs = [*positions.refs, *letter_refs(requests, self._name), *named]
        if takes_for_new or window.known is not None:
            work.prefetch(refs)
        else:
            window.known = known_entries(work, window.pending, refs)
        parking = self._parking.copy()
        letters = Letters(work, self._name, self._settings.nameless_dead_max)
        return Turn(
            work=work,
            handlers_work=HandlerWork(work),
            known=dict(window.known or {}),
            takes_for_new=takes_for_new,
            cancelled=self._cancelled,
            parking=parking,
            letters=letters,
            orders=Orders(work, parking, letters, self._handlers, self._settings.message_bytes_max),
            positions=positions,
            epoch=lease.epoch,
            parked_max=self._settings.parked_max,
            misread={culprits + place: text for place, text in misread.items()},
            spared=window.spared,
        )
