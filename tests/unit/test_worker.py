"""The lane's thread: what it says of itself while it is held, and afterwards."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from coordinator.inbox import Inbox
from coordinator.lane.delivery import Delivery, Deposed, Hold
from coordinator.lane.lane import Lane
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from coordinator.worker import LaneWorker
from shared.lane_tables import OutboxEntry
from shared.settings import LaneSettings
from tests.support.lane_contract import delivery
from tests.support.ledger import LEDGER, OpenAccount
from tests.support.store_contract import NOW

WITHIN_S = 10.0
HELD = Hold(0.01, "the database is away")


class ScriptedLane(Lane):
    """Answers as a test says."""

    decision: Hold | Deposed = HELD
    swept: Hold | None = None

    def apply(self, deliveries: Sequence[Delivery], generation: int) -> Hold | Deposed:
        del deliveries, generation
        return self.decision

    def sweep(self) -> Hold | None:
        return self.swept


class Settler:
    """Stands by when it is told to, and settles nothing."""

    def __init__(self) -> None:
        self.stood_by = threading.Event()

    def settle(self, generation: int, settlement: object) -> None:
        raise AssertionError(generation, settlement)

    def publish_emitted(self, entries: Sequence[OutboxEntry]) -> None:
        raise AssertionError(entries)

    def stand_by(self, generation: int) -> None:
        del generation
        self.stood_by.set()


class Running:
    """A worker in a thread of its own."""

    def __init__(self) -> None:
        self.inbox = Inbox()
        self.settler = Settler()
        self.lane = ScriptedLane(
            LEDGER, MemoryStore(MemoryDatabase()), lambda: NOW, "test", LaneSettings(), time.monotonic
        )
        self.worker = LaneWorker("ledger", self.lane, self.inbox, self.settler, None, LaneSettings())
        self.thread = threading.Thread(target=self.worker.run)
        self.thread.start()

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WITHIN_S
        while not condition():
            assert time.monotonic() < deadline
            threading.Event().wait(0.005)

    def until_held(self) -> None:
        self.until(lambda: self.worker.held_reason == HELD.reason)

    def until_ready(self) -> None:
        self.until(lambda: self.worker.held_reason is None)


@pytest.fixture
def running() -> Iterator[Running]:
    running = Running()
    yield running
    running.inbox.close()
    running.thread.join(WITHIN_S)
    assert not running.thread.is_alive()


def hold(running: Running) -> None:
    generation = running.inbox.begin_generation()
    running.inbox.put(generation, lambda: delivery(1, OpenAccount(owner="Ada")))
    running.until_held()


def test_who_was_held_and_is_deposed_is_ready_as_a_standby(running: Running) -> None:
    hold(running)
    running.lane.decision = Deposed()
    running.until_ready()
    assert running.settler.stood_by.wait(WITHIN_S)


def test_who_was_held_and_lost_the_broker_is_ready_as_a_standby(running: Running) -> None:
    hold(running)
    running.inbox.begin_generation()
    running.until_ready()


def test_who_was_held_by_a_sweep_is_ready_after_one_that_succeeds(running: Running) -> None:
    running.lane.swept = HELD
    running.inbox.nudge()
    running.until_held()
    running.lane.swept = None
    running.until_ready()
