"""The lane: applies commands in order, exactly once, in transactions that it groups.

It is given deliveries, a store and a clock, and returns what to do with them (`Decision`). It has no queue, no thread
and no socket, so that the same code runs under RabbitMQ, in a monolith, in tests and in simulation.
"""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime

from coordinator.lane.admission import Admission
from coordinator.lane.basis import Blocked
from coordinator.lane.batch import Batch, settlement_of
from coordinator.lane.committed import Committed
from coordinator.lane.control import CONTROL_HANDLERS
from coordinator.lane.delivery import Decision, Delivery, Deposed, Settlement, Suspension
from coordinator.lane.high_water import HighWater, Mark
from coordinator.lane.knowledge import Knowledge
from coordinator.lane.outbox import Outbox
from coordinator.lane.pauses import Pauses
from coordinator.lane.publisher_order import PublisherOrder
from coordinator.lane.request import Handlers
from coordinator.lane.tenancy import Clock, Tenancy
from coordinator.lane.transactions import Transactions
from coordinator.lane.window import Window
from coordinator.runtime.settings import LaneSettings
from coordinator.service.service import Service
from coordinator.service.targets import Targets
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.stores.port import BatchRefused, Conflict, Fenced, Lease, Refusal, Store, StoreUnavailable


class Lane:
    """One lane as its active consumer runs it. Used by one thread."""

    def __init__(
        self,
        service: Service,
        store: Store,
        clock: Clock,
        holder: str,
        settings: LaneSettings,
        elapsed_s: Callable[[], float],
        targets: Targets | Collection[str] | None = None,
        takes_at_once: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """`targets` are the lanes and effects to which commands can be emitted; None: they are not all known here.

        `takes_at_once`: whether a target has what is handed out for it (`Outbox`).
        """
        emitting = targets if isinstance(targets, Targets) else Targets(service.lane, targets)
        handlers: Handlers = {each.command.type: each for each in (*service.handlers, *CONTROL_HANDLERS)}
        self._types = frozenset(handlers)
        self._reviewed = [model.table for model in service.models if model.__review__ is not None]
        self._store = store
        self._elapsed_s = elapsed_s
        self._high_water = HighWater(service.lane)
        self._tenancy = Tenancy(store, holder, clock, self._high_water)
        self._order = PublisherOrder(settings.early_max, settings.gap_timeout_s)
        self._admission = Admission(store, self._order, handlers, emitting)
        outbox = Outbox(settings.outbox_max, takes_at_once)
        self._knowledge = Knowledge(service, clock, settings, handlers, emitting, self._order, self._high_water, outbox)
        self._transactions = Transactions(store, clock, settings, elapsed_s, self._tenancy, self._knowledge, outbox)
        self._pauses = Pauses(settings)
        self._batch: Batch | None = None

    @property
    def lease(self) -> Lease | None:
        """The lease, while there is one that is not in doubt."""
        return self._tenancy.lease

    def has_lane(self, channel_number: int) -> bool:
        """Whether the lane was taken over for this channel, even if the lease is in doubt."""
        return channel_number == self._tenancy.channel_number

    @property
    def takeovers(self) -> int:
        """How often this consumer has taken the lane over; renewing its own lease does not count."""
        return self._tenancy.takeovers

    def is_current(self) -> bool:
        """Whether the lease is still this consumer's, by a read of the database. Raises StoreError."""
        return self._tenancy.is_proved()

    @property
    def sequence(self) -> int:
        """The highest sequence that the lane is known to have reached."""
        return self._high_water.sequence

    @property
    def lineage(self) -> str | None:
        """The history of the lane in which that is so; None: it is not known."""
        return self._high_water.lineage

    @property
    def knows_last(self) -> bool:
        """Whether its mark names the last command."""
        return self._high_water.knows_last

    @property
    def is_in_doubt(self) -> bool:
        """Whether that may be of another database than the lane's: no mark of this consumer's is to be kept."""
        return self._high_water.is_in_doubt

    @property
    def series_learnt(self) -> int:
        """How often its database had ids that its mark lacked."""
        return self._high_water.series_learnt

    def mark(self) -> Mark:
        """How far the lane is known to have come."""
        return self._high_water.mark()

    def learn(self, mark: Mark) -> None:
        """Take in the mark of another process of the lane."""
        known = self.sequence, self.lineage
        self._high_water.learn(mark)
        if (self.sequence, self.lineage) != known:
            self._pauses.another_had_it()
        self._tenancy.has_learnt()

    def give_up(self, channel_number: int) -> None:
        """This channel's deliveries come again, to whoever has the lane next."""
        self._forget()
        self._tenancy.lose(channel_number)

    @property
    def has_batch(self) -> bool:
        """Whether some of the given deliveries are still unsettled, so that `apply` is to be called again."""
        return self._batch is not None

    @property
    def gaps(self) -> int:
        """How many missing predecessors of publisher sessions were given up."""
        return self._order.gaps

    @property
    def types(self) -> Collection[str]:
        """The types of the commands that it applies, the lane's own among them."""
        return self._types

    @property
    def reviewed(self) -> Collection[str]:
        """The tables of whose rows one may come to need a person's review."""
        return self._reviewed

    @property
    def parked_keys(self) -> int:
        """How many keys wait behind a failed command. For any thread; 0 of a lane that was not taken over."""
        return 0 if self._tenancy.channel_number is None else self._knowledge.parked_keys

    @property
    def parked_commands(self) -> int:
        """How many commands wait for such a key. For any thread."""
        return 0 if self._tenancy.channel_number is None else self._knowledge.parked_commands

    @property
    def parked_since(self) -> datetime | None:
        """When the first of these keys was parked; None: no key waits. For any thread."""
        return None if self._tenancy.channel_number is None else self._knowledge.parked_since

    @property
    def early_s(self) -> float:
        """How long a command has waited for an earlier one of its publisher session; 0: none does. For any thread."""
        return self._order.waited_s(self._elapsed_s())

    def is_waiting(self, command_id: str) -> bool:
        """Whether a command with this id waited for such a key when the lane last committed. For any thread."""
        return self._knowledge.is_waiting(command_id)

    @property
    def moving_since(self) -> datetime | None:
        """When a move of the lane began that is not over; None: there is none. For any thread."""
        move = self._tenancy.move
        return None if move is None else move.since

    def due_in_s(self, channel_number: int = 0) -> float | None:
        """When to call `apply` even if nothing arrives: a predecessor that does not come is given up then.

        None for a channel that has delivered nothing yet. Early deliveries of the channel before are void, and a call
        without deliveries would take the lane over from the consumer to which the broker delivers now.
        """
        return self._order.due_in_s(self._elapsed_s()) if channel_number == self._tenancy.channel_number else None

    def timers_in_s(self, channel_number: int = 0) -> float | None:
        """When to call `sweep` for the sake of due timers, even while there are batches; None: there are no timers.

        The lane's clock may jump: ask again each second. None for any channel but the one with the lane.
        """
        if channel_number != self._tenancy.channel_number:
            return None
        return self._transactions.timers.due_in_s(self._elapsed_s())

    def is_unproved(self, channel_number: int = 0) -> bool:
        """Whether to call `sweep` though nothing is due, since others cannot tell yet that the last commit is safe.

        False for any channel but the one with the lane.
        """
        return channel_number == self._tenancy.channel_number and self._tenancy.is_unproved

    def confirm(self, entries: Sequence[OutboxEntry]) -> None:
        """The broker has these emitted commands: the next transaction removes them from the outbox."""
        self._transactions.outbox.confirm(entries)

    def is_inherited(self, entry: OutboxEntry) -> bool:
        """Whether an emitted command is older than the lease: then it may have been handed out before."""
        return entry.id <= self._transactions.inherited

    def apply(self, deliveries: Sequence[Delivery], channel_number: int = 0) -> Decision:
        """Apply the commands of some deliveries, in order.

        `channel_number` says from which channel the deliveries came. With a new one the lane is taken over: the broker
        delivers to one consumer at a time, and forgets what it delivered on a channel that is gone.

        A Settlement means that the deliveries of its `tags` are settled and on disk. Others are early, or wait in the
        lane's batch (`has_batch`): settled deliveries are returned before the lane looks for culprits among the others.
        After a Suspension the same deliveries must be offered again, before any others. Deposed is final for a channel.
        """
        if self._tenancy.is_lost(channel_number):
            return Deposed()
        self._pauses.offered(channel_number)
        if channel_number != self._tenancy.channel_number:
            self._forget()
        try:
            self._secure_lease(channel_number)
            if self._batch is None:
                known = self._knowledge
                self._batch = self._admission.batch(deliveries, self._elapsed_s(), known.cancelled, known.fingerprints)
            self._settle(self._batch)
            return self._settlement(self._batch)
        except Fenced:
            return self._fenced(channel_number)
        except (StoreUnavailable, Conflict, Refusal, Blocked) as error:
            return self._suspended(error)

    def sweep(self, channel_number: int = 0) -> Decision | None:
        """Between batches: put due timers into the outbox, remove confirmed entries from it, prove the last commit.

        A Settlement has only emitted commands to publish, for which there is room now. Entries of a channel that is
        gone wait for the channel's next batch: sweeping them could depose a consumer that only stands by.
        """
        if self._batch is not None or channel_number != self._tenancy.channel_number:
            return None
        # A takeover without commands, such as one for the sake of timers, has read nothing of the outbox yet.
        is_behind = self._tenancy.lease is not None and bool(self._transactions.outbox.pages())
        has_work = self._transactions.outbox.confirmed or self._transactions.timers.are_due or is_behind
        if not has_work and not self._tenancy.is_unproved:
            return None
        swept = Committed()
        try:
            self._secure_lease(channel_number)
            if has_work:
                swept = self._transactions.sweep()
            if self._tenancy.is_unproved:
                self._transactions.prove()
        except Fenced:
            return self._fenced(channel_number)
        except (StoreUnavailable, Conflict, Refusal, Blocked) as error:
            return self._suspended(error)
        emitted = self._transactions.outbox.take()
        return settlement_of([], swept, [], emitted) if emitted else None

    def look(self, channel_number: int = 0) -> Suspension | Deposed | None:
        """When there is nothing to do: see what the next batch would meet, and write nothing.

        A database that refuses the lane, is away, has lost commits or is another consumer's gets the verdict that a
        batch would get. None: the lane can go on. A standby sees how far the lane has come.
        """
        has_lane = self.has_lane(channel_number)
        try:
            if not has_lane:
                self._tenancy.watch()
            elif (lease := self._tenancy.look()) is not None:
                self._doubt()
                self._begin(lease, channel_number)
        except Fenced:
            self._forget()
            self._tenancy.lose(channel_number)
            return Deposed()
        except (StoreUnavailable, Conflict, Refusal, Blocked) as error:
            if has_lane:
                # No commit is uncertain, so the lease is only to be read again.
                self._doubt()
                self._tenancy.block()
            if isinstance(error, Refusal):
                self._store.close()
            return self._pauses.idle(error)
        return None

    def _secure_lease(self, channel_number: int) -> None:
        """Make sure of the lease, and of what an operator has ordered."""
        if self._tenancy.lease is None:
            self._begin(self._tenancy.claim(), channel_number)

    def _begin(self, lease: Lease, channel_number: int) -> None:
        """Read what must be known under the claimed lease; where commits are lost, go above them."""
        is_behind = lease.lost_up_to is not None or self._high_water.is_beside(lease)
        is_elsewhere = is_behind or self._tenancy.is_elsewhere
        if is_elsewhere:
            # What is known was read from a copy that may have had more: also how far publishers are.
            self._doubt()
            self._order.lose()
        self._transactions.begin_again(lease, is_behind=is_elsewhere)
        last_id = self._tenancy.last_id(lease)
        self._tenancy.begin(lease, channel_number)
        if is_behind:
            self._transactions.go_above(self._high_water)
        self._high_water.goes_on_in(lease, last_id)

    def _settle(self, batch: Batch) -> None:
        """Settle the batch, or the part before a command that blocks the lane or is looked for as a culprit."""
        transactions = self._transactions
        applied = 0
        while (window := batch.window or self._next_window(batch)) is not None:
            left = len(window.pending)
            try:
                transactions.advance(window, batch.committed)
            except Conflict as conflict:
                size = window.size()
                if not window.conflicts_for_ever(size, self._elapsed_s()):
                    raise
                self._pauses.succeeded()
                transactions.search(window, size, BatchRefused(f"in conflict again and again: {conflict}"))
            except Blocked:
                if self._tenancy.is_unproved:
                    # What came before may be the last commit for long.
                    transactions.prove()
                batch.blocked()
                if not (batch.has_news or transactions.outbox.has_more_to_publish):
                    raise
                return
            applied += left - len(window.pending)
            if window.is_done:
                batch.window = None
                transactions.window_size.taken(window)
            is_piece = not (window.is_whole and window.is_done)
            is_long = is_piece or applied >= transactions.window_size.commands_max
            if is_long and batch.has_news and self._has_more(batch):
                return

    def _next_window(self, batch: Batch) -> Window | None:
        size = self._transactions.window_size
        return batch.open_window(self._knowledge.ready(size.commands), size.commands, size.first)

    def _has_more(self, batch: Batch) -> bool:
        return not batch.is_settled or self._knowledge.has_ready

    def _settlement(self, batch: Batch) -> Settlement:
        is_last = not self._has_more(batch)
        if is_last:
            self._batch = None
        self._pauses.succeeded()
        return batch.settlement(
            self._admission.completed,
            self._transactions.outbox.take(),
            is_last=is_last,
            has_ready=self._knowledge.has_ready,
        )

    def _fenced(self, channel_number: int) -> Suspension | Deposed:
        """Another consumer has the lane, or an operator has changed it: reading the lease shows which."""
        self._doubt()
        try:
            if self._tenancy.survives_fence():
                return Suspension(0.0, "an operator has changed the lane")
        except (StoreUnavailable, Conflict, Refusal, Blocked) as error:
            return self._suspended(error)
        self._forget()
        self._tenancy.lose(channel_number)
        return Deposed()

    def _suspended(self, error: Exception) -> Suspension:
        """Try again later. After a failure with an uncertain outcome the lease is in doubt, and is renewed first."""
        if isinstance(error, Blocked):
            self._doubt()
            self._tenancy.block()
        elif not isinstance(error, Conflict | Refusal):
            self._doubt()
            self._tenancy.doubt()
        if isinstance(error, Refusal):
            # The connection may be the reason for a refusal, such as a plan that was made for another schema.
            self._store.close()
        return self._pauses.after(error)

    def _doubt(self) -> None:
        """The last transaction may be committed or not, and operators may have deleted old positions."""
        if self._batch is not None:
            self._batch.doubt()
        self._order.doubt()

    def _forget(self) -> None:
        """Begin again with a channel: the deliveries of the one before are void."""
        self._tenancy.end()
        self._admission.forget()
        self._batch = None
