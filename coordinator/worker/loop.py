"""The loop of one lane: take what has arrived, let the lane decide, have its decisions carried out.

It is a generator that yields what it waits for, and is sent the answer. Its driver does the waiting: a thread in
production (lane_thread.py), and in tests the simulation, on a clock of its own. So the simulation runs the production
code.
"""

import math
import re
from collections.abc import Generator, Sequence
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from coordinator.lane.delivery import Delivery, Deposed, Settlement, Suspension
from coordinator.lane.high_water import Mark
from coordinator.lane.lane import Lane
from coordinator.lane.pauses import WATCH_EVERY_S
from coordinator.runtime.repeated_line import RepeatedLine
from coordinator.service.service import Projection
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.stores.port import Lease
from coordinator.transports.port import Carrier
from coordinator.worker.lease_proof import LaneLeaseProof

KEEP_EVERY_S = 1.0
PROVE_AFTER_S = 0.1
"""How long after its last batch an idle lane proves its commit, where the database shows commits that are not safe."""
HANDED_OVER_S = 5.0
"""The wait after a lane was given up, which ends with the next channel. Where there is none by then another consumer
has the lane, and this one stands by."""
ALONE_S = 1.0
"""The wait of a lane whose transport has no other consumer to whom it could be given up."""
DEPOSED_S = 60.0
"""The wait after another consumer has taken the lane over: deliveries of this channel are void, so there is nothing to
try until the transport has its next channel."""


class Take(Struct, frozen=True):
    """Wait for deliveries, at most this long. Answered with `Taken`.

    `is_idle`: the lane is well, and nothing is due but a look at its database and the projection's beat.
    """

    timeout_s: float
    is_idle: bool = False


class Taken(Struct, frozen=True):
    """The deliveries that have arrived, and their channel; and the emitted commands that the transport has made safe.

    `mark`: how far the lane has come, as the transport knows from its process before.
    """

    channel: int
    deliveries: list[Delivery]
    confirmed: Sequence[OutboxEntry]
    is_closed: bool
    mark: Mark | None = None


class Pause(Struct, frozen=True):
    """Wait this long while `channel` is current. Answered with `Paused`."""

    channel: int
    delay_s: float


class Paused(Struct, frozen=True):
    """A pause is over. `is_void`: it ended early, since the channel is void or closed.

    `confirmed`: the emitted commands that the transport has made safe meanwhile.
    """

    is_void: bool
    confirmed: Sequence[OutboxEntry] = ()


_NUMBER = re.compile(r"\d+")

Waits = Generator[Take | Pause, Any, None]
"""The loop as its driver sees it."""
_IsVoid = Generator[Take | Pause, Any, bool]


class Observer(Protocol):
    """Watches the loop, for metrics, log lines and traces."""

    def has_lease(self, lease: Lease | None, takeovers: int) -> None:
        """The lane was called. It now has this lease, and this is how often it has taken over in all."""

    def decided(self, seconds: float) -> None:
        """How long the lane took to apply a batch, or to find that it could not."""

    def settled(self, settlement: Settlement, gaps: int, sequence: int | None) -> None:
        """A settlement was handed to the transport."""

    def suspended(self, suspension: Suspension, *, is_first: bool) -> None:
        """The same deliveries are to be offered again. `is_first`: for this reason, which is news."""

    def deposed(self) -> None:
        """Another consumer has the lane."""

    def projection_failed(self, error: BaseException) -> None:
        """The projection raised, against its contract."""


