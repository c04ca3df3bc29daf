"""A lane tells others which of its commits are safe, where its database shows them before: see `Lease.proved`."""

import pytest

from coordinator.lane.delivery import Settlement, Suspension
from coordinator.stores.lane_tables import LogEntry
from coordinator.stores.memory import MemoryDatabase, MemoryStore, MemoryTransaction
from coordinator.stores.move_tables import MoveNote
from coordinator.stores.moves import LaneMove
from coordinator.stores.port import Changes, Lease, StoreUnavailable, Transaction
from coordinator.worker.loop import PROVE_AFTER_S
from coordinator.worker.outbox_watch import OutboxWatch, left_in_outbox, marker_id
from tests.support.lane_contract import LaneUnderTest, delivery
from tests.support.ledger import Deposit, OpenAccount, Tamper
from tests.support.timers import Hold
from tests.unit.test_lane_order import blocking_lane
from tests.unit.test_loop_timers import Driven


class Committing(MemoryTransaction):
    """Of a store that counts the commits, and fails after one of them if it is told to."""

    def __init__(self, store: "CountingStore", database: MemoryDatabase) -> None:
        super().__init__(database)
        self._store = store

    def commit(self, lease: Lease, sequence: int, changes: Changes) -> None:
        super().commit(lease, sequence, changes)
        self._store.commits += 1
        if self._store.is_cancelled:
            raise StoreUnavailable("the wait for the standby was cancelled")


class CountingStore(MemoryStore):
    def __init__(self, database: MemoryDatabase) -> None:
        super().__init__(database)
        self.database = database
        self.commits = 0
        self.is_cancelled = False

    def begin(self) -> Transaction:
        return Committing(self, self.database)


@pytest.fixture
def store() -> CountingStore:
    database = MemoryDatabase()
    database.proved = 0
    return CountingStore(database)


def opened(lane: LaneUnderTest, owner: str) -> None:
    (outcome,) = lane.do(OpenAccount(owner=owner))
    assert outcome.status == "applied"


def test_the_next_commit_proves_the_one_before_and_an_idle_lane_its_last_one(store: CountingStore) -> None:
    lane = LaneUnderTest(store)
    opened(lane, "a")
    assert (store.database.sequence, store.database.proved) == (1, 0)
    opened(lane, "b")
    assert (store.database.sequence, store.database.proved) == (2, 1)
    assert lane.lane.is_unproved()
    assert lane.lane.sweep() is None
    assert (store.database.sequence, store.database.proved, store.commits) == (2, 2, 3)
    assert not lane.lane.is_unproved()
    assert lane.lane.sweep() is None
    assert store.commits == 3
    opened(lane, "c")
    assert store.database.proved == 2


def test_repetitions_leave_the_commit_before_them_to_be_proved(store: CountingStore) -> None:
    lane, sent = LaneUnderTest(store), delivery(1, OpenAccount(owner="a"), redelivered=True)
    assert [[outcome.replayed for outcome in lane.outcomes(sent)] for _ in range(2)] == [[False], [True]]
    assert (store.commits, store.database.proved) == (1, 0)
    assert lane.lane.is_unproved()
    assert lane.lane.sweep() is None
    assert (store.commits, store.database.proved) == (2, 1)


def test_who_has_no_standby_to_wait_for_commits_nothing_more(store: CountingStore) -> None:
    store.database.proved = None
    lane = LaneUnderTest(store)
    opened(lane, "a")
    assert not lane.lane.is_unproved()
    assert lane.lane.sweep() is None
    assert (store.commits, store.database.proved) == (1, None)


@pytest.mark.parametrize("told", [None, 0])
def test_a_look_shows_that_the_server_waits_for_a_standby_now_or_no_more(
    store: CountingStore, told: int | None
) -> None:
    store.database.proved = 0 if told is None else None
    lane = LaneUnderTest(store)
    opened(lane, "a")
    store.database.proved = told
    assert lane.lane.look() is None
    assert lane.lane.is_unproved() is (told is not None)


