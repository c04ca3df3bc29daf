"""The watch over an outbox in which an entry stays: it wakes the lane, and does not fill its queue."""

from coordinator.stores.lane_tables import OutboxEntry
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from coordinator.worker.outbox_watch import Left, OutboxWatch, _LeftWork, left_in_outbox, marker_id
from tests.support.lane_contract import LaneUnderTest, delivery
from tests.support.ledger import Forward, OpenAccount


class Watching:
    """A watch over a database, and the markers by which it wakes the lane."""

    def __init__(self, database: MemoryDatabase) -> None:
        self.markers: list[str] = []
        self._store = MemoryStore(database)
        self._watch = OutboxWatch("ledger", self._store, self.markers.append, 5.0)

    def look(self, *seconds: int) -> list[str]:
        """The markers of these looks."""
        self.markers.clear()
        for second in seconds:
            left = left_in_outbox(self._store)
            assert left is not None
            self._watch._look_at_outbox(left, float(second))
        return self.markers


def test_a_lane_is_woken_once_for_what_stays_and_again_when_another_process_has_it() -> None:
    database = MemoryDatabase()
    lane = LaneUnderTest(MemoryStore(database))
    lane.do(OpenAccount(owner="a"))
    lane.settle(delivery(1, Forward(id=1, amount=3)))
    marker = marker_id(lane.rows(OutboxEntry)[0].command_id)
    watching = Watching(database)
    assert watching.look(0) == [], "a process may be about to publish it"
    assert watching.look(5) == [marker]
    assert watching.look(10) == [], "whoever has the lane knows by now"
    assert [second for second in range(15, 200, 5) if watching.look(second) == [marker]] == [15, 35, 75, 135, 195]
    database.paused = "a backup"
    assert watching.look(*range(200, 4000, 5)) == [], "a paused lane deletes nothing that was sent"
    database.paused = None
    assert watching.look(4000) == [marker]
    LaneUnderTest(MemoryStore(database), "successor").do(OpenAccount(owner="b"))
    assert watching.look(4005, 4010) == [marker]


def test_what_comes_while_the_lane_is_paused_does_not_wait_as_long_as_what_was_there_before() -> None:
    watch = _LeftWork()
    there, paused = Left([], "a"), Left([], "b", is_paused=True)
    woken = [second for second in range(0, 200, 5) if watch.is_due("a", there, second)]
    assert woken[-1] == 195, "the next time comes 60 s later"
    assert not any(watch.is_due("b", paused, second) for second in (200, 205))
    assert watch.is_due("b", there, 210)
