"""A batch whose deliveries are void before its outcomes may leave: what it has emitted leaves in its place."""

from typing import Any

from coordinator.lane.delivery import Settlement
from coordinator.lane.high_water import Mark
from coordinator.lane.lane import Lane
from coordinator.runtime.settings import LaneSettings
from coordinator.service.commands import Command
from coordinator.service.service import Service
from coordinator.service.unit_of_work import UnitOfWork
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from coordinator.worker.lease_proof import LaneLeaseProof
from coordinator.worker.loop import LaneLoop, Pause, Paused, Take, Taken
from coordinator.worker.observed import Observed
from tests.support.lane_contract import delivery
from tests.support.store_contract import NOW

RELAYS = Service("relays")


class Relay(Command, type="relays.relay"):
    number: int


class Relayed(Command, type="ends.relayed"):
    number: int


@RELAYS.handles(Relay)
def relay(work: UnitOfWork, command: Relay) -> None:
    work.emit(Relayed(number=command.number))


class Slow:
    """A projection that is not there yet."""

    beat_s = 60.0

    def __init__(self) -> None:
        self.waits = True

    def committed(self, *_: object) -> float:
        return 0.1 if self.waits else 0.0

    def beat(self, *_: object) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


class Carrier:
    def __init__(self) -> None:
        self.settled: list[Settlement] = []

    def settle(self, _: int, settlement: Settlement) -> None:
        self.settled.append(settlement)

    def keep(self, channel: int, mark: Mark) -> None:
        """The transport's."""

    def stand_by(self, channel: int) -> Any:
        raise AssertionError(channel)

    def begin_again(self, channel: int) -> bool:
        raise AssertionError(channel)

    def hand_over(self, channel: int) -> bool:
        raise AssertionError(channel)


def test_what_a_void_batch_has_emitted_is_sent_before_what_comes_next() -> None:
    lane = Lane(RELAYS, MemoryStore(MemoryDatabase()), lambda: NOW, "test", LaneSettings(), lambda: 0.0)
    carrier, projection = Carrier(), Slow()
    proof = LaneLeaseProof(lane, lambda: 0.0)
    running = LaneLoop(lane, carrier, projection, proof, Observed("relays", ()), 0.1).run()
    next(running)
    wanted = running.send(Taken(1, [delivery(1, Relay(number=1))], (), is_closed=False))
    assert isinstance(wanted, Pause), wanted
    assert carrier.settled == []
    # The connection is lost meanwhile.
    assert isinstance(running.send(Paused(is_void=True)), Take)
    projection.waits = False
    assert isinstance(running.send(Taken(1, [delivery(2, Relay(number=2))], (), is_closed=False)), Take)
    sent = [(entry.id, each.tags, each.replies) for each in carrier.settled for entry in each.emitted]
    assert [number for number, _, _ in sent] == [1, 2]
    assert sent[0][1:] == ([], [])
    assert sent[1][1]