def test_a_successor_proves_what_it_finds_and_a_doubtful_proof_is_repeated(store: CountingStore) -> None:
    opened(LaneUnderTest(store, "first"), "a")
    lane = LaneUnderTest(store, "second")
    (outcome,) = lane.do(OpenAccount(owner="a"))
    assert outcome.status == "rejected"
    assert store.database.proved == 1
    store.is_cancelled = True
    assert isinstance(lane.lane.sweep(), Suspension)
    # The doubtful commit may be one that nobody has.
    store.database.proved = 1
    assert lane.lane.is_unproved()
    store.is_cancelled = False
    assert lane.lane.sweep() is None
    assert (store.database.proved, store.database.epoch) == (2, 3)
    assert not lane.lane.is_unproved()


def test_a_standby_process_takes_nothing_for_acknowledged_that_is_not_proved(store: CountingStore) -> None:
    lane, watching = LaneUnderTest(store, "first"), LaneUnderTest(store, "second")
    opened(lane, "a")
    opened(lane, "b")
    assert watching.lane.look() is None
    assert (store.database.sequence, watching.lane.sequence) == (2, 1)
    # The primary is gone with its last commit, of which nobody was told.
    store.database.sequence = 1
    assert watching.lane.look() is None
    store.database.sequence = 0
    assert isinstance(watching.lane.look(), Suspension)


def test_a_lane_that_an_operator_has_paused_writes_no_proof(store: CountingStore) -> None:
    lane = LaneUnderTest(store)
    opened(lane, "a")
    store.database.revision, store.database.paused = 1, "a backup"
    assert isinstance(lane.lane.sweep(), Suspension)
    assert isinstance(lane.lane.look(), Suspension)
    assert not lane.lane.is_unproved()
    assert lane.lane.sweep() is None
    assert (store.commits, store.database.proved) == (1, 0)
    store.database.revision, store.database.paused = 2, None
    assert lane.lane.look() is None
    assert lane.lane.sweep() is None
    assert store.database.proved == 1


def test_what_is_settled_before_a_command_that_blocks_the_lane_is_proved(store: CountingStore) -> None:
    lane = blocking_lane(store.database)
    (settled,) = lane.settlements(delivery(1, OpenAccount(owner="a")))
    assert store.database.proved == 0
    before = lane.lane.apply([delivery(2, Deposit(id=1, amount=1)), delivery(3, Tamper(id=1, how="crash"))])
    assert isinstance(before, Settlement)
    assert isinstance(lane.lane.apply([]), Suspension)
    assert (store.database.sequence, store.database.proved, len(settled.outcomes)) == (2, 2, 1)


def test_a_move_counts_a_proof_as_any_other_commit(store: CountingStore) -> None:
    store.database.move = LaneMove(id="m", step="noting", other="elsewhere")
    lane = LaneUnderTest(store)
    opened(lane, "a")
    assert lane.lane.sweep() is None
    assert sum(note.batches for note in lane.rows(MoveNote)) == store.commits == 2
    assert len(lane.rows(LogEntry)) == 1


def test_the_watch_wakes_a_lane_that_no_process_has(store: CountingStore) -> None:
    markers: list[str] = []
    watch = OutboxWatch("ledger", store, markers.append, 1.0)

    def look(second: int) -> list[str]:
        left = left_in_outbox(store)
        assert left is not None
        watch._look_at_commit(left, float(second))
        return markers

    lane = LaneUnderTest(store)
    opened(lane, "a")
    assert look(0) == []
    opened(lane, "b")
    # The lane has gone on; and then it has ended.
    assert look(1) == []
    store.database.paused = "a backup"
    assert look(2) == []
    store.database.paused = None
    assert [look(second)[-1:] for second in range(3, 60)] == [[marker_id("commit 2")]] * 57
    assert len(look(60)) == 3, "at 3, 13 and 33 s"
    assert len(look(73)) == 4
    assert lane.lane.sweep() is None
    assert len(look(200)) == len(look(201)) == 4


def test_the_loop_wakes_soon_after_the_last_batch_to_prove_it() -> None:
    driven = Driven()
    assert driven.take(Hold(id=1, after_ms=5000)).timeout_s > PROVE_AFTER_S
    driven.database.proved = 0
    driven.elapsed_s = 2.0
    driven.take()
    assert driven.database.proved == 1
    assert driven.take(Hold(id=2, after_ms=5000)).timeout_s == pytest.approx(PROVE_AFTER_S)
    driven.elapsed_s += PROVE_AFTER_S * 2
    assert driven.take().timeout_s > PROVE_AFTER_S
    assert driven.database.proved == 2