class LaneLoop:
    """One lane, from the transport's deliveries to the decisions that the transport carries out."""

    def __init__(
        self,
        lane: Lane,
        carrier: Carrier,
        projection: Projection | None,
        proof: LaneLeaseProof,
        observer: Observer,
        retry_delay_s: float,
    ) -> None:
        self._lane = lane
        self._carrier = carrier
        self._projection = projection
        self._proof = proof
        self._observer = observer
        self._retry_delay_s = retry_delay_s
        self._is_all_announced = False
        self._sweeps_again = False
        self._kept = 0
        self._kept_series = 0
        self._kept_lineage: str | None = None
        self._has_kept_last = False
        self._kept_at_s = float("-inf")
        self._looked_at_s = float("-inf")
        self._line = RepeatedLine()
        self._channel = 0
        self._given_up_channel = -1
        self.suspension: Suspension | None = None
        """What keeps the lane waiting for its database, or for an operator; None: nothing does."""

    @property
    def suspended_reason(self) -> str | None:
        """Why the lane has to wait for its database, or for an operator; None: it does not."""
        suspension = self.suspension
        return None if suspension is None else suspension.reason

    @property
    def early_s(self) -> float:
        """How long a command has waited for an earlier one of its publisher session; 0: none does, or none that is
        this consumer's. For any thread."""
        return self._lane.early_s if self._lane.has_lane(self._channel) else 0.0

    def run(self) -> Waits:
        """Run until the transport's inbox is closed; the batch in flight is finished first."""
        channel = 0
        while True:
            taken: Taken = yield self._wait(channel)
            if taken.channel != channel:
                # A mark that was handed over with a channel that is gone may not be kept.
                channel = self._channel = taken.channel
                self._kept, self._kept_series, self._kept_lineage, self._has_kept_last = 0, 0, None, False
            if taken.mark is not None:
                self._lane.learn(taken.mark)
                self._kept = max(self._kept, taken.mark.sequence)
                self._kept_lineage, self._has_kept_last = taken.mark.lineage, taken.mark.last is not None
            if taken.confirmed:
                self._lane.confirm(taken.confirmed)
            if taken.is_closed:
                if self._has_news(channel):
                    self._keep(channel)
                return
            has_deliveries = taken.deliveries and channel != self._given_up_channel
            if has_deliveries or self._lane.due_in_s(channel) == 0:
                yield from self._apply(channel, taken.deliveries)
                if self._lane.timers_in_s(channel) == 0:
                    yield from self._sweep(channel)
            else:
                yield from self._look_now_and_then(channel)
                yield from self._sweep(channel)
            self._keep_now_and_then(channel)

    def _wait(self, channel: int) -> Take:
        """The wait until there is work to do even if no delivery arrives."""
        if self._sweeps_again:
            return Take(0.0)
        now_s, work_in_s = self._proof.now_s(), math.inf
        if (gap_in_s := self._lane.due_in_s(channel)) is not None:
            work_in_s = gap_in_s
        if (timers_in_s := self._lane.timers_in_s(channel)) is not None:
            work_in_s = min(work_in_s, timers_in_s)
        if self._has_news(channel):
            work_in_s = min(work_in_s, max(0.0, self._kept_at_s + KEEP_EVERY_S - now_s))
        if self._lane.is_unproved(channel):
            work_in_s = min(work_in_s, max(0.0, self._looked_at_s + PROVE_AFTER_S - now_s))
        look_in_s = max(0.0, self._looked_at_s + WATCH_EVERY_S - now_s)
        beat_in_s = self._projection.beat_s if self._projection is not None and self._is_all_announced else math.inf
        is_idle = work_in_s == math.inf and self.suspension is None
        return Take(min(look_in_s, beat_in_s, work_in_s), is_idle)

    def _apply(self, channel: int, deliveries: list[Delivery]) -> Waits:
        """Have the lane apply the deliveries, however long it has to wait for its database."""
        self._is_all_announced = False
        while True:
            # A batch sees what a look would see.
            self._looked_at_s = began_at_s = self._proof.now_s()
            decision = self._lane.apply(deliveries, channel)
            self._observer.decided(self._proof.now_s() - began_at_s)
            self._proof.note(began_at_s)
            self._show_lease(channel)
            if isinstance(decision, Settlement):
                if (yield from self._announced(channel, decision)):
                    self._settle_void(channel, decision)
                    return
                self._settle(channel, decision)
                if not self._lane.has_batch:
                    self._is_all_announced = True
                    return
            elif isinstance(decision, Deposed):
                yield from self._deposed(channel)
                return
            elif (yield from self._suspended(channel, decision)):
                return

    def _announced(self, channel: int, settlement: Settlement) -> _IsVoid:
        """Announce the rows to the projection, however long the outcomes must wait for it.

        True: no outcome is to be sent, since the deliveries are void, the process stops, or another consumer has the
        lane.
        """
        projection = self._projection
        if projection is None:
            return False
        # A replayed outcome may be of another consumer's commit, which its projection does not show yet. Unlike a
        # commit of ours, reading the log proves nothing. If the epoch is still ours, there was no other consumer.
        while any(outcome.replayed for outcome in settlement.outcomes) and not self._proof.prove():
            if self._proof.is_over:
                yield from self._deposed(channel)
                return True
            if (yield from self._pause(channel, self._retry_delay_s)):
                return True
        while (wait_s := self._wait_s(projection, settlement)) > 0:
            if (yield from self._pause(channel, wait_s)):
                return True
        return False

    def _wait_s(self, projection: Projection, settlement: Settlement) -> float:
        """How long the outcomes must wait for the projection: not at all if it raises, against its contract."""
        try:
            return float(projection.committed(self._proof, settlement.saved, settlement.removed))
        except BaseException as error:  # noqa: BLE001  # a function of the service's author
            self._observer.projection_failed(error)
            return 0.0

    def _settle(self, channel: int, settlement: Settlement) -> None:
        self.suspension = None
        self._carrier.settle(channel, settlement)
        lease = self._lane.lease
        self._observer.settled(settlement, self._lane.gaps, None if lease is None else lease.sequence)
        self._keep_now_and_then(channel)

    def _settle_void(self, channel: int, settlement: Settlement) -> None:
        """Its deliveries come again, and their outcomes with them. What it has emitted and withdrawn is committed: of a
        process that stops the channel is there still, and what a timer emits next comes behind it."""
        if settlement.emitted or settlement.withdrawn:
            left = Settlement(emitted=settlement.emitted, withdrawn=settlement.withdrawn)
            self._carrier.settle(channel, left)

    def _suspended(self, channel: int, suspension: Suspension) -> _IsVoid:
        """Wait before the same deliveries are offered again; True: they are void now, or the process stops."""
        # Once commits are lost, this process may be the only one that knows how far the lane had come: from an earlier
        # channel, if the database is lost before it has taken the lane over for this one.
        if suspension.is_blocked or (suspension.stands_back and self._has_news(channel)):
            self._keep(channel)
        else:
            self._keep_now_and_then(channel)
        if suspension.needs_mark and not self._carrier.begin_again(channel):
            suspension = msgspec.structs.replace(suspension, delay_s=0.0)
        self._say(suspension)
        is_void = yield from self._pause(channel, suspension.delay_s)
        if not is_void and suspension.stands_back:
            return (yield from self._handed_over(channel))
        if is_void:
            # The wait is over. A standby gets no batch whose success would end the suspension.
            self.suspension = None
        return is_void

    def _handed_over(self, channel: int) -> _IsVoid:
        """Give the lane up, so that the next consumer gets it; True: its deliveries come again.

        The reason stays, since the lane comes back if there is no other. A standby's look at the database ends it.
        """
        if not self._carrier.hand_over(channel):
            return (yield from self._pause(channel, ALONE_S))
        self._lane.give_up(channel)
        self._given_up_channel = channel
        yield from self._pause(channel, HANDED_OVER_S)
        return True

    def _say(self, suspension: Suspension) -> None:
        """Reasons that alternate, or differ in their numbers only, are news once a minute."""
        before = self.suspended_reason
        is_due = suspension.reason != before and self._line.is_due(
            _NUMBER.sub("#", suspension.reason), self._proof.now_s()
        )
        is_first = is_due if suspension.is_unfit else before is None or is_due
        self._observer.suspended(suspension, is_first=is_first)
        if suspension.delay_s > 0:
            self.suspension = suspension

    def _pause(self, channel: int, delay_s: float) -> _IsVoid:
        """Wait; a lane that has to wait for long makes room in its outbox meanwhile."""
        paused: Paused = yield Pause(channel, delay_s)
        if paused.confirmed:
            self._lane.confirm(paused.confirmed)
        return paused.is_void

    def _has_news(self, channel: int) -> bool:
        """Whether this consumer has the lane, and knows more of it than the transport."""
        return self._knows_more and self._lane.has_lane(channel)

    @property
    def _knows_more(self) -> bool:
        lane = self._lane
        if lane.is_in_doubt:
            return False
        is_begun = lane.lineage != self._kept_lineage or (lane.knows_last and not self._has_kept_last)
        return lane.sequence > self._kept or lane.series_learnt > self._kept_series or (lane.sequence > 0 and is_begun)

    def _keep_now_and_then(self, channel: int) -> None:
        # After most batches it is too early.
        if self._proof.now_s() >= self._kept_at_s + KEEP_EVERY_S and self._has_news(channel):
            self._keep(channel)

    def _keep(self, channel: int) -> None:
        """Have the transport keep how far the lane has come, if that is news."""
        if self._knows_more:
            self._carrier.keep(channel, self._lane.mark())
            self._kept, self._kept_series = self._lane.sequence, self._lane.series_learnt
            self._kept_lineage, self._has_kept_last = self._lane.lineage, self._lane.knows_last
            self._kept_at_s = self._proof.now_s()

    def _show_lease(self, channel: int) -> None:
        """One that has lost its channel may stand by on the next: another consumer may have what waits."""
        lease = self._lane.lease if self._lane.has_lane(channel) else None
        self._observer.has_lease(lease, self._lane.takeovers)

    def _look_now_and_then(self, channel: int) -> Waits:
        """An idle lane, or a standby, says what the next batch would meet; a delivery does not wait for that."""
        if self._proof.now_s() < self._looked_at_s + WATCH_EVERY_S:
            return
        verdict = self._lane.look(channel)
        self._looked_at_s = self._proof.now_s()
        self._show_lease(channel)
        if isinstance(verdict, Deposed):
            yield from self._deposed(channel)
        elif verdict is not None:
            if verdict.is_blocked and self._lane.has_lane(channel):
                self._keep(channel)
            self._say(verdict)
        elif not self._sweeps_again:
            self.suspension = None
            if channel == self._given_up_channel:
                # It is there still only where the mark cannot be kept, and the database has what that says by now.
                self._carrier.begin_again(channel)

    def _deposed(self, channel: int) -> Waits:
        self._observer.deposed()
        self.suspension = None
        self._carrier.stand_by(channel)
        yield from self._pause(channel, DEPOSED_S)

    def _sweep(self, channel: int) -> Waits:
        """When there is no batch: remove confirmed entries of the outbox, and let the projection keep its lease."""
        swept_again, self._sweeps_again = self._sweeps_again, False
        began_at_s = self._proof.now_s()
        decision = self._lane.sweep(channel)
        self._proof.note(began_at_s)
        if isinstance(decision, Deposed):
            yield from self._deposed(channel)
        elif isinstance(decision, Suspension):
            self._sweeps_again = not (yield from self._suspended(channel, decision))
        else:
            if swept_again:
                self.suspension = None
            if decision is not None:
                self._carrier.settle(channel, decision)
        self._beat()

    def _beat(self) -> None:
        """Call the projection's `beat`, unless there may be a commit that was not announced to it."""
        if self._projection is not None and self._is_all_announced:
            try:
                self._projection.beat(self._proof)
            except BaseException as error:  # noqa: BLE001  # a function of the service's author
                self._observer.projection_failed(error)
