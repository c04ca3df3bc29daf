"""What a lane promises where its database has lost commits that were acknowledged, on every store."""

from typing import Protocol

import msgspec
import pytest

from coordinator.lane import high_water, knowledge
from coordinator.lane.delivery import Deposed, Settlement, Suspension
from coordinator.lane.high_water import MARK_BYTES_MAX, SERIES_MAX, Mark
from coordinator.stores.lane_tables import NAMELESS, LogEntry, Series
from coordinator.stores.port import Lease
from tests.support.lane_contract import LaneUnderTest, codes, delivery
from tests.support.ledger import Account, Deposit, OpenAccount
from tests.support.letter_contract import pack
from tests.support.store_contract import NOW, OpenStore, changes, commit


class AcceptLoss(Protocol):
    """What an operator has: `LaneAdmin.accept_loss`."""

    def __call__(self, sequence: int, up_to: int, lineage: str | None = None) -> int: ...


NO_MARKS = (
    b"",
    b"[]",
    b"\xff",
    b'{"x":' * 50_000,
    b" " * (MARK_BYTES_MAX + 1),
    b'{"sequence":-1}',
    b'{"sequence":9007199254740992}',
    b'{"epoch":9223372036854775807}',
    b'{"series":{"accounts":-1}}',
    b'{"series":{"a\\u0000":1}}',
    b'{"series":{"\xc3\xa4":1}}',
    b'{"series":{"' + b"a" * 65 + b'":1}}',
    b'{"series":{"' + b"a" * 64 + b'\\n":1}}',
    b'{"last":"a"}',
    b'{"last":{"sequence":1}}',
    b'{"last":{"sequence":-1,"command_id":"a"}}',
    b'{"last":{"sequence":1,"command_id":"' + b"a" * 65 + b'"}}',
    b'{"lineage":""}',
    b'{"lineage":"a b"}',
    b'{"lineage":"a\\n"}',
    b'{"lineage":"' + b"a" * 65 + b'"}',
    msgspec.json.encode({"supersedes": "a\n"}),
    msgspec.json.encode({"supersedes": "a" * 601}),
    msgspec.json.encode({"series": {str(number): 1 for number in range(SERIES_MAX + 1)}}),
)
"""What somebody may put where a mark is kept."""

AHEAD = Mark(sequence=12, epoch=40, series={"accounts": 7, "invoices": 3})


