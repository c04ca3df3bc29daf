"""The lane's thread: what it says of itself while it is suspended, and afterwards."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import pytest
from structlog.testing import capture_logs

from coordinator.lane.delivery import Delivery, Deposed, Settlement, Suspension
from coordinator.lane.high_water import LastCommand, Mark
from coordinator.lane.lane import Lane
from coordinator.runtime.settings import LaneSettings
from coordinator.service.rows import Ref, Row
from coordinator.service.service import LeaseProof
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from coordinator.transports.inbox import Inbox
from coordinator.worker import loop
from coordinator.worker.lane_thread import LaneThread
from coordinator.worker.observed import EPOCH, PROJECTION_ERRORS
from tests.support.lane_contract import command_id, delivery
from tests.support.ledger import LEDGER, OpenAccount
from tests.support.store_contract import NOW

WITHIN_S = 10.0
SUSPENDED = Suspension(0.01, "the database is away")


class ScriptedLane(Lane):
    """Answers as a test says."""

    decision: Suspension | Deposed = SUSPENDED
    applied = 0
    swept: Suspension | None = None
    seen: Suspension | None = None

    def look(self, channel_number: int = 0) -> Suspension | None:
        del channel_number
        return self.seen

    def apply(self, deliveries: Sequence[Delivery], channel_number: int = 0) -> Suspension | Deposed:
        del deliveries, channel_number
        self.applied += 1
        return self.decision

    def sweep(self, channel_number: int = 0) -> Suspension | None:
        del channel_number
        return self.swept


class Settler:
    """Stands by when it is told to, and notes what it has to settle."""

    def __init__(self) -> None:
        self.stood_by = threading.Event()
        self.begun_again = threading.Event()
        self.handed_over = threading.Event()
        self.settlements: list[Settlement] = []
        self.marks: list[Mark] = []
        self.has_next_channel = True

    def settle(self, channel_number: int, settlement: Settlement) -> None:
        del channel_number
        self.settlements.append(settlement)

    def keep(self, channel: int, mark: Mark) -> None:
        del channel
        self.marks.append(mark)

    def stand_by(self, channel_number: int) -> None:
        del channel_number
        self.stood_by.set()

    def begin_again(self, channel: int) -> bool:
        del channel
        self.begun_again.set()
        return self.has_next_channel

    def hand_over(self, channel: int) -> bool:
        del channel
        self.handed_over.set()
        return self.has_next_channel


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


class Running:
    """A lane's thread, started."""

    def __init__(self) -> None:
        self.inbox = Inbox()
        self.settler = Settler()
        self.lane = ScriptedLane(
            LEDGER, MemoryStore(MemoryDatabase()), lambda: NOW, "test", LaneSettings(), time.monotonic
        )
        self.lane_thread = LaneThread("ledger", self.lane, self.inbox, self.settler, None, LaneSettings())
        self.thread = threading.Thread(target=self.lane_thread.run)
        self.thread.start()

    def until_suspended(self) -> None:
        until(lambda: self.lane_thread.suspended_reason == SUSPENDED.reason)

    def until_ready(self) -> None:
        until(lambda: self.lane_thread.suspended_reason is None)


@pytest.fixture
def running() -> Iterator[Running]:
    running = Running()
    yield running
    running.inbox.close()
    running.thread.join(WITHIN_S)
    assert not running.thread.is_alive()


def suspend(running: Running) -> None:
    channel_number = running.inbox.begin_channel()
    running.inbox.put(channel_number, lambda: delivery(1, OpenAccount(owner="Ada")))
    running.until_suspended()


def test_who_was_suspended_and_is_deposed_is_ready_as_a_standby(running: Running) -> None:
    suspend(running)
    running.lane.decision = Deposed()
    running.until_ready()
    assert running.settler.stood_by.wait(WITHIN_S)


def test_who_was_suspended_and_lost_the_broker_is_ready_as_a_standby(running: Running) -> None:
    suspend(running)
    running.inbox.begin_channel()
    running.until_ready()


def test_who_needs_the_mark_has_the_transport_begin_again_and_goes_on_with_the_next_channel(running: Running) -> None:
    running.lane.decision = Suspension(60.0, SUSPENDED.reason, needs_mark=True)
    suspend(running)
    assert running.settler.begun_again.wait(WITHIN_S)
    running.inbox.begin_channel()
    running.until_ready()


def test_who_was_suspended_by_a_sweep_is_ready_after_one_that_succeeds(running: Running) -> None:
    running.lane.swept = SUSPENDED
    running.inbox.nudge()
    running.until_suspended()
    running.lane.swept = None
    running.until_ready()


