"""The lane's thread: takes what has arrived, lets the lane decide, and has its decisions carried out."""

import threading
from collections import Counter as Counts
from collections.abc import Sequence
from typing import Protocol, get_args

import structlog
from prometheus_client import Counter, Gauge, Histogram

from coordinator.lane.authors import described, traced
from coordinator.lane.delivery import Delivery, Deposed, Hold, Settlement
from coordinator.lane.lane import Lane
from coordinator.runtime.settings import LaneSettings
from coordinator.service.outcome import Status
from coordinator.service.service import Projection
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.worker.inbox import Inbox
from coordinator.worker.tenure import LaneTenure

COMMANDS = Counter("lane_commands_total", "Commands settled.", ["lane", "status"])
REPLAYED = Counter("lane_replayed_total", "Commands whose recorded outcome was returned again.", ["lane"])
DEAD_LETTERS = Counter("lane_dead_letters_total", "Commands dead-lettered.", ["lane"])
DROPPED = Counter(
    "lane_dead_letters_dropped_total", "Dead letters without a usable id that were one too many.", ["lane"]
)
HOLDS = Counter("lane_holds_total", "Batches that had to wait for the database.", ["lane"])
PROJECTION_ERRORS = Counter("lane_projection_errors_total", "Errors of the lane's projection.", ["lane"])
TAKEOVERS = Counter("lane_takeovers_total", "Times that this process took the lane over.", ["lane"])
BATCH_SECONDS = Histogram("lane_batch_seconds", "Time to apply and commit one batch.", ["lane"])
BATCH_COMMANDS = Histogram(
    "lane_batch_commands",
    "Commands of one batch.",
    ["lane"],
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
GAPS = Gauge("lane_publisher_gaps", "Missing predecessors of publisher sessions that were given up.", ["lane"])
SEQUENCE = Gauge("lane_sequence", "The last sequence settled by this process.", ["lane"])
EPOCH = Gauge("lane_epoch", "The epoch held by this process; 0 while it stands by.", ["lane"])

LOGGED_MAX = 10

log = structlog.get_logger("lane")


class Settler(Protocol):
    """Carries out what a lane decided: the RabbitMQ consumer, or the in-process transport."""

    def settle(self, generation: int, settlement: Settlement) -> None:
        """Reply, publish and acknowledge."""

    def publish_emitted(self, entries: Sequence[OutboxEntry]) -> None:
        """Publish emitted commands."""

    def stand_by(self, generation: int) -> None:
        """Give the lane up."""


class _Metrics:
    """The metrics of one lane, looked up once: a batch of one command would spend as long on it as on its handler."""

    def __init__(self, lane: str) -> None:
        self.batch_seconds = BATCH_SECONDS.labels(lane)
        self.takeovers = TAKEOVERS.labels(lane)
        self.epoch = EPOCH.labels(lane)
        self.gaps = GAPS.labels(lane)
        self.sequence = SEQUENCE.labels(lane)
        self.holds = HOLDS.labels(lane)
        self.projection_errors = PROJECTION_ERRORS.labels(lane)
        self._batch_commands = BATCH_COMMANDS.labels(lane)
        self._dead_letters = DEAD_LETTERS.labels(lane)
        self._dropped = DROPPED.labels(lane)
        self._replayed = REPLAYED.labels(lane)
        self._commands = {status: COMMANDS.labels(lane, status) for status in get_args(Status)}

    def settled(self, settlement: Settlement) -> None:
        """Count what became of a batch."""
        self._batch_commands.observe(len(settlement.outcomes))
        counts = Counts("replayed" if outcome.replayed else outcome.status for outcome in settlement.outcomes)
        for status, count in counts.items():
            (self._replayed if status == "replayed" else self._commands[status]).inc(count)
        if settlement.dead_letters:
            self._dead_letters.inc(len(settlement.dead_letters))
        if settlement.dropped:
            self._dropped.inc(settlement.dropped)


class LaneWorker:
    """Runs one lane until its inbox is closed."""

    def __init__(
        self,
        name: str,
        lane: Lane,
        inbox: Inbox,
        settler: Settler,
        projection: Projection | None,
        settings: LaneSettings,
    ) -> None:
        self._name = name
        self._lane = lane
        self._inbox = inbox
        self._settler = settler
        self._projection = projection
        self._tenure = LaneTenure(lane)
        self._settings = settings
        self._epoch = 0
        self._is_all_told = False
        self._takeovers = 0
        self._metrics = _Metrics(name)
        self._confirmed_lock = threading.Lock()
        self._confirmed: list[OutboxEntry] = []
        self.held_reason: str | None = None

    def confirm_emitted(self, entries: Sequence[OutboxEntry]) -> None:
        """The broker has these commands. Called by the settler, from any thread."""
        with self._confirmed_lock:
            self._confirmed.extend(entries)
        self._inbox.nudge()

    def run(self) -> None:
        """Return when the inbox is closed; the batch in flight is finished first."""
        while not self._inbox.is_closed:
            due_in_s = self._due_in_s()
            generation, deliveries = self._inbox.take(
                self._settings.batch_commands_max, self._settings.batch_bytes_max, due_in_s
            )
            self._collect_confirmed()
            if deliveries or self._lane.due_in_s(generation) == 0:
                self._apply(generation, deliveries)
            else:
                self._sweep(generation)
                self._beat()

    def _due_in_s(self) -> float | None:
        """When there is something to do though nothing arrives."""
        due_in_s = self._lane.due_in_s(self._inbox.generation)
        if self._projection is None or not self._is_all_told:
            return due_in_s
        return self._projection.beat_s if due_in_s is None else min(due_in_s, self._projection.beat_s)

    def _beat(self) -> None:
        """Not while something may be committed that the projection was not told of."""
        if self._projection is not None and self._is_all_told and not self._inbox.is_closed:
            try:
                self._projection.beat(self._tenure)
            except BaseException as error:  # noqa: BLE001  # a function of the service's author
                self._projection_failed(error)

    def _apply(self, generation: int, deliveries: list[Delivery]) -> None:
        """Have the lane apply them, however long it has to hold."""
        self._is_all_told = False
        while True:
            began_at_s = self._tenure.now_s()
            decision = self._lane.apply(deliveries, generation)
            self._metrics.batch_seconds.observe(self._tenure.now_s() - began_at_s)
            self._tenure.note(began_at_s)
            self._note_lease()
            if isinstance(decision, Settlement):
                if not self._projected(generation, decision):
                    return
                self._settled(generation, decision)
                if not self._lane.has_batch:
                    self._is_all_told = True
                    return
            elif isinstance(decision, Deposed):
                self._deposed(generation)
                return
            elif self._held(generation, decision):
                return

    def _note_lease(self) -> None:
        lease = self._lane.lease
        epoch = 0 if lease is None else lease.epoch
        if lease is not None and epoch != self._epoch:
            event = "lane_taken_over" if self._lane.takeovers > self._takeovers else "lane_renewed"
            log.info(event, lane=self._name, epoch=epoch, sequence=lease.sequence)
            self._epoch = epoch
        self._metrics.takeovers.inc(self._lane.takeovers - self._takeovers)
        self._takeovers = self._lane.takeovers
        self._metrics.epoch.set(epoch)

    def _projected(self, generation: int, settlement: Settlement) -> bool:
        """Have the projection follow, however long the outcomes must wait for it.

        False: nothing of it is to be told, since the deliveries are void, the process stops, or the lane is another's.
        """
        projection = self._projection
        if projection is None:
            return True
        # What is replayed may be another's commit, which a projection of his does not show yet: unlike a commit of
        # ours, reading the log proves nothing. Where the epoch is ours still, there has been no other.
        while any(outcome.replayed for outcome in settlement.outcomes) and not self._tenure.prove():
            if self._tenure.is_over:
                self._deposed(generation)
                return False
            if self._inbox.wait_void(generation, self._settings.retry_delay_s):
                return False
        while (wait_s := self._wait_s(projection, settlement)) > 0:
            if self._inbox.wait_void(generation, wait_s):
                return False
        return True

    def _wait_s(self, projection: Projection, settlement: Settlement) -> float:
        """How long the outcomes must wait for the projection. For one that raises, against its contract, not at all."""
        try:
            return float(projection.committed(self._tenure, settlement.saved, settlement.removed))
        except BaseException as error:  # noqa: BLE001  # a function of the service's author
            self._projection_failed(error)
            return 0.0

    def _projection_failed(self, error: BaseException) -> None:
        self._metrics.projection_errors.inc()
        log.error("projection_failed", lane=self._name, reason=described(error), traceback=traced(error))

    def _settled(self, generation: int, settlement: Settlement) -> None:
        self.held_reason = None
        self._settler.settle(generation, settlement)
        self._metrics.settled(settlement)
        self._log_dead(settlement)
        self._metrics.gaps.set(self._lane.gaps)
        if self._lane.lease is not None:
            self._metrics.sequence.set(self._lane.lease.sequence)

    def _log_dead(self, settlement: Settlement) -> None:
        """A line for each, but not for thousands at once: they can be read in the database."""
        for letter in settlement.dead_letters[:LOGGED_MAX]:
            log.warning(
                "dead_lettered",
                lane=self._name,
                letter=letter.id,
                copies=letter.copies,
                command_id=letter.command_id,
                type=letter.type,
                code=letter.code,
                reason=letter.reason,
            )
        more = len(settlement.dead_letters) - LOGGED_MAX
        if more > 0:
            log.warning("more_dead_lettered", lane=self._name, letters=more)
        if settlement.dropped:
            log.warning("dead_letters_dropped", lane=self._name, messages=settlement.dropped)

    def _held(self, generation: int, hold: Hold) -> bool:
        """Wait before the same deliveries are offered again; True: they are void now, or the process stops."""
        self._metrics.holds.inc()
        if hold.delay_s > 0:
            if self.held_reason is None:
                log.error("lane_held", lane=self._name, reason=hold.reason, retry_s=hold.delay_s)
            self.held_reason = hold.reason
        is_void = self._inbox.wait_void(generation, hold.delay_s)
        if is_void:
            # Nothing is held here any more. A standby gets no batch whose success would say so.
            self.held_reason = None
        return is_void

    def _deposed(self, generation: int) -> None:
        log.warning("lane_lost", lane=self._name, reason="another consumer raised the epoch")
        self.held_reason = None
        self._settler.stand_by(generation)
        # Nothing of this generation is worth a try: wait for the broker's next word.
        self._inbox.wait_void(generation, 60.0)

    def _collect_confirmed(self) -> None:
        with self._confirmed_lock:
            confirmed, self._confirmed = self._confirmed, []
        if confirmed:
            self._lane.confirm(confirmed)

    def _sweep(self, generation: int) -> None:
        if self._inbox.is_closed:
            return
        began_at_s = self._tenure.now_s()
        decision = self._lane.sweep()
        self._tenure.note(began_at_s)
        if isinstance(decision, Deposed):
            self._deposed(generation)
        elif isinstance(decision, Hold):
            if not self._held(generation, decision):
                self._inbox.nudge()
        else:
            self.held_reason = None
            if decision is not None:
                self._settler.publish_emitted(decision.emitted)
