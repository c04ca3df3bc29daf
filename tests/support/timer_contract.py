"""What a lane promises of timers, on every store. Each store's tests inherit this class."""

from datetime import datetime, timedelta

import msgspec
import pytest
from msgspec import Struct

from coordinator.lane.control import CancelTimers
from coordinator.lane.delivery import Deposed, Settlement, Suspension
from coordinator.lane.timers import MOVED_MAX
from coordinator.service.commands import Command
from coordinator.service.errors import Rejected
from coordinator.service.ids import derived_command_id
from coordinator.service.service import Service
from coordinator.service.unit_of_work import Handler, UnitOfWork
from coordinator.stores.lane_tables import TIMERS_WAITING, OutboxEntry, Series, Timer
from coordinator.stores.port import Changes, Conflict, Lease, StoreUnavailable, Transaction
from tests.support.lane_contract import LaneUnderTest, codes, command_id, delivery
from tests.support.ledger import LEDGER, Deposit, OpenAccount
from tests.support.store_contract import NOW, OpenStore

MS = timedelta(milliseconds=1)


class SetTimers(Command, type="ledger.set_timers", kw_only=True):
    """Have deposits made later: one after each of so many milliseconds."""

    after_ms: list[int]
    amount: int = 1


class TakeBack(Command, type="ledger.take_back"):
    command_id: str


class TimerIds(Struct, frozen=True):
    """The ids of the commands."""

    ids: list[str]


def set_timers(work: UnitOfWork, command: SetTimers) -> TimerIds:
    deposit = Deposit(id=1, amount=command.amount)
    return TimerIds([work.emit(deposit, after=ms * MS) for ms in command.after_ms])


def take_back(work: UnitOfWork, command: TakeBack) -> None:
    if not work.cancel(command.command_id):
        raise Rejected("too_late", "it no longer waits")


LEDGER_WITH_TIMERS = Service(
    name="ledger",
    models=LEDGER.models,
    metadata=LEDGER.metadata,
    handlers=(*LEDGER.handlers, Handler(SetTimers, set_timers), Handler(TakeBack, take_back)),
)


def lane_on(open_store: OpenStore, holder: str = "test") -> LaneUnderTest:
    lane = LaneUnderTest(open_store(), holder, LEDGER_WITH_TIMERS)
    if not lane.rows(Timer):
        lane.do(OpenAccount(owner="a"))
    return lane


def set_in(lane: LaneUnderTest, *after_ms: int, amount: int = 1) -> list[str]:
    (outcome,) = lane.do(SetTimers(after_ms=list(after_ms), amount=amount))
    return msgspec.json.decode(outcome.result, type=TimerIds).ids


def fired(lane: LaneUnderTest) -> list[str]:
    """The commands that one sweep hands out."""
    decision = lane.lane.sweep(lane.channel_number)
    assert decision is None or isinstance(decision, Settlement), decision
    return [] if decision is None else [entry.command_id for entry in decision.emitted]


def waiting(lane: LaneUnderTest) -> int:
    """How many timers there are, as it is counted."""
    counted = {row.name: row.value for row in lane.rows(Series)}.get(TIMERS_WAITING, 0)
    assert counted == len(lane.rows(Timer))
    return counted


def timer_of(lane: LaneUnderTest, number: int, position: int, amount: int = 1) -> str:
    """The id of the command that a `SetTimers` sets there."""
    content = b"ledger.deposit\n" + msgspec.json.encode(Deposit(id=1, amount=amount))
    return derived_command_id(f"{SetTimers.type} {command_id(number)}", position, content, lane.first_secret())


def transaction_type_of(lane: LaneUnderTest) -> type[Transaction]:
    transaction = lane.store.begin()
    transaction.rollback()
    return type(transaction)


def forget(lane: LaneUnderTest, number: int) -> None:
    """As `log prune` does."""
    entries = [entry for entry in lane.log() if entry.command_id == command_id(number)]
    lease = lane.lane.lease
    assert lease is not None
    transaction = lane.store.begin()
    transaction.commit(lease, lease.sequence, Changes([entries], [], []))