def test_an_idle_lane_says_what_its_next_batch_would_meet_and_when_that_is_over(running: Running) -> None:
    with capture_logs() as lines:
        running.lane.seen = Suspension(0.01, "NotAdmitted: its password has changed")
        until(lambda: running.lane_thread.suspended_reason == "NotAdmitted: its password has changed")
        running.lane.seen = None
        running.until_ready()
    assert [line["event"] for line in lines] == ["lane_suspended"]


def test_each_new_reason_of_a_suspension_is_logged_and_those_that_alternate_once(running: Running) -> None:
    away, refused = SUSPENDED, Suspension(0.01, "NotAdmitted: its password has changed")
    with capture_logs() as lines:
        suspend(running)
        for decision in (refused, away, refused, Suspension(0.01, "lost 5"), Suspension(0.01, "lost 6"), away):
            running.lane.decision = decision
            until(lambda wanted=decision.reason: running.lane_thread.suspended_reason == wanted)  # type: ignore[misc]
    assert [line["reason"] for line in lines] == [away.reason, refused.reason, "lost 5"]


def test_a_lane_that_has_to_wait_makes_room_in_its_outbox_meanwhile(running: Running) -> None:
    suspend(running)
    emitted = OutboxEntry(id=1, lane="x", command_id=command_id(1), type="x.do", arguments=b"{}", created_at=NOW)
    outbox = running.lane._transactions.outbox
    outbox.emitted([emitted])
    assert outbox.take() == [emitted]
    running.lane_thread.confirm_emitted([emitted])
    until(lambda: outbox.confirmed == [emitted])


class Projecting:
    """Implements `Projection`: follows at once, unless it is to wait."""

    beat_s = 0.01

    def __init__(self) -> None:
        self.wait_s = 0.0
        self.announced: list[tuple[int, float]] = []
        self.asked = threading.Event()
        self.beats = 0
        self.could_prove: bool | None = None

    def committed(self, proof: LeaseProof, saved: Sequence[Row], removed: Sequence[Ref[Row]]) -> float:
        del saved, removed
        self.announced.append((proof.sequence, proof.proved_at_s))
        self.asked.set()
        return self.wait_s

    def beat(self, proof: LeaseProof) -> None:
        self.could_prove = proof.prove()
        self.beats += 1

    def close(self) -> None:
        pass


class Projected:
    """The thread of a real lane, with a projection."""

    def __init__(self, projection: Projecting, settings: LaneSettings) -> None:
        self.database = MemoryDatabase()
        self.inbox = Inbox()
        self.settler = Settler()
        self.projection = projection
        lane = Lane(LEDGER, MemoryStore(self.database), lambda: NOW, "test", settings, time.monotonic)
        lane_thread = LaneThread("ledger", lane, self.inbox, self.settler, self.projection, settings)
        self.thread = threading.Thread(target=lane_thread.run)
        self.channel_number = self.inbox.begin_channel()

    def deliver(self, sent: Delivery) -> None:
        self.inbox.put(self.channel_number, lambda: sent)


@contextmanager
def projected(projection: Projecting | None = None, settings: LaneSettings | None = None) -> Iterator[Projected]:
    running = Projected(projection or Projecting(), settings or LaneSettings())
    running.thread.start()
    try:
        yield running
    finally:
        running.inbox.close()
        running.thread.join(WITHIN_S)
        assert not running.thread.is_alive()


def test_a_predecessor_that_does_not_come_is_given_up_though_nothing_arrives() -> None:
    with projected(settings=LaneSettings(gap_timeout_s=0.05)) as running:
        running.deliver(delivery(2, OpenAccount(owner="Bob"), publisher="p", publisher_seq=1))
        running.deliver(delivery(4, OpenAccount(owner="Cid"), publisher="p", publisher_seq=3))
        until(lambda: sum(len(settlement.outcomes) for settlement in running.settler.settlements) == 2)


def test_a_lane_that_is_blocked_has_kept_how_far_it_had_come() -> None:
    with projected() as running:
        running.deliver(delivery(1, OpenAccount(owner="Ada")))
        until(lambda: [mark.sequence for mark in running.settler.marks] == [1])
        running.deliver(delivery(2, OpenAccount(owner="Bob")))
        until(lambda: len(running.settler.settlements) == 2)
        # An older copy answers, and the transport is not told of every commit.
        running.database.sequence = 1
        running.deliver(delivery(3, OpenAccount(owner="Cid")))
        until(lambda: running.settler.marks[-1].sequence == 2)


def test_who_needs_the_mark_of_a_transport_that_has_no_other_channel_goes_on_at_once() -> None:
    with projected() as running:
        running.settler.has_next_channel = False
        running.database.revision, running.database.loss_accepted = 1, 5
        running.deliver(delivery(1, OpenAccount(owner="Ada")))
        until(lambda: len(running.settler.settlements) == 1)
        assert running.settler.begun_again.is_set()
        assert [outcome.sequence for outcome in running.settler.settlements[0].outcomes] == [6]