class LossContract:
    @pytest.fixture
    def accept_loss(self) -> AcceptLoss:
        """Of the store of `open_store`."""
        raise NotImplementedError

    @pytest.fixture
    def behind(self, open_store: OpenStore) -> LaneUnderTest:
        """A lane of two accounts, whose next process knows that it had come to sequence 12."""
        LaneUnderTest(open_store()).do(OpenAccount(owner="a"), OpenAccount(owner="b"))
        lane = LaneUnderTest(open_store(), "next")
        lane.lane.learn(AHEAD)
        return lane

    def test_a_lane_whose_database_is_behind_stops_and_says_from_which_to_which(self, behind: LaneUnderTest) -> None:
        before = behind.store.current()
        suspended = behind.lane.apply([delivery(1, Deposit(id=1, amount=5))])
        assert isinstance(suspended, Suspension)
        assert "ends at sequence 2, and 12 was acknowledged" in suspended.reason
        assert "`coordinator accept-loss ledger --at 2 --up-to 12`" in suspended.reason
        assert behind.store.current() == before
        assert behind.balance(1) == 0

    def test_a_database_without_a_lane_is_behind_too(self, open_store: OpenStore) -> None:
        lane = LaneUnderTest(open_store())
        lane.lane.learn(AHEAD)
        suspended = lane.lane.apply([delivery(1, OpenAccount(owner="a"))])
        assert isinstance(suspended, Suspension)
        assert "ends at sequence 0, and 12 was acknowledged" in suspended.reason
        assert lane.rows(LogEntry) == []

    def test_once_accepted_nothing_that_was_given_out_is_given_out_again(
        self, behind: LaneUnderTest, accept_loss: AcceptLoss
    ) -> None:
        assert accept_loss(2, 12) == 2
        assert [outcome.sequence for outcome in behind.do(Deposit(id=1, amount=5), OpenAccount(owner="c"))] == [13, 14]
        assert behind.lane.lease is not None
        assert behind.lane.lease.epoch == 41
        assert [row.id for row in behind.rows(Account)] == [1, 2, 8]
        assert {row.name: row.value for row in behind.rows(Series)}["invoices"] == 3

    def test_a_mark_has_the_ids_that_were_given_out_before_it_began(self, open_store: OpenStore) -> None:
        """Its process gave out none of them, and reads them when it takes the lane over."""
        LaneUnderTest(open_store()).do(OpenAccount(owner="a"), OpenAccount(owner="b"))
        next_one = LaneUnderTest(open_store(), "next")
        next_one.do(Deposit(id=1, amount=5))
        mark = next_one.lane.mark()
        assert mark.series == {"accounts": 2}
        after = LaneUnderTest(open_store(), "after")
        after.lane.learn(mark)
        after.do(Deposit(id=1, amount=5))
        assert (next_one.lane.series_learnt, after.lane.series_learnt) == (1, 0)

    def test_a_mark_remembers_the_series_that_were_used_last_of_more_than_it_may_have(
        self, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(high_water, "SERIES_MAX", 2)
        monkeypatch.setattr(knowledge, "SERIES_MAX", 2)
        store = open_store()
        rows = [Series(name=name, value=number) for number, name in enumerate("abcz", 1)]
        commit(store, store.take_over("before", NOW), changes(inserts=rows), 1)
        lane = LaneUnderTest(open_store(), "next")
        lane.lane.learn(Mark(sequence=1, epoch=1, series={"z": 1}))
        lane.do(Deposit(id=1, amount=5))
        assert lane.lane.mark().series == {"c": 3, "z": 4}
        assert lane.lane.mark().is_partial

    def test_letters_that_are_gone_take_no_room_once_it_is_accepted(
        self, open_store: OpenStore, accept_loss: AcceptLoss
    ) -> None:
        """Of messages without an id there were more letters than there are now: that number was not given out."""
        before = LaneUnderTest(open_store())
        before.do(OpenAccount(owner="a"))
        before.settle(pack(b"{}"))
        assert set(before.lane.mark().series) == {"accounts", "dead_letters"}
        lane = LaneUnderTest(open_store(), "next")
        lane.lane.learn(Mark(sequence=12, epoch=40, series={NAMELESS["public"]: 3}))
        accept_loss(before.lane.sequence, 12)
        lane.do(OpenAccount(owner="b"))
        assert {row.name: row.value for row in lane.rows(Series)}[NAMELESS["public"]] == 1

    def test_an_empty_database_is_accepted_as_one(self, open_store: OpenStore, accept_loss: AcceptLoss) -> None:
        assert accept_loss(0, 12) == 0
        lane = LaneUnderTest(open_store())
        lane.lane.learn(AHEAD)
        (outcome,) = lane.do(OpenAccount(owner="a"))
        assert outcome.sequence == 13
        assert [row.id for row in lane.rows(Account)] == [8]

    def test_whoever_sees_no_loss_that_was_accepted_asks_the_transport_how_far_the_lane_had_come(
        self, open_store: OpenStore, accept_loss: AcceptLoss
    ) -> None:
        """Another consumer was blocked by it, after this one's channel had begun."""
        LaneUnderTest(open_store()).do(OpenAccount(owner="a"), OpenAccount(owner="b"))
        lane = LaneUnderTest(open_store(), "next")
        before = lane.store.current()
        accept_loss(2, 12)
        suspended = lane.lane.apply([delivery(1, Deposit(id=1, amount=5))])
        assert isinstance(suspended, Suspension)
        assert suspended.needs_mark
        current = lane.store.current()
        assert before is not None
        assert current is not None
        assert (current.epoch, current.sequence) == (before.epoch, before.sequence)
        lane.lane.learn(AHEAD)
        assert [outcome.sequence for outcome in lane.do(Deposit(id=1, amount=5))] == [13]

    def test_a_loss_of_which_nobody_knows_more_is_taken_as_accepted(
        self, open_store: OpenStore, accept_loss: AcceptLoss
    ) -> None:
        LaneUnderTest(open_store()).do(OpenAccount(owner="a"), OpenAccount(owner="b"))
        lane = LaneUnderTest(open_store(), "next")
        accept_loss(2, 12)
        assert isinstance(lane.lane.apply([delivery(1, Deposit(id=1, amount=5))]), Suspension)
        assert [outcome.sequence for outcome in lane.do(Deposit(id=1, amount=5))] == [13]

    def test_only_what_was_seen_is_accepted(self, behind: LaneUnderTest, accept_loss: AcceptLoss) -> None:
        assert accept_loss(1, 12) == 2
        assert isinstance(behind.lane.apply([delivery(1, Deposit(id=1, amount=5))]), Suspension)

    def test_a_loss_that_is_accepted_is_not_the_next_one(
        self, open_store: OpenStore, behind: LaneUnderTest, accept_loss: AcceptLoss
    ) -> None:
        accept_loss(2, 12)
        behind.do(Deposit(id=1, amount=5))
        later = LaneUnderTest(open_store(), "later")
        later.lane.learn(Mark(sequence=20, epoch=41))
        assert isinstance(later.lane.apply([delivery(1, Deposit(id=1, amount=5))]), Suspension)

    def test_a_copy_that_was_made_when_a_loss_was_accepted_does_not_accept_the_next_one(
        self, open_store: OpenStore, behind: LaneUnderTest, accept_loss: AcceptLoss
    ) -> None:
        """This is that copy: the lane has gone on elsewhere, and has come to 20."""
        assert accept_loss(behind.lane.lease.sequence if behind.lane.lease else 2, 12) == 2
        later = LaneUnderTest(open_store(), "later")
        later.lane.learn(Mark(sequence=20, epoch=41))
        suspended = later.lane.apply([delivery(1, Deposit(id=1, amount=5))])
        assert isinstance(suspended, Suspension)
        assert "--at 2 --up-to 20" in suspended.reason
        accept_loss(2, 20)
        assert [outcome.sequence for outcome in later.do(Deposit(id=1, amount=5))] == [21]

    def test_a_lane_that_lost_nothing_goes_above_what_an_operator_accepts_and_that_is_over(
        self, open_store: OpenStore, accept_loss: AcceptLoss
    ) -> None:
        lane = LaneUnderTest(open_store())
        lane.do(OpenAccount(owner="a"))
        accept_loss(1, 5)
        fenced, asked = (lane.lane.apply([delivery(1, Deposit(id=1, amount=5))]) for _ in range(2))
        assert isinstance(fenced, Suspension)
        assert isinstance(asked, Suspension)
        assert asked.needs_mark
        assert [outcome.sequence for outcome in lane.do(Deposit(id=1, amount=5))] == [6]
        current = lane.store.current()
        assert current is not None
        assert current.lost_up_to is None

    def test_what_was_lost_is_applied_when_it_is_sent_again(
        self, behind: LaneUnderTest, accept_loss: AcceptLoss
    ) -> None:
        accept_loss(2, 12)
        lost = delivery(99, OpenAccount(owner="lost"), redelivered=True)
        assert codes(behind.outcomes(lost)) == ["applied"]
        assert codes(behind.outcomes(lost)) == ["applied"]
        assert [row.owner for row in behind.rows(Account)] == ["a", "b", "lost"]

    def test_a_consumer_that_has_the_lane_notices_too(self, open_store: OpenStore) -> None:
        """Its connection was lost, and leads to another copy now."""
        lane = LaneUnderTest(open_store())
        lane.do(OpenAccount(owner="a"))
        lane.lane.learn(AHEAD)
        lane.store.close()
        lane.lane._tenancy.doubt()
        assert isinstance(lane.lane.apply([delivery(1, OpenAccount(owner="b"))]), Suspension)
        assert not lane.lane.is_current()

    def test_an_idle_lane_says_what_is_lost_and_writes_nothing(
        self, open_store: OpenStore, accept_loss: AcceptLoss
    ) -> None:
        lane = LaneUnderTest(open_store())
        lane.do(OpenAccount(owner="a"))
        assert lane.lane.look() is None
        lane.lane.learn(AHEAD)
        before = lane.store.current()
        suspended = lane.lane.look()
        assert isinstance(suspended, Suspension)
        assert suspended.is_blocked
        assert "ends at sequence 1, and 12 was acknowledged" in suspended.reason
        assert lane.store.current() == before
        accept_loss(1, 12)
        accepted = lane.store.current()
        assert lane.lane.look() is None
        assert lane.store.current() == accepted
        assert [outcome.sequence for outcome in lane.do(OpenAccount(owner="b"))] == [13]

    def test_an_idle_lane_looks_again_on_another_connection_and_keeps_its_lease(self, open_store: OpenStore) -> None:
        lane = LaneUnderTest(open_store())
        lane.do(OpenAccount(owner="a"))
        lease = lane.lane.lease
        lane.store.close()
        assert lane.lane.look() is None
        lane.lane._tenancy.block()
        assert lane.lane.look() is None
        assert lane.lane.lease == lease == lane.store.current()

    def test_an_idle_lane_learns_that_another_consumer_has_it(self, open_store: OpenStore) -> None:
        lane = LaneUnderTest(open_store())
        lane.do(OpenAccount(owner="a"))
        LaneUnderTest(open_store(), "another").do(OpenAccount(owner="b"))
        assert isinstance(lane.lane.look(), Deposed)
        assert lane.lane.lease is None

    def test_a_standby_says_what_is_lost(self, behind: LaneUnderTest) -> None:
        suspended = behind.lane.look()
        assert isinstance(suspended, Suspension)
        assert "ends at sequence 2, and 12 was acknowledged" in suspended.reason

    def test_a_standby_that_saw_how_far_the_lane_was_asks_which_ids_were_given_out(
        self, open_store: OpenStore, accept_loss: AcceptLoss
    ) -> None:
        """A look at the lease shows no ids."""
        LaneUnderTest(open_store()).do(OpenAccount(owner="a"), OpenAccount(owner="b"))
        standby = LaneUnderTest(open_store(), "standby")
        standby.lane._high_water.rise(12, 1)
        accept_loss(2, 12)
        asked = standby.lane.apply([delivery(1, OpenAccount(owner="c"))])
        assert isinstance(asked, Suspension)
        assert asked.needs_mark

    def test_a_standby_knows_how_far_the_lane_was(self, open_store: OpenStore) -> None:
        LaneUnderTest(open_store()).do(OpenAccount(owner="a"), OpenAccount(owner="b"))
        standby = LaneUnderTest(open_store(), "standby")
        assert standby.lane.look() is None
        assert standby.lane.sequence == 2
        assert isinstance(standby.lane.apply([delivery(1, OpenAccount(owner="c"))]), Settlement)

    def test_taking_over_goes_above_an_epoch(self, open_store: OpenStore) -> None:
        assert open_store().take_over("first", NOW, 6) == Lease(7, 0, holder="first")
        assert open_store().take_over("second", NOW, 3) == Lease(8, 0, holder="second")
        assert open_store().take_over("third", NOW, 9) == Lease(10, 0, holder="third")
