"""What a lane promises where its database is not the one in which its commands were applied, on every store.

Every test has one database, and makes another of it by what its process knows: that of a mark of another history.
"""

from typing import Final, NoReturn

import msgspec
import pytest

from coordinator.lane.delivery import Suspension
from coordinator.lane.high_water import LastCommand, Mark, both, decode_mark, encode_mark
from coordinator.stores.lane_tables import Series
from coordinator.stores.lineages import SUPERSEDED_MAX
from coordinator.stores.port import Lease, StoreUnavailable
from tests.support.lane_contract import LaneUnderTest, delivery
from tests.support.ledger import Account, Deposit, OpenAccount
from tests.support.loss_contract import AcceptLoss
from tests.support.store_contract import NOW, OpenStore

OTHER: Final = Mark(sequence=1, epoch=40, series={"accounts": 7, "invoices": 3}, lineage="other")
"""Of a database in which the lane has not come as far as in the test's."""


_ELSEWHERE: Final = "0192f0c1-0000-7000-8000-00000000e15e"


def _applied_elsewhere(lineage: str | None) -> Mark:
    """The same, where a copy of the lane's database has gone on by itself."""
    return msgspec.structs.replace(OTHER, lineage=lineage, last=LastCommand(1, _ELSEWHERE))


def _lease(lane: LaneUnderTest) -> Lease:
    lease = lane.store.current()
    assert lease is not None
    return lease


def _refused(lane: LaneUnderTest) -> str:
    before = _lease(lane)
    suspended = lane.lane.apply([delivery(1, Deposit(id=1, amount=5))])
    assert isinstance(suspended, Suspension)
    assert suspended.is_blocked
    assert _lease(lane) == before
    return suspended.reason