def test_after_a_lost_channel_it_shows_no_epoch_until_something_is_delivered() -> None:
    """Another consumer may have what waits, and have not taken the lane over: its database is away, or is another."""
    with projected() as running:
        running.deliver(delivery(1, OpenAccount(owner="Ada")))
        until(lambda: EPOCH.labels("ledger")._value.get() == 1)
        running.channel_number = running.inbox.begin_channel()
        until(lambda: EPOCH.labels("ledger")._value.get() == 0)
        running.deliver(delivery(2, OpenAccount(owner="Bob")))
        until(lambda: EPOCH.labels("ledger")._value.get() == 2)


def test_ids_that_the_kept_mark_lacks_are_kept_though_nothing_is_committed() -> None:
    with projected() as running:
        sent = delivery(1, OpenAccount(owner="Ada"))
        before = Lane(LEDGER, MemoryStore(running.database), lambda: NOW, "before", LaneSettings(), time.monotonic)
        assert isinstance(before.apply([sent]), Settlement)
        running.inbox.learn(Mark(sequence=1, epoch=1))
        running.deliver(sent)
        until(lambda: [mark.series for mark in running.settler.marks] == [{"accounts": 1}])


def test_the_last_command_that_the_kept_mark_does_not_name_is_kept_though_nothing_is_committed() -> None:
    """As a process of an earlier release has kept it."""
    with projected() as running:
        sent = delivery(1, OpenAccount(owner="Ada"))
        before = Lane(LEDGER, MemoryStore(running.database), lambda: NOW, "before", LaneSettings(), time.monotonic)
        assert isinstance(before.apply([sent]), Settlement)
        running.inbox.learn(Mark(sequence=1, epoch=1, series={"accounts": 1}, lineage=running.database.lineage))
        running.deliver(sent)
        until(lambda: [mark.last for mark in running.settler.marks] == [LastCommand(1, command_id(1))])


def test_outcomes_wait_for_the_projection() -> None:
    with projected() as running:
        running.projection.wait_s = 0.01
        began_at_s = time.monotonic()
        running.deliver(delivery(1, OpenAccount(owner="Ada")))
        until(lambda: len(running.projection.announced) > 3)
        assert running.settler.settlements == []
        sequence, proved_at_s = running.projection.announced[-1]
        assert sequence == 1
        assert began_at_s <= proved_at_s <= time.monotonic()
        running.projection.wait_s = 0.0
        until(lambda: len(running.settler.settlements) == 1)


def test_a_stop_ends_the_wait_and_settles_nothing() -> None:
    with projected() as running:
        running.projection.wait_s = 600.0
        running.deliver(delivery(1, OpenAccount(owner="Ada")))
        assert running.projection.asked.wait(WITHIN_S)
    assert running.settler.settlements == []


def test_a_new_channel_ends_the_wait_and_what_is_delivered_again_is_settled() -> None:
    with projected() as running:
        running.projection.wait_s = 600.0
        sent = delivery(1, OpenAccount(owner="Ada"))
        running.deliver(sent)
        assert running.projection.asked.wait(WITHIN_S)
        running.channel_number = running.inbox.begin_channel()
        for _ in range(3):
            # Whoever has taken two of these has swept, and would have beaten, in between.
            running.inbox.nudge()
            until(lambda: not running.inbox._is_nudged)
        assert running.projection.beats == 0, "something is committed and not told"
        running.projection.wait_s = 0.0
        running.deliver(sent)
        until(lambda: len(running.settler.settlements) == 1)
        assert running.settler.settlements[0].outcomes[0].replayed
        until(lambda: running.projection.beats > 0)


def test_an_idle_lane_beats_and_can_prove_its_epoch_until_another_takes_over() -> None:
    with projected() as running:
        running.deliver(delivery(1, OpenAccount(owner="Ada")))
        until(lambda: running.projection.beats > 1)
        assert running.projection.could_prove
        MemoryStore(running.database).take_over("another", NOW)
        until(lambda: running.projection.could_prove is False)


def test_what_another_may_have_committed_is_not_replied_again_by_who_was_taken_over() -> None:
    with projected() as running:
        sent = delivery(1, OpenAccount(owner="Ada"))
        running.deliver(sent)
        until(lambda: len(running.settler.settlements) == 1)
        MemoryStore(running.database).take_over("another", NOW)
        running.deliver(sent)
        assert running.settler.stood_by.wait(WITHIN_S)
        assert len(running.settler.settlements) == 1