class TimerContract:
    def test_timers_move_into_the_outbox_by_due_time_and_then_as_they_were_set(self, open_store: OpenStore) -> None:
        lane = lane_on(open_store)
        a, b, c, d = set_in(lane, 3000, 1000, 2000, 1000)
        (e,) = set_in(lane, 1000, amount=2)
        assert fired(lane) == []
        assert lane.lane.timers_in_s() == 1.0
        lane.now = NOW + timedelta(seconds=1) - MS
        assert fired(lane) == []
        lane.now = NOW + timedelta(seconds=2)
        assert lane.lane.timers_in_s() == 0
        assert fired(lane) == [b, d, e, c]
        assert [entry.command_id for entry in lane.rows(OutboxEntry)] == [b, d, e, c]
        assert [timer.command_id for timer in lane.rows(Timer)] == [a]
        assert waiting(lane) == 1
        assert fired(lane) == []
        lane.now += timedelta(seconds=1)
        assert fired(lane) == [a]
        assert waiting(lane) == 0
        assert lane.lane.timers_in_s() is None

    def test_a_timer_that_is_set_last_may_be_due_first(self, open_store: OpenStore) -> None:
        lane = lane_on(open_store)
        set_in(lane, 5000)
        set_in(lane, 1000)
        assert lane.lane.timers_in_s() == 1.0

    def test_a_timer_has_all_that_its_command_needs(self, open_store: OpenStore) -> None:
        lane = lane_on(open_store)
        set_in(lane, 7)
        (timer,) = lane.rows(Timer)
        assert (timer.due_at, timer.set_at, timer.lane) == (NOW + 7 * MS, NOW, "ledger")
        assert timer.about == timer.command_id
        lane.now += 7 * MS
        fired(lane)
        (entry,) = lane.rows(OutboxEntry)
        assert (entry.command_id, entry.type, entry.arguments) == (timer.command_id, timer.type, timer.arguments)
        assert entry.created_at == NOW + 7 * MS

    def test_a_successor_fires_what_was_due_while_nobody_had_the_lane(self, open_store: OpenStore) -> None:
        before = lane_on(open_store)
        ids = set_in(before, 10, 20)
        lane = LaneUnderTest(open_store(), "successor", LEDGER_WITH_TIMERS)
        lane.now = NOW + timedelta(days=1)
        # A consumer that was not delivered to has not taken the lane over.
        assert fired(lane) == []
        lane.do(Deposit(id=1, amount=1))
        assert lane.lane.timers_in_s() == 0
        assert fired(lane) == ids
        before.now = lane.now
        # It sees that there is nothing to move, and would be fenced if there were.
        assert fired(before) == []
        assert [entry.command_id for entry in lane.rows(OutboxEntry)] == ids

    def test_an_uncertain_move_is_made_once(self, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its answer is lost: what was moved is in the outbox, and is read there."""
        lane = lane_on(open_store)
        ids = set_in(lane, 1, 2, 3)
        lane.now += timedelta(seconds=1)
        transaction_type = transaction_type_of(lane)
        commit = transaction_type.commit
        lost = ["the answer"]

        def losing(self: Transaction, lease: Lease, sequence: int, written: Changes) -> None:
            commit(self, lease, sequence, written)
            if lost:
                raise StoreUnavailable(f"lost {lost.pop()}")

        monkeypatch.setattr(transaction_type, "commit", losing)
        assert isinstance(lane.lane.sweep(), Suspension)
        assert not lost
        assert lane.rows(Timer) == []
        settlement = lane.settle(delivery(900, Deposit(id=1, amount=1)))
        assert [entry.command_id for entry in settlement.emitted] == ids
        assert [entry.command_id for entry in lane.rows(OutboxEntry)] == ids
        assert waiting(lane) == 0

    def test_a_move_that_did_not_happen_is_made_again(
        self, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lane = lane_on(open_store)
        ids = set_in(lane, 1, 2)
        lane.now += timedelta(seconds=1)
        transaction_type = transaction_type_of(lane)
        with monkeypatch.context() as patch:

            def refusing(self: object, lease: Lease, sequence: int, written: Changes) -> None:
                raise Conflict("simulated")

            patch.setattr(transaction_type, "commit", refusing)
            assert isinstance(lane.lane.sweep(), Suspension)
        assert len(lane.rows(Timer)) == 2
        assert fired(lane) == ids

    def test_a_clock_that_jumps_back_fires_nothing_twice(self, open_store: OpenStore) -> None:
        lane = lane_on(open_store)
        first, second = set_in(lane, 1000, 2000)
        lane.now = NOW + timedelta(seconds=1)
        assert fired(lane) == [first]
        lane.now = NOW - timedelta(days=1)
        assert fired(lane) == []
        lane.now = NOW + timedelta(seconds=2)
        assert fired(lane) == [second]

    def test_a_timer_that_is_taken_back_never_comes(self, open_store: OpenStore) -> None:
        lane = lane_on(open_store)
        first, second = set_in(lane, 1000, 2000)
        assert codes(lane.do(TakeBack(command_id=first), TakeBack(command_id=first))) == ["applied", "too_late"]
        assert waiting(lane) == 1
        lane.now += timedelta(seconds=5)
        assert fired(lane) == [second]
        assert codes(lane.do(TakeBack(command_id=second))) == ["too_late"]

    def test_a_timer_is_taken_back_in_the_batch_that_sets_it(self, open_store: OpenStore) -> None:
        lane = lane_on(open_store)
        outcomes = lane.outcomes(
            delivery(7, SetTimers(after_ms=[1000, 1000])),
            delivery(8, TakeBack(command_id=timer_of(lane, 7, 1))),
            delivery(9, TakeBack(command_id=timer_of(lane, 7, 1))),
        )
        assert codes(outcomes) == ["applied", "applied", "too_late"]
        assert [timer.command_id for timer in lane.rows(Timer)] == [timer_of(lane, 7, 0)]
        assert waiting(lane) == 1

    def test_a_timer_that_is_set_again_since_the_log_was_pruned_is_the_same_command(
        self, open_store: OpenStore
    ) -> None:
        lane = lane_on(open_store)
        setting = SetTimers(after_ms=[1000])
        lane.settle(delivery(7, setting))
        forget(lane, 7)
        lane.now += MS
        assert codes(lane.outcomes(delivery(7, setting, redelivered=True))) == ["applied"]
        assert [timer.command_id for timer in lane.rows(Timer)] == [timer_of(lane, 7, 0)] * 2
        assert codes(lane.do(TakeBack(command_id=timer_of(lane, 7, 0)))) == ["applied"]
        assert waiting(lane) == 0

    def test_a_consumer_that_was_taken_over_moves_nothing(self, open_store: OpenStore) -> None:
        zombie = lane_on(open_store)
        ids = set_in(zombie, 10)
        successor = LaneUnderTest(open_store(), "successor", LEDGER_WITH_TIMERS)
        successor.do(Deposit(id=1, amount=1))
        zombie.now = successor.now = NOW + timedelta(seconds=1)
        assert isinstance(zombie.lane.sweep(), Deposed)
        assert waiting(successor) == 1
        assert fired(successor) == ids

    def test_a_rejected_command_leaves_no_timer_and_takes_none_back(self, open_store: OpenStore) -> None:
        lane = lane_on(open_store)
        (kept,) = set_in(lane, 1000)
        assert codes(lane.do(TakeBack(command_id=command_id(99)))) == ["too_late"]
        assert waiting(lane) == 1
        lane.now += timedelta(seconds=1)
        assert fired(lane) == [kept]

    def test_more_timers_are_due_than_one_transaction_moves(
        self, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("coordinator.lane.timers.MOVED_MAX", 2)
        lane = lane_on(open_store)
        ids = set_in(lane, 1, 2, 3, 4, 5)
        lane.now += timedelta(seconds=1)
        moved = []
        while lane.lane.timers_in_s() == 0:
            moved.append(len(found := fired(lane)))
            ids = ids[len(found) :]
        assert (moved, ids) == ([2, 2, 1], [])
        assert waiting(lane) == 0

    def test_timers_are_not_moved_one_by_one_where_each_is_due_a_little_later(self, open_store: OpenStore) -> None:
        lane = lane_on(open_store)
        set_in(lane, 1, 2, 3)
        lane.now += MS
        assert len(fired(lane)) == 1
        lane.now += MS
        assert lane.lane.timers_in_s() == 0.05
        lane.elapsed_s += 0.05
        lane.now += MS
        assert lane.lane.timers_in_s() == 0
        assert len(fired(lane)) == 2

    def test_an_operator_takes_timers_back(self, open_store: OpenStore) -> None:
        lane = lane_on(open_store)
        first, _, third = set_in(lane, 1000, 2000, 3000)
        timers = lane.rows(Timer)
        order = CancelTimers(timers=[timers[0].id, timers[2].id, "0-0"], by="ann")
        (outcome,) = lane.do(order)
        assert msgspec.json.decode(outcome.result) == {"command_ids": [first, third], "by": "ann"}
        assert [timer.id for timer in lane.rows(Timer)] == [timers[1].id]
        assert waiting(lane) == 1

    def test_times_are_kept_to_the_millisecond_to_the_end_of_time(self, open_store: OpenStore) -> None:
        lane = lane_on(open_store)
        end = datetime(9999, 12, 31, 23, 59, 59, 998000, tzinfo=NOW.tzinfo)
        set_in(lane, (end - NOW) // MS)
        assert [timer.due_at for timer in lane.rows(Timer)] == [end]
        assert MOVED_MAX > 1
