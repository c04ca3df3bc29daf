"""The lane's thread: drives the lane's loop, and waits for it."""

import threading
from collections.abc import Sequence
from typing import Any, Final

from coordinator.lane.delivery import SuspensionCause
from coordinator.lane.lane import Lane
from coordinator.lane.publisher_order import SESSION_GAP
from coordinator.runtime.awaited import Awaited
from coordinator.runtime.recording import Attributes, recorder
from coordinator.runtime.settings import LaneSettings
from coordinator.service.rows import Ref, Row
from coordinator.service.service import LeaseProof, Projection
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.stores.port import Trouble
from coordinator.transports.inbox import Inbox
from coordinator.transports.port import Carrier
from coordinator.worker.lane_gauges import show_state
from coordinator.worker.lane_spans import TimedAwaited, TracedObserver
from coordinator.worker.lease_proof import LaneLeaseProof
from coordinator.worker.loop import LaneLoop, Observer, Pause, Paused, Take, Taken
from coordinator.worker.observed import Observed

_OWN_CODE = "its own code, most likely a handler"
_PROJECTION = "the projection"
SAID_AFTER_S: Final = 3.0
"""As of an answer that is late: what a command waits for is said by then."""


class LaneThread:
    """Runs one lane until its inbox is closed."""

    def __init__(
        self,
        name: str,
        lane: Lane,
        inbox: Inbox,
        carrier: Carrier,
        projection: Projection | None,
        settings: LaneSettings,
        awaited: Awaited | None = None,
        *,
        database: Attributes = (),
        messaging: Attributes = (),
    ) -> None:
        """`awaited` has what the thread waits for; the lane's store notes its calls there too.

        Where it keeps their times, spans are recorded; `database` and `messaging` are what is said of these.
        """
        self._awaited = awaited or Awaited()
        self._inbox = inbox
        self._settings = settings
        self._confirmed_lock = threading.Lock()
        self._confirmed: list[OutboxEntry] = []
        watched = None if projection is None else _WatchedProjection(projection, self._awaited)
        observer: Observer = Observed(name, lane.types, settings.logged_batch_s, database, lane.reviewed)
        if isinstance(self._awaited, TimedAwaited) and (recording := recorder()) is not None:
            observer = TracedObserver(observer, recording, name, self._awaited, database=database, messaging=messaging)
        self._loop = LaneLoop(lane, carrier, watched, LaneLeaseProof(lane), observer, settings.retry_delay_s)
        show_state(name, lane, lambda: self._loop.suspension, lambda: self._loop.early_s)

    @property
    def suspended_reason(self) -> str | None:
        """Why the lane has to wait for its database, or for an operator; None: it does not."""
        return self._loop.suspended_reason

    @property
    def suspended_cause(self) -> SuspensionCause | None:
        """The kind of that reason."""
        suspension = self._loop.suspension
        return None if suspension is None else suspension.cause

    @property
    def trouble(self) -> Trouble:
        """What to look at where that is the database."""
        suspension = self._loop.suspension
        return "away" if suspension is None else suspension.trouble

    @property
    def awaits_database(self) -> bool:
        """Whether it has to wait since its database is away, or takes nothing."""
        return self.suspended_cause == "database"

    @property
    def is_paused(self) -> bool:
        """Whether it has to wait since an operator has paused it."""
        suspension = self._loop.suspension
        return suspension is not None and suspension.cause in ("paused", "move")

    @property
    def said(self) -> str | None:
        """What waits though the lane goes on, in words; None: nothing, or not for long."""
        early_s = self._loop.early_s
        if early_s < SAID_AFTER_S:
            return None
        return (
            f"a command has waited {early_s:.0f} s {SESSION_GAP}, which the lane gives up after "
            f"{self._settings.gap_timeout_s:g} s (LANE_GAP_TIMEOUT_S)"
        )

    def confirm_emitted(self, entries: Sequence[OutboxEntry]) -> None:
        """The transport has made these commands safe. Called from any thread."""
        with self._confirmed_lock:
            self._confirmed.extend(entries)
        self._inbox.nudge()

    def run(self) -> None:
        """Return when the inbox is closed; the batch in flight is finished first."""
        waits = self._loop.run()
        answer: Any = None
        while True:
            before = self._awaited.begin(_OWN_CODE)
            try:
                wanted = waits.send(answer)
            except StopIteration:
                return
            finally:
                self._awaited.end(before)
            answer = self._taken(wanted) if isinstance(wanted, Take) else self._paused(wanted)

    def _taken(self, wanted: Take) -> Taken:
        channel, deliveries = self._inbox.take(
            self._settings.batch_commands_max, self._settings.batch_bytes_max, wanted.timeout_s
        )
        return Taken(channel, deliveries, self._take_confirmed(), self._inbox.is_closed, self._inbox.take_mark())

    def _paused(self, wanted: Pause) -> Paused:
        is_void = self._inbox.wait_void(wanted.channel, wanted.delay_s)
        return Paused(is_void, self._take_confirmed())

    def _take_confirmed(self) -> list[OutboxEntry]:
        with self._confirmed_lock:
            confirmed, self._confirmed = self._confirmed, []
        return confirmed


class _WatchedProjection:
    """Implements `Projection` by another one, and notes each call while it lasts."""

    def __init__(self, projection: Projection, awaited: Awaited) -> None:
        self._projection = projection
        self._awaited = awaited
        self.beat_s = projection.beat_s

    def committed(self, proof: LeaseProof, saved: Sequence[Row], removed: Sequence[Ref[Row]]) -> float:
        before = self._awaited.begin(_PROJECTION)
        try:
            return self._projection.committed(proof, saved, removed)
        finally:
            self._awaited.end(before)

    def beat(self, proof: LeaseProof) -> None:
        before = self._awaited.begin(_PROJECTION)
        try:
            self._projection.beat(proof)
        finally:
            self._awaited.end(before)

    def close(self) -> None:
        self._projection.close()
