"""The loop of a lane wakes for its timers: on time when it is idle, and between batches when it never is."""

from datetime import timedelta
from typing import Any

from coordinator.lane.delivery import Settlement
from coordinator.lane.high_water import Mark
from coordinator.lane.lane import Lane
from coordinator.runtime.settings import LaneSettings
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from coordinator.worker.lease_proof import LaneLeaseProof
from coordinator.worker.loop import LaneLoop, Pause, Take, Taken
from coordinator.worker.observed import Observed
from tests.support.lane_contract import delivery
from tests.support.store_contract import NOW
from tests.support.timers import SEATS, Hold


class Driven:
    """The loop, driven by a test, which has the time; what the loop settles and publishes."""

    def __init__(self) -> None:
        self.elapsed_s = 0.0
        self.published: list[str] = []
        self._numbers = 0
        clock = lambda: NOW + timedelta(seconds=self.elapsed_s)  # noqa: E731
        self.database = MemoryDatabase()
        lane = Lane(SEATS, MemoryStore(self.database), clock, "test", LaneSettings(), lambda: self.elapsed_s)
        proof = LaneLeaseProof(lane, lambda: self.elapsed_s)
        self._running = LaneLoop(lane, self, None, proof, Observed("seats", ()), 0.1).run()
        self.wanted: Take | Pause = next(self._running)

    def take(self, *holds: Hold) -> Take:
        """Let these arrive; what the loop waits for then."""
        self._numbers += len(holds)
        deliveries = [delivery(self._numbers + place, hold) for place, hold in enumerate(holds)]
        self.wanted = self._running.send(Taken(1, deliveries, (), is_closed=False))
        assert isinstance(self.wanted, Take), self.wanted
        return self.wanted

    def settle(self, channel: int, settlement: Settlement) -> None:
        del channel
        self.published += [entry.type for entry in settlement.emitted]

    def keep(self, channel: int, mark: Mark) -> None:
        """The transport's."""

    def stand_by(self, channel: int) -> Any:
        raise AssertionError(channel)

    def begin_again(self, channel: int) -> bool:
        raise AssertionError(channel)

    def hand_over(self, channel: int) -> bool:
        raise AssertionError(channel)


def test_an_idle_lane_wakes_when_its_first_timer_is_due() -> None:
    driven = Driven()
    driven.take(Hold(id=1, after_ms=5000))
    assert driven.take(Hold(id=2, after_ms=300)).timeout_s == 0.3
    driven.elapsed_s = 0.3
    wanted = driven.take()
    assert driven.published == ["seats.release"]
    assert wanted.timeout_s > 0.3


def test_a_lane_that_is_never_idle_fires_its_timers_between_two_batches() -> None:
    driven = Driven()
    driven.take(Hold(id=1, after_ms=300))
    for tenth in range(1, 6):
        driven.elapsed_s = tenth / 10
        driven.take(Hold(id=1 + tenth, after_ms=3_600_000))
    assert driven.published == ["seats.release"]
