"""The transactions of a lane: the next commands of a window are tried together, and the answer decides what follows."""

from collections.abc import Callable, Sequence
from types import TracebackType

import msgspec
from msgspec import Struct

from coordinator.lane.audit import AuditedTables
from coordinator.lane.basis import Basis, Fate
from coordinator.lane.committed import Committed, emitted_by
from coordinator.lane.high_water import HighWater
from coordinator.lane.knowledge import Knowledge
from coordinator.lane.move_notes import MoveNotes
from coordinator.lane.outbox import Outbox, OutboxPage
from coordinator.lane.reading import announced_again, known_entries
from coordinator.lane.request import Request
from coordinator.lane.settle import settle_in_order
from coordinator.lane.tenancy import Clock, Tenancy
from coordinator.lane.timers import Timers
from coordinator.lane.unit_of_work import OUTBOX_SERIES, BatchWork
from coordinator.lane.window import Window, WindowSize
from coordinator.runtime.settings import LaneSettings
from coordinator.service.errors import ConfigurationError
from coordinator.stores.lane_tables import LogEntry, OutboxEntry, PublisherPosition, Series, Timer
from coordinator.stores.passages import first_of_transaction
from coordinator.stores.port import (
    BatchFault,
    BatchRefused,
    Changes,
    Conflict,
    Lease,
    Read,
    Refusal,
    Store,
    StoreError,
    Transaction,
)


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
            # The lane itself cannot make something of one of the commands, such as a row of its own. That command is
            # the culprit; it is recorded with less, and the lane goes on.
            raise BatchFault(f"{type(error).__name__}: {error}") from error


class _Commit(Struct, frozen=True):
    """What a transaction has committed, beside what became of its requests."""

    changes: Changes
    positions: list[PublisherPosition]
    confirmed: list[OutboxEntry]
    pages: list[tuple[OutboxPage, list[OutboxEntry]]]


