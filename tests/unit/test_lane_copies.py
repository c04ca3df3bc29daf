"""A lane that goes on with another copy of its database, which has not all that the lane has read or written."""

from collections import defaultdict

import pytest

from coordinator.lane.delivery import Suspension
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from coordinator.stores.port import StoreUnavailable, Transaction
from tests.support.lane_contract import LaneUnderTest, codes, delivery
from tests.support.ledger import Deposit, Forward, OpenAccount


class LaggingStore(MemoryStore):
    """Its connection is lost where a test says, and leads to a copy that a test has made before."""

    def __init__(self, database: MemoryDatabase) -> None:
        super().__init__(database)
        self._of = database
        self.is_lost = False
        self.keep()

    def keep(self) -> None:
        self._copy = {model: dict(table) for model, table in self._of.tables.items()}
        self._sequence = self._of.sequence

    def begin(self) -> Transaction:
        if self.is_lost:
            self.is_lost = False
            raise StoreUnavailable("the connection was lost")
        return super().begin()

    def falls(self) -> None:
        self._of.tables = defaultdict(dict, self._copy)
        self._of.sequence = self._sequence


@pytest.fixture
def store() -> LaggingStore:
    return LaggingStore(MemoryDatabase())


@pytest.fixture
def lane(store: LaggingStore) -> LaneUnderTest:
    lane = LaneUnderTest(store)
    lane.do(OpenAccount(owner="a"))
    return lane


def test_a_number_that_is_lost_is_taken_again_also_where_the_loss_is_accepted_before_it_is_seen(
    lane: LaneUnderTest, store: LaggingStore
) -> None:
    first, second = (
        delivery(number, Deposit(id=1, amount=1), publisher="p", publisher_seq=number) for number in (1, 2)
    )
    lane.settle(first)
    store.keep()
    lane.settle(second)
    database = store._of
    lost = database.sequence
    store.falls()
    database.revision, database.loss_accepted = database.revision + 1, lost
    assert lane.lane.look() is None
    assert codes(lane.outcomes(second)) == ["applied"]
    assert lane.balance(1) == 2


def test_a_blocked_lane_publishes_what_another_copy_still_has_in_its_outbox(
    lane: LaneUnderTest, store: LaggingStore
) -> None:
    """No sequence is lost with that, so that nothing else shows it."""
    emitted = lane.settle(delivery(1, Forward(id=1, amount=1))).emitted
    store.keep()
    lane.lane.confirm(emitted)
    lane.lane.sweep()
    assert lane.rows(OutboxEntry) == []
    lane.lane._tenancy.block()
    store.falls()
    store.is_lost = True
    assert isinstance(lane.lane.apply([delivery(2, Deposit(id=1, amount=1))]), Suspension)
    assert lane.settle(delivery(2, Deposit(id=1, amount=1))).emitted == emitted