class Broken(Projecting):
    """Raises, against its contract."""

    def committed(self, proof: LeaseProof, saved: Sequence[Row], removed: Sequence[Ref[Row]]) -> float:
        super().committed(proof, saved, removed)
        raise SystemExit("a projection's own bug")

    def beat(self, proof: LeaseProof) -> None:
        super().beat(proof)
        raise RuntimeError("another")


def test_a_projection_that_raises_ends_nothing_and_is_counted() -> None:
    with projected(Broken()) as running:

        def has_settled(number: int) -> bool:
            return len(running.settler.settlements) == number

        before = PROJECTION_ERRORS.labels("ledger")._value.get()
        for number in (1, 2):
            running.deliver(delivery(number, OpenAccount(owner=f"o{number}")))
            until(partial(has_settled, number))
        until(lambda: running.projection.beats > 2)
        assert PROJECTION_ERRORS.labels("ledger")._value.get() - before >= 4


OUTDATED = Suspension(0.01, "a newer release must take the lane over", is_unfit=True, stands_back=True)
LOST = Suspension(
    0.01, "its database has lost 7 commands", is_blocked=True, is_unfit=True, stands_back=True, cause="commits_lost"
)
UNFIT = pytest.mark.parametrize("unfit", [OUTDATED, LOST], ids=["outdated", "lost"])


def unfit_for(running: Running, unfit: Suspension) -> int:
    running.lane.decision = unfit
    channel_number = running.inbox.begin_channel()
    running.inbox.put(channel_number, lambda: delivery(1, OpenAccount(owner="Ada")))
    until(lambda: running.lane_thread.suspended_reason == unfit.reason)
    return channel_number


@UNFIT
def test_a_lane_that_another_process_must_have_is_given_up_and_says_so_once(
    running: Running, unfit: Suspension
) -> None:
    with capture_logs() as lines:
        for _ in range(3):
            # Nobody took it the time before: it is given up again.
            unfit_for(running, unfit)
            assert running.settler.handed_over.wait(WITHIN_S)
            running.settler.handed_over.clear()
    assert [line["reason"] for line in lines if line["event"] == "lane_suspended"] == [unfit.reason]
    running.inbox.begin_channel()
    running.until_ready()


@UNFIT
def test_a_lane_alone_that_another_process_must_have_keeps_its_deliveries(running: Running, unfit: Suspension) -> None:
    running.settler.has_next_channel = False
    channel_number = unfit_for(running, unfit)
    assert running.settler.handed_over.wait(WITHIN_S)
    assert running.inbox.channel_number == channel_number
    assert running.lane_thread.suspended_reason == unfit.reason


def test_what_another_process_is_to_know_is_told_before_the_lane_is_given_up(running: Running) -> None:
    running.lane.learn(Mark(sequence=7, epoch=2))
    unfit_for(running, LOST)
    assert running.settler.handed_over.wait(WITHIN_S)
    assert [mark.sequence for mark in running.settler.marks] == [7]


@UNFIT
def test_a_channel_that_cannot_be_handed_over_ends_all_the_same_once_nothing_is_in_the_way(
    running: Running, monkeypatch: pytest.MonkeyPatch, unfit: Suspension
) -> None:
    """The broker keeps no mark, as under an alarm. The lane's deliveries come on another channel only."""
    monkeypatch.setattr(loop, "HANDED_OVER_S", 0.01)
    running.lane.seen = LOST
    unfit_for(running, unfit)
    assert running.settler.handed_over.wait(WITHIN_S)
    until(lambda: running.lane_thread.suspended_reason == LOST.reason)
    assert not running.settler.begun_again.is_set()
    # An operator has accepted the loss, or what the database is like was never in the way.
    running.lane.seen = None
    assert running.settler.begun_again.wait(WITHIN_S)


def test_who_has_given_the_lane_up_stands_by_and_tries_nothing_more_of_that_channel(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis tells one that waits for its turn of no other channel until then."""
    monkeypatch.setattr(loop, "HANDED_OVER_S", 0.01)
    channel_number = unfit_for(running, LOST)
    assert running.settler.handed_over.wait(WITHIN_S)
    # It sees what its own database is like meanwhile.
    running.lane.seen = Suspension(1.0, "another reason", is_blocked=True, is_unfit=True)
    until(lambda: running.lane_thread.suspended_reason == "another reason")
    running.lane.applied = 0
    running.inbox.put(channel_number, lambda: delivery(2, OpenAccount(owner="Bob")))
    until(lambda: not running.inbox._deliveries)
    running.lane.seen = None
    running.until_ready()
    assert running.lane.applied == 0
    assert not running.lane.has_lane(channel_number)
    assert not running.settler.stood_by.is_set()
    unfit_for(running, LOST)
    assert running.lane.applied > 0
