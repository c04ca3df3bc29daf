"""Who has the lane: the lease that this consumer has, has lost, or is uncertain of."""

from collections.abc import Callable
from datetime import datetime
from typing import Final, TypeGuard

import msgspec

from coordinator.lane.basis import HeldByMove, PausedByOperator
from coordinator.lane.high_water import HighWater
from coordinator.stores.lane_tables import LogEntry
from coordinator.stores.lineages import lineage_by
from coordinator.stores.moves import LaneMove, check_not_moved
from coordinator.stores.port import BatchRefused, Fenced, Lease, Store, StoreUnavailable

PAUSED: Final = "paused by an operator"
"""How the reason of a paused lane begins."""

FENCE_DROPPED: Final = (
    "the database has not changed the row of lane_lease, as each transaction of the lane must, and says no reason; "
    "nobody else has changed it either: look there for a trigger, a rule or a policy that drops the UPDATE"
)

Clock = Callable[[], datetime]
"""The time in UTC, to the millisecond."""


class Tenancy:
    """This consumer's right to the lane. A channel's number tells one tenancy from the next."""

    def __init__(self, store: Store, holder: str, clock: Clock, high_water: HighWater) -> None:
        """`holder` names this consumer, and no other that ever exists."""
        self._store = store
        self._holder = holder
        self._clock = clock
        self._high_water = high_water
        self.lease: Lease | None = None
        """The right to commit, while it is not in doubt."""
        self._doubted: Lease | None = None
        self._is_uncertain = False
        """Whether a commit under the doubted lease may have happened, or may yet: only raising the epoch tells."""
        self._is_renewing = False
        """Whether a renewal of the doubted lease may have happened."""
        self.channel_number: int | None = None
        """The channel from which the lane was taken over; None: it has not been taken over."""
        self._lost_channel_number: int | None = None
        self._is_elsewhere = False
        """Whether the database is read on a new connection: another copy of it may answer there."""
        self.takeovers = 0
        """How often the lane was taken over; renewing its own lease does not count."""

    @property
    def move(self) -> LaneMove | None:
        """The move of which the lease told when it was last read."""
        known = self.lease or self._doubted
        return None if known is None else known.move

    @property
    def is_unproved(self) -> bool:
        """Whether others cannot tell yet that the last commit is safe, and another one may tell them.

        Not while the lease is only to be read again: an operator may have paused the lane.
        """
        known = self._doubted if self._is_uncertain else self.lease
        return known is not None and known.is_unproved

    def certain(self) -> Lease:
        """The lease. Raises StoreUnavailable if there is none, or if it is in doubt."""
        if self.lease is None:
            raise StoreUnavailable("the lane has no lease")
        return self.lease

    def is_lost(self, channel_number: int) -> bool:
        """Whether another consumer has taken the lane from this channel."""
        return channel_number == self._lost_channel_number

    def is_proved(self) -> bool:
        """Whether the lease is still this consumer's, by a read of the database. Raises StoreError."""
        if self.lease is None:
            return False
        try:
            current = self._store.current()
        except StoreUnavailable:
            # The next connection may be to a copy that lacks what takes no sequence.
            self.doubt()
            raise
        return _is_same(current, self.lease) and not self._high_water.contradicts(current)

    def claim(self) -> Lease:
        """Take the lane over, or make sure of the lease that is in doubt. Raises StoreError.

        The lease stays in doubt until `begin`, which follows once everything is read that must be known under it.
        Raises Blocked, and writes nothing, if an operator has paused the lane, or must first accept lost commits;
        Fenced if another consumer has the lane; and MarkOutdated if that is to be asked how far the lane had come.
        """
        doubted = self._doubted
        current = self._current()
        _check_paused(current)
        _check_holder(current, doubted)
        self._high_water.check_accepted(current)
        if self._is_own_renewal(current):
            # The answer of our renewal was lost. The epoch is ours, and our commits go on.
            doubted = self._doubted = current
        if _is_same(current, doubted) and not self._is_uncertain:
            self._doubted = current
            return current
        now = self._clock()
        if doubted is None:
            lineage = self._high_water.lineage or lineage_by(self._holder)
            lease = self._store.take_over(self._holder, now, self._high_water.epoch, lineage)
            self.takeovers += 1
        else:
            self._is_renewing = True
            lease = self._store.renew(self._holder, now, doubted.epoch)
        # It may be another copy's by now, and a loss may have been accepted in between.
        self._check(lease)
        self._high_water.check_accepted(lease)
        # Another database may answer before the lane has begun in this one.
        self._high_water.seen(lease)
        self._doubted, self._is_uncertain, self._is_renewing = lease, False, False
        return lease

    def begin(self, lease: Lease, channel_number: int) -> None:
        """The claimed lease is certain. Raises Blocked where an operator has paused the lane."""
        self.channel_number = channel_number
        self._is_elsewhere = False
        _check_paused(lease)
        # Also above what nobody but the operator knew to be lost: the acceptance must be over for the next loss.
        self._high_water.rise_with_ids(lease.lost_up_to or lease.sequence, lease.epoch)
        self.lease, self._doubted = lease, None

    @property
    def is_elsewhere(self) -> bool:
        """Whether the lease was last seen on a new connection, and nothing was read there yet."""
        return self._is_elsewhere

    def last_id(self, lease: Lease) -> str | None:
        """The id of the last command in the log; None: it has none with this sequence. Raises StoreUnavailable."""
        return self._store.command_at(lease.sequence) if lease.sequence else None

    def committed(self, sequence: int, last: LogEntry | None = None) -> None:
        """A transaction was committed under the lease; `last` is the last entry that it has added to the log."""
        lease = self.certain()
        proved = None if lease.proved is None else lease.sequence
        self.lease = lease = msgspec.structs.replace(lease, sequence=sequence, proved=proved)
        self._high_water.rise_with_ids(sequence, lease.epoch)
        if last is not None:
            self._high_water.settled(last.sequence, last.command_id)

    def doubt(self) -> None:
        """A commit may have happened or not: the lease is to be renewed before anything else.

        Without a lease none was under way, but the database is read on a new connection next.
        """
        self._is_elsewhere = True
        if self.lease is not None:
            self._doubted, self.lease, self._is_uncertain = self.lease, None, True

    def block(self) -> None:
        """The lease is to be read again before it is used, but no commit is uncertain. An operator may have to act."""
        if self.lease is not None:
            self._doubted, self.lease, self._is_uncertain = self.lease, None, False

    def has_learnt(self) -> None:
        """A mark came in. That of a broker may come to a lane in one process while it has its lease, and is at work."""
        if self._high_water.contradicts(self.lease):
            self.block()

    def survives_fence(self) -> bool:
        """The fence has failed: an operator has changed the lane, or a renewal took effect and its answer was lost.

        False: another consumer has the lane.

        The transaction is rolled back, so nothing is uncertain. Raises StoreError, also where nobody has changed the
        row, and Blocked if it changed because the database has lost commits.
        """
        lease, self.lease = self.lease, None
        if lease is None:
            return self._is_own_renewal(self._current())
        self._doubted, self._is_uncertain = lease, False
        current = self._current()
        if not _is_same(current, lease):
            return False
        if (current.sequence, current.revision) == (lease.sequence, lease.revision):
            raise BatchRefused(FENCE_DROPPED)
        return True

    def end(self) -> None:
        """Forget the lane."""
        self.channel_number = None
        self.lease = self._doubted = None
        self._is_uncertain = self._is_renewing = False

    def lose(self, channel_number: int) -> None:
        """Another consumer has taken the lane from this channel."""
        self.end()
        self._lost_channel_number = channel_number

    def look(self) -> Lease | None:
        """See whether the lease is good for the next batch, and write nothing. Raises StoreError, Blocked and Fenced.

        Returns a lease that was in doubt, that an operator has changed, or that was seen on a new connection, where the
        database may lack what takes no sequence: it is claimed now, and `begin` must follow.
        Where it is uncertain, or the loss of commits was accepted, claiming it is for the next batch, since that
        writes, or asks for the mark.
        """
        current = self._seen()
        _check_paused(current)
        if self._is_uncertain or self._is_renewing:
            return None
        lease = self.lease or self._doubted
        if not _is_same(current, lease):
            raise Fenced("another consumer has the lane")
        if (
            self.lease is not None
            and not self._is_elsewhere
            and current.revision == self.lease.revision
            and current.sequence == self.lease.sequence
        ):
            # Since the last look the server may have been told to wait for a standby, or not to.
            self.lease = current
            return None
        self.block()
        if current.lost_up_to is not None:
            return None
        self._doubted = current
        return current

    def watch(self) -> None:
        """See how far the lane is in the database while another consumer has it, or nobody has it yet.

        Raises StoreError, and Blocked if commits are lost, or an operator has paused the lane.
        """
        current = self._seen()
        if current is not None:
            self._high_water.seen(current)
        _check_paused(current)

    def _is_own_renewal(self, current: Lease | None) -> bool:
        return (
            self._is_renewing
            and self._doubted is not None
            and current is not None
            and (current.epoch, current.holder) == (self._doubted.epoch + 1, self._holder)
        )

    def _seen(self) -> Lease | None:
        """As `_current`, and whether the database takes the lane's writes.

        On a new connection if the server has ended the idle one: only what lasts is an outage.
        """
        try:
            current = self._store.look()
        except StoreUnavailable:
            self._is_elsewhere = True
            current = self._store.look()
        self._check(current)
        return current

    def _current(self) -> Lease | None:
        """The lease in the database, whichever consumer has it. Raises StoreError, and Blocked if commits are lost."""
        current = self._store.current()
        self._check(current)
        return current

    def _check(self, lease: Lease | None) -> None:
        """Raises CommitsLost where the database with this lease has lost commits, or has another history."""
        self._high_water.check(lease)
        if lease is not None:
            for wanted in self._high_water.to_compare(lease):
                self._high_water.compare(lease, wanted, self._store.command_at(wanted[0]))


def _is_same(current: Lease | None, lease: Lease | None) -> TypeGuard[Lease]:
    """Whether the database has this lease, apart from an operator's changes."""
    if lease is None or current is None:
        return False
    return (current.epoch, current.holder) == (lease.epoch, lease.holder)


def _check_holder(current: Lease | None, lease: Lease | None) -> None:
    """Raises Fenced where the epoch of this lease was given to another consumer too.

    A copy of the database that lags gives epochs out again. Where no command is lost with them, nothing else shows it.
    """
    if current is not None and lease is not None and current.epoch == lease.epoch and current.holder != lease.holder:
        raise Fenced(f"{current.holder} has epoch {lease.epoch} too")


def _check_paused(lease: Lease | None) -> None:
    """Raises PausedByOperator, HeldByMove while the lane may write nothing because of a move, and Moved."""
    move = None if lease is None else lease.move
    check_not_moved(move)
    if move is not None and move.step != "noting":
        raise HeldByMove(move.words)
    if lease is not None and lease.paused is not None:
        raise PausedByOperator(f"{PAUSED}: {lease.paused}")
