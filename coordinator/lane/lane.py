"""The lane: applies commands in order, exactly once, in transactions that it groups.

It is given deliveries, a store and a clock, and returns what to do with them (`Decision`). It holds no queue, no thread
and no socket, so that the same code runs under RabbitMQ, in a monolith, in tests and in simulation.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence

import msgspec

from coordinator.lane.batch import Committed, settlement_of, whole_deliveries
from coordinator.lane.delivery import Decision, Delivery, Deposed, Hold, Settlement
from coordinator.lane.parking import Parking, prepared
from coordinator.lane.parts import Parts
from coordinator.lane.request import Request, prepare
from coordinator.lane.settle import Held
from coordinator.lane.transactions import Clock, Transactions
from coordinator.lane.unit_of_work import OUTBOX_SERIES
from coordinator.lane.window import Window
from coordinator.runtime.settings import LaneSettings
from coordinator.service.rows import R
from coordinator.service.service import Service
from coordinator.stores.lane_tables import Cancellation, Counter, OutboxEntry, ParkedCommand, PublisherPosition
from coordinator.stores.port import (
    BatchRefused,
    Conflict,
    Fenced,
    Lease,
    Read,
    Refusal,
    Store,
    StoreUnavailable,
    Transaction,
)

_PAGE_ROWS = 5000
_CONFLICT_DELAY_S = 0.01
_REFUSAL_DELAY_S = 0.05
_OPERATOR_DELAY_S = 1.0
_WINDOWS_BEFORE_LARGER = 64


class Lane(Transactions):
    """One lane as its active consumer runs it. Used by one thread."""

    def __init__(
        self,
        service: Service,
        store: Store,
        clock: Clock,
        holder: str,
        settings: LaneSettings,
        elapsed_s: Callable[[], float],
        targets: Collection[str] | None = None,
    ) -> None:
        """`targets` are the lanes and effects to which anything can be emitted; None: nobody here knows them all."""
        super().__init__(service, store, clock, settings, targets)
        self._elapsed_s = elapsed_s
        self._holder = holder
        self._parts = Parts()
        self._generation: int | None = None
        self._offered_generation: int | None = None
        self._lost_generation: int | None = None
        self._lease_in_doubt: Lease | None = None
        self._failures = 0
        self._batch: deque[Delivery] = deque()
        self._requests: list[Request] = []
        # How many of the requests are told: those of the deliveries that are not in the batch any more.
        self._told_requests = 0
        self._has_batch = False
        self._window: Window | None = None
        self._begins_with_one = False
        self._windows_taken = 0
        self._inherited = 0
        self.takeovers = 0
        """How often this consumer has taken the lane over; renewing its own lease does not count."""

    @property
    def lease(self) -> Lease | None:
        """The lease, while there is one that is not in doubt."""
        return self._lease

    def holds_lease(self) -> bool:
        """Whether the lease is still this consumer's, by a read of the database. Raises StoreError."""
        return self._lease is not None and self._store.holds(self._lease.epoch)

    @property
    def has_batch(self) -> bool:
        """Whether deliveries that were given are not settled yet, so that `apply` is to be called again."""
        return self._has_batch

    @property
    def gaps(self) -> int:
        """How many missing predecessors of publisher sessions were given up."""
        return self._order.gaps

    def due_in_s(self, generation: int = 0) -> float | None:
        """When `apply` is to be called though nothing arrives: a predecessor that does not come is given up then.

        None for a generation that has delivered nothing yet: what was held on the one before is void, and to apply
        nothing would take the lane over from whoever the broker delivers to now.
        """
        return self._order.due_in_s(self._elapsed_s()) if generation == self._generation else None

    def confirm(self, entries: Sequence[OutboxEntry]) -> None:
        """The broker has these emitted commands: the next transaction removes them from the outbox."""
        self._outbox.confirm(entries)

    def is_inherited(self, entry: OutboxEntry) -> bool:
        """Whether an emitted command is older than the lease: then it may have been handed out before."""
        return entry.id <= self._inherited

    def apply(self, deliveries: Sequence[Delivery], generation: int = 0) -> Decision:
        """Apply the commands of some deliveries, in order.

        `generation` counts the channels that deliveries came from. With a new one the lane is taken over: the broker
        delivers to one consumer at a time, and forgets what it delivered on a channel that is gone.

        A Settlement means that the deliveries of its `tags` are settled and on disk; others are held, or wait in the
        lane's batch (`has_batch`): what is settled is told before culprits are looked for among the others. After a
        Hold the same deliveries must be offered again, before any others. Deposed is final for a generation.
        """
        if generation == self._lost_generation:
            return Deposed()
        if generation != self._offered_generation:
            # How long the database was away under an earlier one says nothing: a takeover must not wait for it.
            self._offered_generation = generation
            self._failures = 0
        if generation != self._generation:
            self._begin_generation()
        try:
            self._hold_lease(generation)
            if not self._has_batch:
                self._batch = deque(self._admit(deliveries))
                self._requests = self._prepared(self._batch)
                self._told_requests = 0
                self._has_batch = True
            return self._apply_batch()
        except Fenced:
            return self._fenced(generation)
        except (StoreUnavailable, Conflict, Refusal, Held) as error:
            return self._hold(error)

    def sweep(self) -> Decision | None:
        """Remove confirmed entries from the outbox now, for want of a batch to do it with.

        A Settlement has only emitted commands to publish, for which there is room now.
        """
        generation = self._generation
        if not self._outbox.confirmed or self._has_batch or generation is None:
            return None
        try:
            self._hold_lease(generation)
            self._transact(Window(), 0, takes_for_new=False)
        except Fenced:
            return self._fenced(generation)
        except (StoreUnavailable, Conflict, Refusal, Held) as error:
            return self._hold(error)
        if not self._carried.emitted:
            return None
        carried, self._carried = self._carried, Committed()
        return settlement_of([], [], carried, [])

    def _begin_generation(self) -> None:
        self._generation = None
        self._lease = self._lease_in_doubt = None
        self._batch, self._requests = deque(), []
        self._told_requests = 0
        self._has_batch = False
        self._window = None
        self._carried = Committed()
        self._order.forget()
        self._parts.forget()

    def _hold_lease(self, generation: int) -> None:
        """Have a lease that is not in doubt, and know what an operator has ordered."""
        if self._lease is not None:
            return
        now = self._clock()
        doubted = self._lease_in_doubt
        if doubted is None:
            lease = self._store.take_over(self._holder, now)
            self.takeovers += 1
        else:
            lease = self._store.renew(self._holder, now, doubted.epoch)
        self._lease_in_doubt = lease
        transaction = self._store.begin()
        try:
            cancelled = _all(transaction, Cancellation)
            # Also what this consumer committed itself, if the answer to that commit was lost.
            backlog = transaction.backlog()
            parked = _all(transaction, ParkedCommand)
            (emitted,) = transaction.load([Read(Counter, Counter.key, [OUTBOX_SERIES])])
        finally:
            transaction.rollback()
        self._cancelled = {cancellation.command_id: cancellation for cancellation in cancelled}
        self._parking = Parking(parked)
        self._counters = {}
        self._inherited = sum(counter.value for counter in emitted)
        self._asks_log = True
        self._outbox.begin_again(each.target for each in backlog)
        self._carried.emitted = []
        self._generation = generation
        if lease.paused is not None:
            raise Held(f"paused by an operator: {lease.paused}")
        self._lease, self._lease_in_doubt = lease, None

    def _admit(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        deliveries = self._parts.of(deliveries)
        unknown = self._order.unknown(deliveries)
        if unknown:
            transaction = self._store.begin()
            try:
                (rows,) = transaction.load([Read(PublisherPosition, PublisherPosition.key, unknown)])
                self._order.learn(unknown, rows)
            finally:
                transaction.rollback()
        return self._order.admit(deliveries, self._elapsed_s())

    def _prepared(self, deliveries: Iterable[Delivery]) -> list[Request]:
        return [
            prepare(
                message,
                self._handlers,
                redelivered=delivery.redelivered,
                targets=self._targets,
                letter=delivery.letter,
                reply_to=delivery.reply_to,
                correlation_id=delivery.correlation_id,
            )
            for delivery in deliveries
            for message in delivery.commands
        ]

    def _apply_batch(self) -> Settlement:
        """Settle the batch, or as much of it as comes before a command that blocks the lane, or is looked for."""
        applied = 0
        while (window := self._window or self._next_window()) is not None:
            self._window = window
            left = len(window.pending)
            try:
                self._advance(window)
            except Conflict as conflict:
                size = window.size()
                if not window.conflicts_for_ever(size, self._elapsed_s()):
                    raise
                self._failures = 0
                self._search(window, size, BatchRefused(f"in conflict again and again: {conflict}"))
            except Held:
                self._window, self._begins_with_one = None, True
                if not self._has_something_to_tell():
                    raise
                break
            applied += left - len(window.pending)
            if window.is_done:
                self._window = None
                if self._commands_max < self._settings.batch_commands_max:
                    self._grow(window)
            is_long = not window.is_whole or applied >= self._settings.batch_commands_max
            if is_long and self._has_more() and self._has_something_to_tell():
                break
        return self._told()

    def _next_window(self) -> Window | None:
        """What need not wait for its key any more comes before the rest of the batch: others wait behind it."""
        begins_with_one, self._begins_with_one = self._begins_with_one, False
        ready = self._parking.ready()
        if ready:
            requests = [prepared(row, self._handlers, self._targets) for row in ready[: self._commands_max]]
            return Window(requests, begins_with_one=begins_with_one)
        start = self._settled_requests()
        requests = self._requests[start : start + self._commands_max]
        return Window(requests, begins_with_one=begins_with_one) if requests else None

    def _grow(self, window: Window) -> None:
        """Take larger windows again, once so many were not refused."""
        self._windows_taken = self._windows_taken + 1 if window.is_whole else 0
        if self._windows_taken >= _WINDOWS_BEFORE_LARGER:
            self._windows_taken = 0
            self._commands_max = min(self._settings.batch_commands_max, 2 * self._commands_max)

    def _has_more(self) -> bool:
        return self._window is not None or self._settled_requests() < len(self._requests) or bool(self._parking.ready())

    def _settled_requests(self) -> int:
        return self._told_requests + len(self._carried.settled)

    def _has_something_to_tell(self) -> bool:
        is_whole = bool(self._batch) and len(self._batch[0].commands) <= len(self._carried.settled)
        return is_whole or bool(self._carried.released)

    def _told(self) -> Settlement:
        """What the transactions since the last settlement have done, of whole deliveries."""
        carried = self._carried
        self._has_batch = self._has_more()
        self._failures = 0
        done: Sequence[Delivery]
        if self._settled_requests() == len(self._requests):
            done, self._batch, self._requests, self._carried = list(self._batch), deque(), [], Committed()
            self._told_requests = 0
        else:
            done = whole_deliveries(self._batch, len(carried.settled))
            count = sum(len(delivery.commands) for delivery in done)
            self._told_requests += count
            self._carried = Committed(settled=carried.settled[count:])
        return settlement_of(done, carried.settled, carried, self._parts.settled(done))

    def _fenced(self, generation: int) -> Hold | Deposed:
        """Another consumer has the lane, or an operator has changed it: renewing the lease tells."""
        lease, self._lease = self._lease, None
        self._doubt_batch()
        # Operators delete positions that are old.
        self._order.doubt()
        if lease is not None:
            try:
                self._lease_in_doubt = self._store.renew(self._holder, self._clock(), lease.epoch)
            except Fenced:
                pass
            except (StoreUnavailable, Conflict, Refusal) as error:
                self._lease_in_doubt = lease
                return self._hold(error)
            else:
                return Hold(0.0, "an operator has changed the lane")
        self._begin_generation()
        self._lost_generation = generation
        return Deposed()

    def _hold(self, error: Exception) -> Hold:
        """Try again later. After a failure whose outcome is not certain the lease is in doubt, to be renewed first."""
        if not isinstance(error, Conflict | Refusal):
            self._doubt_batch()
            if self._lease is not None:
                self._lease_in_doubt, self._lease = self._lease, None
                self._order.doubt()
        if isinstance(error, Held):
            return Hold(_OPERATOR_DELAY_S, str(error))
        first_s = self._settings.retry_delay_s if isinstance(error, StoreUnavailable) else _CONFLICT_DELAY_S
        if isinstance(error, Refusal):
            # What is refused may be so for the connection's sake, such as a plan that was made for another schema.
            self._store.close()
            first_s = _REFUSAL_DELAY_S
        delay_s = min(first_s * 2 ** min(self._failures, 16), self._settings.retry_delay_s_max)
        self._failures += 1
        return Hold(delay_s, f"{type(error).__name__}: {error}")

    def _doubt_batch(self) -> None:
        """What is under way may be committed or not: the log is to be asked for it."""
        start = self._settled_requests()
        self._requests[start:] = [
            msgspec.structs.replace(request, redelivered=True) for request in self._requests[start:]
        ]
        if self._window is not None:
            self._window = self._window.begun_anew()


def _all(transaction: Transaction, model: type[R]) -> list[R]:
    """Every row of a model, of which one that were left out would be one forgotten."""
    rows: list[R] = []
    while True:
        page = transaction.scan(model, _PAGE_ROWS, getattr(rows[-1], model.key) if rows else None)
        rows += page
        if len(page) < _PAGE_ROWS:
            return rows