class LineageContract:
    def _ahead(self, open_store: OpenStore) -> LaneUnderTest:
        """The next process of a lane of two accounts, before it knows anything."""
        LaneUnderTest(open_store()).do(OpenAccount(owner="a"), OpenAccount(owner="b"))
        return LaneUnderTest(open_store(), "next")

    def test_a_lineage_is_begun_once_and_stays(self, open_store: OpenStore) -> None:
        assert open_store().take_over("first", NOW, 6, "a").lineage == "a"
        assert open_store().take_over("second", NOW, 3, "b").lineage == "a"
        last = open_store().take_over("third", NOW)
        assert last.lineage == "a"
        assert open_store().renew("third", NOW, last.epoch).lineage == "a"

    def test_a_database_of_an_earlier_release_has_the_lineage_of_the_mark(self, open_store: OpenStore) -> None:
        open_store().take_over("earlier", NOW)
        lane = LaneUnderTest(open_store(), "next")
        lane.lane.learn(Mark(sequence=0, lineage="nobody's"))
        lane.do(OpenAccount(owner="a"))
        own = _lease(lane).lineage
        assert own not in (None, "nobody's")
        assert lane.lane.mark().lineage == own
        again = LaneUnderTest(open_store(), "again")
        again.lane.learn(lane.lane.mark())
        again.do(OpenAccount(owner="b"))
        assert again.lane.mark().lineage == own

    def test_a_copy_that_has_gone_on_by_itself_is_another_database(
        self, open_store: OpenStore, accept_loss: AcceptLoss
    ) -> None:
        """It has come as far, and further, in the same lineage."""
        lane = self._ahead(open_store)
        before = _lease(lane).lineage
        lane.lane.learn(_applied_elsewhere(before))
        reason = _refused(lane)
        assert f"it ends at sequence 2 in lineage {before}, and 1 was acknowledged in another copy of that" in reason
        assert f"1 was {_ELSEWHERE} there, and is {lane.store.command_at(1)} here" in reason
        assert "`coordinator accept-loss ledger --at 2 --up-to 1`" in reason
        assert lane.lane.mark() == _applied_elsewhere(before)
        assert accept_loss(2, 1, before) == 2
        done = lane.do(Deposit(id=1, amount=5), OpenAccount(owner="c"))
        assert [outcome.sequence for outcome in done] == [3, 4]
        assert [row.id for row in lane.rows(Account)] == [1, 2, 8]
        after = _lease(lane)
        assert (after.lineage == before, after.supersedes) == (False, f"{before} +2")
        assert lane.lane.mark().last == LastCommand(4, str(lane.store.command_at(4)))

    def test_a_copy_in_which_less_was_accepted_as_lost_is_another_database(
        self, open_store: OpenStore, accept_loss: AcceptLoss
    ) -> None:
        """It has come further since, in a lineage for which the lane's own was given up."""
        before = _lease(self._ahead(open_store)).lineage
        accept_loss(2, 5, before)
        there = LaneUnderTest(open_store(), "there")
        there.lane.learn(Mark(sequence=5, epoch=1, lineage=before))
        there.do(*(Deposit(id=1, amount=5) for _ in range(4)))
        lane = LaneUnderTest(open_store(), "own")
        known = Mark(sequence=8, epoch=1, series={"accounts": 7}, lineage=before)
        lane.lane.learn(known)
        reason = _refused(lane)
        assert f"for which lineage {before} was given up up to 5, and 8 was acknowledged in that" in reason
        assert "`coordinator accept-loss ledger --at 9 --up-to 8`" in reason
        assert lane.lane.mark() == known
        assert accept_loss(9, 8, before) == 9
        done = lane.do(Deposit(id=1, amount=5), OpenAccount(owner="c"))
        assert [outcome.sequence for outcome in done] == [10, 11]
        assert [row.id for row in lane.rows(Account)] == [1, 2, 8]

    def test_what_was_only_seen_of_a_lineage_that_is_given_up_blocks_nobody(
        self, open_store: OpenStore, accept_loss: AcceptLoss
    ) -> None:
        """A standby sees its own database go on after a loss, and the transport has no mark of that yet."""
        lane = self._ahead(open_store)
        known = Mark(sequence=5, epoch=1, lineage=_lease(lane).lineage)
        standby = LaneUnderTest(open_store(), "standby")
        for each in (lane, standby):
            each.lane.learn(known)
        accept_loss(2, 5, known.lineage)
        lane.do(*(Deposit(id=1, amount=5) for _ in range(4)))
        assert standby.lane.look() is None
        standby.lane.learn(known)
        assert [outcome.sequence for outcome in standby.do(Deposit(id=1, amount=5))] == [10]

    def test_a_lane_that_is_at_work_in_such_a_copy_stops_as_soon_as_it_knows(self, open_store: OpenStore) -> None:
        """Behind a broker a lane in one process may have gone further by itself."""
        lane = LaneUnderTest(open_store())
        lane.do(OpenAccount(owner="a"), OpenAccount(owner="b"))
        lane.lane.learn(_applied_elsewhere(_lease(lane).lineage))
        assert not lane.lane.is_current()
        assert f"1 was {_ELSEWHERE} there" in _refused(lane)
        assert lane.lane.mark().last == LastCommand(1, _ELSEWHERE)
        looked = lane.lane.look()
        assert isinstance(looked, Suspension)
        assert looked.is_blocked

    def test_so_does_one_in_a_copy_in_which_less_was_accepted_as_lost(
        self, open_store: OpenStore, accept_loss: AcceptLoss
    ) -> None:
        before = _lease(self._ahead(open_store)).lineage
        accept_loss(2, 5, before)
        accepted = Mark(sequence=5, epoch=1, lineage=before)
        lane = LaneUnderTest(open_store(), "there")
        lane.lane.learn(accepted)
        lane.do(*(Deposit(id=1, amount=5) for _ in range(4)))
        lane.lane.learn(accepted)
        assert lane.lane.is_current()
        known = Mark(sequence=8, epoch=_lease(lane).epoch, series={"accounts": 7}, lineage=before)
        lane.lane.learn(known)
        assert not lane.lane.is_current()
        assert f"for which lineage {before} was given up up to 5, and 8 was acknowledged in that" in _refused(lane)
        assert lane.lane.mark() == known
        assert accept_loss(9, 8, before) == 9
        assert [outcome.sequence for outcome in lane.do(Deposit(id=1, amount=5))] == [10]

    def test_a_standby_says_so_and_what_it_saw_there_is_not_the_lanes(self, open_store: OpenStore) -> None:
        lane = self._ahead(open_store)
        assert lane.lane.look() is None
        assert lane.lane.mark().sequence == 2
        lane.lane.learn(_applied_elsewhere(_lease(lane).lineage))
        for _ in range(2):
            looked = lane.lane.look()
            assert isinstance(looked, Suspension)
            assert f"1 was {_ELSEWHERE} there" in looked.reason
            assert lane.lane.mark() == _applied_elsewhere(_lease(lane).lineage)

    def test_the_mark_names_the_last_command_and_its_database_is_believed(self, open_store: OpenStore) -> None:
        lane = self._ahead(open_store)
        lane.do(Deposit(id=1, amount=5), Deposit(id=1, amount=5))
        mark = decode_mark(encode_mark(lane.lane.mark()))
        assert (mark.sequence, mark.last) == (4, LastCommand(4, str(lane.store.command_at(4))))
        again = LaneUnderTest(open_store(), "again")
        again.lane.learn(mark)
        # A broker that takes no mark for a while tells the next channel of one before.
        earlier = LastCommand(3, str(lane.store.command_at(3)))
        again.lane.learn(msgspec.structs.replace(mark, sequence=3, last=earlier))
        assert again.lane.look() is None
        again.do(Deposit(id=1, amount=5))
        again.lane.learn(mark)
        again.do(Deposit(id=1, amount=5))
        assert again.lane.mark().last == LastCommand(6, str(lane.store.command_at(6)))

    def test_whoever_takes_an_idle_lane_over_names_its_last_command(self, open_store: OpenStore) -> None:
        """Its mark may be of an earlier release."""
        lane = self._ahead(open_store)
        lane.lane.learn(Mark(sequence=2, epoch=1, lineage=_lease(lane).lineage))
        lane.lane.apply([])
        assert lane.lane.mark().last == LastCommand(2, str(lane.store.command_at(2)))

    def test_what_the_log_does_not_have_any_more_is_believed(
        self, open_store: OpenStore, accept_loss: AcceptLoss
    ) -> None:
        """An accepted loss leaves sequences without an entry, as pruning does."""
        lane = self._ahead(open_store)
        before = _lease(lane).lineage
        lane.lane.learn(Mark(sequence=12, epoch=2, lineage=before))
        accept_loss(2, 12, before)
        lane.do(Deposit(id=1, amount=5))
        assert [lane.store.command_at(sequence) for sequence in (0, 3, 12, 14)] == [None] * 4
        again = LaneUnderTest(open_store(), "again")
        again.lane.learn(Mark(sequence=12, epoch=2, lineage=_lease(lane).lineage, last=LastCommand(12, _ELSEWHERE)))
        again.do(Deposit(id=1, amount=5))

    def test_a_mark_of_an_earlier_release_is_believed(self, open_store: OpenStore) -> None:
        lane = self._ahead(open_store)
        lane.lane.learn(msgspec.structs.replace(OTHER, lineage=None))
        lane.do(Deposit(id=1, amount=5))
        assert lane.lane.mark().lineage == _lease(lane).lineage

    def test_a_lane_stops_in_another_database_though_that_has_come_further(self, open_store: OpenStore) -> None:
        lane = self._ahead(open_store)
        lane.lane.learn(OTHER)
        reason = _refused(lane)
        own = _lease(lane).lineage
        assert f"ends at sequence 2 in lineage {own}, and 1 was acknowledged in lineage other" in reason
        assert "`coordinator accept-loss ledger --at 2 --up-to 1`" in reason
        assert lane.lane.mark() == OTHER

    def test_a_lane_that_is_at_work_stops_as_soon_as_it_knows(self, open_store: OpenStore) -> None:
        """Behind a broker a lane in one process learns of the mark there when it has begun."""
        lane = LaneUnderTest(open_store())
        lane.do(OpenAccount(owner="a"), OpenAccount(owner="b"))
        assert lane.lane.look() is None
        lane.lane.learn(OTHER)
        assert not lane.lane.is_current()
        assert "in lineage other" in _refused(lane)
        looked = lane.lane.look()
        assert isinstance(looked, Suspension)
        assert looked.is_blocked

    def test_a_lane_whose_address_leads_elsewhere_stops(self, open_store: OpenStore) -> None:
        """What it has done itself is in another database than the one that answers now."""
        lane = self._ahead(open_store)
        lane.lane._high_water.learn(OTHER)
        lane.lane._tenancy.doubt()
        assert "1 was acknowledged in lineage other" in _refused(lane)
        assert not lane.lane.is_in_doubt

    def test_one_that_has_claimed_the_lane_elsewhere_and_not_begun_there_stops(
        self, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What it must read before it begins fails, and then another database answers."""
        lane = self._ahead(open_store)

        def gone(*_: object) -> NoReturn:
            raise StoreUnavailable("gone")

        with monkeypatch.context() as patches:
            patches.setattr(type(lane.store), "command_at", gone)
            assert isinstance(lane.lane.apply([delivery(1, Deposit(id=1, amount=5))]), Suspension)
        another = msgspec.structs.replace(_lease(lane), lineage="other", holder="another")
        monkeypatch.setattr(lane.store, "current", lambda: another)
        assert "in lineage other, and 2 was acknowledged in lineage" in _refused(lane)

    def test_a_standby_that_has_seen_another_database_says_so_and_tells_nobody(self, open_store: OpenStore) -> None:
        lane = self._ahead(open_store)
        lane.lane._high_water.seen(Lease(1, 9, lineage="other"))
        looked = lane.lane.look()
        assert isinstance(looked, Suspension)
        assert "9 was acknowledged in lineage other" in looked.reason
        assert lane.lane.is_in_doubt
        # Whoever had the lane before knows it better.
        lane.lane.learn(Mark(sequence=2, epoch=1, lineage=_lease(lane).lineage))
        lane.do(Deposit(id=1, amount=5))

    def test_a_word_is_enough_for_one_that_has_only_seen_another_database(
        self, open_store: OpenStore, accept_loss: AcceptLoss
    ) -> None:
        """No mark is there to be named."""
        lane = self._ahead(open_store)
        lane.lane._high_water.seen(Lease(1, 9, lineage="other"))
        reason = _refused(lane)
        assert "`coordinator accept-loss ledger --at 2 --up-to 9`; where that finds no mark" in reason
        accept_loss(2, 9)
        asking = lane.lane.apply([delivery(1, Deposit(id=1, amount=5))])
        assert isinstance(asking, Suspension)
        assert asking.needs_mark
        # No mark comes.
        assert [outcome.sequence for outcome in lane.do(Deposit(id=1, amount=5))] == [10]
        assert lane.lane.mark().lineage == _lease(lane).lineage

    def test_once_accepted_it_goes_on_there_and_above_the_ids_of_both(
        self, open_store: OpenStore, accept_loss: AcceptLoss
    ) -> None:
        lane = self._ahead(open_store)
        before = _lease(lane).lineage
        lane.lane.learn(OTHER)
        _refused(lane)
        assert accept_loss(2, 1, "other") == 2
        assert [outcome.sequence for outcome in lane.do(Deposit(id=1, amount=5), OpenAccount(owner="c"))] == [3, 4]
        assert [row.id for row in lane.rows(Account)] == [1, 2, 8]
        assert {row.name: row.value for row in lane.rows(Series)}["invoices"] == 3
        after = _lease(lane)
        assert after.lineage not in (before, "other")
        assert str(after.supersedes).split() == [before, "+2", "other", "+2"]
        assert lane.lane.mark().lineage == after.lineage

    def test_a_mark_of_before_an_acceptance_takes_nothing_away(
        self, open_store: OpenStore, accept_loss: AcceptLoss
    ) -> None:
        """A broker that takes no mark for a while tells the next channel of the one before."""
        lane = self._ahead(open_store)
        lane.lane.learn(OTHER)
        accept_loss(2, 1, "other")
        lane.do(Deposit(id=1, amount=5), Deposit(id=1, amount=5))
        known = lane.lane.mark()
        lane.lane.learn(OTHER)
        assert lane.lane.mark() == known

    def test_the_other_database_is_another_from_then_on(self, open_store: OpenStore, accept_loss: AcceptLoss) -> None:
        """So is a copy of this one that was made before."""
        lane = self._ahead(open_store)
        before = _lease(lane).lineage
        lane.lane.learn(OTHER)
        accept_loss(2, 1, "other")
        lane.do(Deposit(id=1, amount=5))
        mark = lane.lane.mark()
        for lineage in (before, "other"):
            assert Lease(1, 100, lineage=lineage, supersedes=before).is_other(mark.lineage)

    def test_it_may_be_accepted_again_before_the_lane_goes_on(
        self, open_store: OpenStore, accept_loss: AcceptLoss
    ) -> None:
        lane = self._ahead(open_store)
        standby = LaneUnderTest(open_store(), "standby")
        assert standby.lane.look() is None
        lane.lane.learn(OTHER)
        for _ in range(3):
            accept_loss(2, 1, "other")
        assert standby.lane.look() is None
        for _ in range(SUPERSEDED_MAX):
            accept_loss(2, 1, "other")
            # The mark still names it.
            assert not _lease(lane).is_other("other")
        lane.do(Deposit(id=1, amount=5))
        for _ in range(SUPERSEDED_MAX):
            accept_loss(lane.lane.sequence, lane.lane.sequence + 1)
        assert len(str(_lease(lane).supersedes).split()) == 2 * SUPERSEDED_MAX

    def test_a_process_that_begins_anew_knows_what_was_given_up(
        self, open_store: OpenStore, accept_loss: AcceptLoss
    ) -> None:
        """It has the newest mark of its own file, and the broker has kept none since before the acceptance."""
        lane = self._ahead(open_store)
        before = _lease(lane).lineage
        lane.lane.learn(Mark(sequence=12, epoch=2, lineage=before))
        accept_loss(2, 12, before)
        lane.do(Deposit(id=1, amount=5))
        kept = decode_mark(encode_mark(lane.lane.mark()))
        anew = LaneUnderTest(open_store(), "anew")
        anew.lane.learn(both(kept, Mark(sequence=10, epoch=2, lineage=before)))
        assert (anew.lane.sequence, anew.lane.lineage) == (13, _lease(lane).lineage)
        anew.lane.learn(Mark(sequence=12, epoch=2, lineage=before))
        assert (anew.lane.sequence, anew.lane.lineage) == (13, _lease(lane).lineage)
        anew.do(Deposit(id=1, amount=5))

    def test_a_loss_that_is_accepted_begins_a_lineage(self, open_store: OpenStore, accept_loss: AcceptLoss) -> None:
        """The primary that had what is lost may come back, and may have more than was acknowledged."""
        lane = self._ahead(open_store)
        before = _lease(lane).lineage
        lane.lane.learn(Mark(sequence=12, epoch=2, lineage=before))
        accept_loss(2, 12, before)
        lane.do(Deposit(id=1, amount=5))
        after = _lease(lane)
        assert after.lineage != before
        assert Lease(9, 99, lineage=before).is_other(lane.lane.mark().lineage)