class Transactions:
    """How a lane commits, and which entries of its outbox it then hands out."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        settings: LaneSettings,
        elapsed_s: Callable[[], float],
        tenancy: Tenancy,
        knowledge: Knowledge,
        outbox: Outbox,
    ) -> None:
        self._store = store
        self._clock = clock
        self._elapsed_s = elapsed_s
        self._tenancy = tenancy
        self._knowledge = knowledge
        self._asks_log = True
        self.window_size = WindowSize(settings.batch_commands_max)
        self.outbox = outbox
        self.timers = Timers(clock)
        self._audited = AuditedTables(knowledge.checks.audited)
        self._notes = MoveNotes()
        self.inherited = 0
        """The last emitted command that is older than the lease."""
        self._epoch = 0
        self._took_ms: tuple[int, int] | None = None
        """Of the last transaction with entries for the log: its last sequence, and in how many ms it was committed."""
        self._began_s = 0.0

    def begin_again(self, lease: Lease, *, is_behind: bool) -> None:
        """The lease is new, or was in doubt: read the lane's knowledge. The outbox is read from its beginning, or not.

        Under the epoch of before, nobody else has changed the outbox: what was handed out stays handed out. A lane
        that an operator must unblock claims its lease again and again, and must not publish the same each time.
        `is_behind`: the database has lost commits, or may have, and entries with them.
        """
        self.window_size.begin()
        is_same = lease.epoch == self._epoch and not is_behind
        transaction = self._store.begin()
        try:
            self._knowledge.read(transaction)
            if not is_same:
                self._audited.read(transaction, lease)
            self.timers.read(transaction)
            backlog = transaction.backlog()
            (emitted,) = transaction.load([Read(Series, Series.key, [OUTBOX_SERIES])])
        finally:
            transaction.rollback()
        self._asks_log = True
        if is_same:
            return
        self._epoch = lease.epoch
        self.inherited = sum(series.value for series in emitted)
        self.outbox.begin_again(each.target for each in backlog)

    def advance(self, window: Window, into: Committed) -> None:
        """Try one transaction, and draw the conclusions.

        Raises Blocked at a command that blocks the lane, once the commands before it are committed; BatchRefused to
        have the same transaction tried again, after a pause; StoreError.
        """
        if window.known is None and self._are_most_likely_new(window.requests):
            self._assume_new(window, into)
        else:
            self._ask_and_apply(window, into)

    def search(self, window: Window, size: int, refusal: Refusal) -> None:
        """The transaction was refused: try fewer commands next, or name the culprit."""
        if isinstance(refusal, BatchRefused) and size > 1:
            # The transaction may be too large for a time limit.
            self.window_size.shrink(size)
        window.refused(size, refusal)

    def go_above(self, high_water: HighWater) -> None:
        """An operator has accepted that commits are lost: none of their sequences and ids is given out again."""
        try:
            with _Begun(self._store.begin()) as transaction:
                names = high_water.series_names
                read = [Read(Series, Series.key, names)] if names else []
                found = [row for rows in transaction.load(read) for row in rows]
                behind, missing = high_water.series_above(found)
                changes = Changes([], [behind] if behind else [], [missing] if missing else [])
                lease = self._tenancy.certain()
                transaction.commit(lease, high_water.sequence, self._notes.added(changes, lease))
        except (Conflict, Refusal):
            # Nothing may be committed under this lease as long as it is below the mark.
            self._tenancy.block()
            raise
        self._tenancy.committed(high_water.sequence)

    def sweep(self) -> Committed:
        """Remove confirmed entries from the outbox, put due timers there, and read as many as there is room for."""
        swept = Committed()
        left: Sequence[Timer] | None = None
        try:
            with _Begun(self._store.begin()) as transaction:
                basis, _ = self._knowledge.basis(transaction, self._tenancy.certain(), ())
                if self.timers.are_due:
                    left = self.timers.move(transaction, basis.work)
                written = self._commit(transaction, basis, [], basis.lease.sequence)
        except (Conflict, Refusal):
            self.timers.refused()
            raise
        self._note(basis, (), [], written, swept)
        if left is not None:
            self.timers.moved(left, self._elapsed_s())
        return swept

    def prove(self) -> None:
        """Commit nothing: that tells others that the last commit is safe (`Lease.proved`)."""
        lease = self._tenancy.certain()
        with _Begun(self._store.begin()) as transaction:
            transaction.commit(lease, lease.sequence, self._notes.added(Changes([], [], []), lease))
        self._tenancy.committed(lease.sequence)

    def _are_most_likely_new(self, requests: Sequence[Request]) -> bool:
        """Whether the log most likely has none of their ids."""
        return not (
            self._asks_log
            or self._knowledge.has_parked
            or any(request.redelivered or request.letter for request in requests)
        )

    def _assume_new(self, window: Window, into: Committed) -> None:
        """Apply the next commands without asking the log for their ids.

        If the log has one, the database refuses the second entry, and with it the whole transaction.
        """
        size = window.size()
        requests, culprits = window.piece(size)
        written: _Commit | None = None
        try:
            with _Begun(self._store.begin()) as transaction:
                lease = self._tenancy.certain()
                self._began_s = self._elapsed_s()
                basis, refs = self._knowledge.basis(transaction, lease, requests, len(culprits), window.spared)
                basis.work.prefetch(refs)
                fates, sequence, blocked = settle_in_order(basis, requests, lease.sequence, culprits)
                if blocked is None and not basis.parking.has_waiting:
                    written = self._commit(transaction, basis, fates, sequence)
                else:
                    # A command that has to wait, or that blocks the lane, may be settled already.
                    transaction.rollback()
        except Refusal as refusal:
            if not (isinstance(refusal, BatchFault) and self._ask_log(window)):
                self._refused(window, size, refusal)
            return
        if written is None:
            self._ask_log(window)
            return
        self._note(basis, requests, fates, written, into)
        window.committed(size)

    def _ask_and_apply(self, window: Window, into: Committed) -> None:
        """Apply those of the next commands that the log does not have, and answer the others from it."""
        size = window.size()
        requests, culprits = window.piece(size)
        try:
            with _Begun(self._store.begin()) as transaction:
                lease = self._tenancy.certain()
                self._began_s = self._elapsed_s()
                basis, refs = self._knowledge.basis(transaction, lease, requests, len(culprits), window.spared)
                if window.known is None:
                    window.known = known_entries(basis.work, window.pending, refs)
                else:
                    basis.work.prefetch(refs)
                basis.known.update(window.known)
                saved, removed = announced_again(
                    basis.work, requests, basis.known, self._knowledge.checks, len(culprits)
                )
                fates, sequence, blocked = settle_in_order(basis, requests, lease.sequence, culprits)
                # A key that came after the lease: another consumer has the lane, and can tell which command this is.
                keys = basis.fingerprints
                is_in_doubt = not all(keys.has_key_of(entry.fingerprint) for entry in window.known.values())
                written = self._commit(transaction, basis, fates, sequence, proves_lease=is_in_doubt)
        except Refusal as refusal:
            self._refused(window, size, refusal)
            return
        # With the new ones, and with those that were emptied.
        window.known = basis.known
        if requests:
            window.repeats = window.repeats or any(fate.entry is None for fate in fates)
            self._asks_log = window.repeats
        into.saved += saved
        into.removed += removed
        self._note(basis, requests, fates, written, into)
        window.committed(size)
        if blocked is not None:
            raise blocked

    def _refused(self, window: Window, size: int, refusal: Refusal) -> None:
        """Find the culprit. Raises BatchRefused to have the same transaction tried again, after a pause."""
        if window.is_worth_another_try(size, refusal):
            raise BatchRefused(f"{window.described(size)} is refused: {refusal}") from refusal
        self.search(window, size, refusal)

    def _ask_log(self, window: Window) -> bool:
        """Ask the log for the ids of a window, which it was not asked for so far; whether it has one."""
        self._asks_log = True
        transaction = self._store.begin()
        try:
            window.known = known_entries(BatchWork(transaction, self._clock()), window.pending, [])
        finally:
            transaction.rollback()
        return bool(window.known)

    def _commit(
        self,
        transaction: Transaction,
        basis: Basis,
        fates: Sequence[Fate],
        sequence: int,
        *,
        proves_lease: bool = False,
    ) -> _Commit:
        """Write the fates of the requests, and read more of the outbox in the same transaction.

        With nothing to write there is no commit, unless what was told is right only while the lane is this consumer's.
        """
        positions = basis.progress.save()
        entries = [fate.entry for fate in fates if fate.entry is not None]
        if entries:
            entries[0] = self._first(entries[0], basis)
        basis.work.insert_new(entries)
        self._audited.write(basis.work)
        changes = basis.work.changes()
        confirmed = self.outbox.confirmed
        written = msgspec.structs.replace(changes, deletes=[*changes.deletes, confirmed]) if confirmed else changes
        pages = [
            (page, transaction.scan(OutboxEntry, self.outbox.page_rows, page.after, ("lane", page.target)))
            for page in self.outbox.pages()
        ]
        if proves_lease or written.deletes or written.updates or written.inserts:
            transaction.commit(basis.lease, sequence, self._notes.added(written, basis.lease))
            self._tenancy.committed(sequence, entries[-1] if entries else None)
            if entries:
                self._took_ms = sequence, self._since_began_ms()
        else:
            transaction.rollback()
        return _Commit(changes, positions, confirmed, pages)

    def _first(self, entry: LogEntry, basis: Basis) -> LogEntry:
        """The first entry of a transaction, with what its passage says of all of them and of the transaction before."""
        took = self._took_ms
        # Otherwise another one was between them, of which this process does not know when it was committed.
        before_ms = took[1] if took is not None and took[0] == basis.lease.sequence else None
        arrival = basis.work.arrival
        place = None if arrival is None else arrival.place
        passage = first_of_transaction(entry.passage, self._since_began_ms(), before_ms, place)
        return msgspec.structs.replace(entry, passage=passage)

    def _since_began_ms(self) -> int:
        """How long ago the transaction began, by a clock that never jumps."""
        return round((self._elapsed_s() - self._began_s) * 1000)

    def _note(
        self,
        basis: Basis,
        requests: Sequence[Request],
        fates: Sequence[Fate],
        written: _Commit,
        into: Committed,
    ) -> None:
        """Take in the work of a transaction, now that it is committed, or had nothing to commit."""
        self._knowledge.committed(basis, written.positions, written.changes)
        self._audited.committed()
        self.timers.committed(written.changes)
        # A page was read before the same transaction deleted what is confirmed, and must not hand that out again.
        for page, found in written.pages:
            self.outbox.read(page.target, found)
        self.outbox.deleted(written.confirmed)
        self.outbox.withdrawn(into.add(requests, fates, written.changes))
        self.outbox.emitted(emitted_by(written.changes))
