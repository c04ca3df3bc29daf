"""The window over the outbox: what is on its way to the broker at once, and what waits on disk."""

import random

import msgspec
import pytest

from coordinator.lane.control import WithdrawEmitted, Withdrawn
from coordinator.lane.delivery import Delivery, Deposed, Settlement, Suspension
from coordinator.lane.lane import Lane
from coordinator.runtime.settings import LaneSettings
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.stores.memory import MemoryDatabase, MemoryStore, MemoryTransaction
from coordinator.stores.port import Changes, Conflict, Lease, StoreUnavailable, Transaction
from tests.support.lane_contract import LaneUnderTest, _numbers, delivery
from tests.support.ledger import LEDGER, Forward


def with_window(database: MemoryDatabase, window: int) -> LaneUnderTest:
    lane = LaneUnderTest(MemoryStore(database))
    settings = LaneSettings(outbox_max=window)
    lane.lane = Lane(LEDGER, lane.store, lambda: lane.now, "test", settings, lambda: 0.0)
    return lane


def emit(lane: LaneUnderTest, count: int) -> list[OutboxEntry]:
    return lane.settle(*_forwards(count)).emitted


def _forwards(count: int) -> list[Delivery]:
    return [delivery(next(_numbers), Forward(id=1, amount=1)) for _ in range(count)]


def sweep(lane: LaneUnderTest) -> list[OutboxEntry]:
    decision = lane.lane.sweep()
    assert decision is None or isinstance(decision, Settlement), decision
    return decision.emitted if decision is not None else []


@pytest.mark.parametrize("window", [1, 2, 3, 10, 1000])
def test_everything_is_published_once_in_order_and_never_more_at_once(window: int) -> None:
    chance = random.Random(window)
    database = MemoryDatabase()
    lane = with_window(database, window)
    published: list[int] = []
    under_way: list[OutboxEntry] = []
    for step in range(300):
        fresh = emit(lane, chance.randrange(4)) if step < 150 else []
        confirmed = under_way[: chance.randrange(5)]
        under_way = under_way[len(confirmed) :] + fresh
        published += [entry.id for entry in fresh]
        lane.lane.confirm(confirmed)
        fresh = sweep(lane)
        under_way += fresh
        published += [entry.id for entry in fresh]
        assert len(under_way) <= window
    while under_way:
        lane.lane.confirm([under_way.pop(0)])
        fresh = sweep(lane)
        under_way += fresh
        published += [entry.id for entry in fresh]
    assert published == list(range(1, len(published) + 1))
    assert len(published) > 150
    assert lane.rows(OutboxEntry) == []


def test_a_successor_reads_all_of_a_long_outbox() -> None:
    database = MemoryDatabase()
    emit(with_window(database, 1000), 700)
    successor = with_window(database, 100)
    published = emit(successor, 1)
    assert len(published) <= 100
    under_way = list(published)
    while under_way:
        successor.lane.confirm(under_way[:30])
        del under_way[:30]
        fresh = sweep(successor)
        published += fresh
        under_way += fresh
    assert [entry.id for entry in published] == list(range(1, 702))


def test_what_is_withdrawn_is_not_published_though_the_same_transaction_reads_it() -> None:
    database = MemoryDatabase()
    emit(with_window(database, 1000), 3)
    settlement = with_window(database, 1000).settle(_withdrawal(1, 3))
    assert [entry.id for entry in settlement.emitted] == [2]
    assert settlement.withdrawn == [1, 3]


def test_what_the_broker_has_is_not_said_to_be_withdrawn_though_it_is_not_deleted_yet() -> None:
    """Such as what was confirmed while the lane was paused."""
    lane = with_window(MemoryDatabase(), 10)
    emitted = emit(lane, 2)
    lane.lane.confirm(emitted[:1])
    settlement = lane.settle(_withdrawal(1, 2))
    (outcome,) = settlement.outcomes
    assert msgspec.json.decode(outcome.result, type=Withdrawn).command_ids == [emitted[1].command_id]
    assert (settlement.withdrawn, lane.rows(OutboxEntry)) == ([2], [])


def taken_at_once(database: MemoryDatabase) -> LaneUnderTest:
    """What its targets have as soon as it is handed out."""
    lane = LaneUnderTest(MemoryStore(database))
    settings = LaneSettings(outbox_max=10)
    lane.lane = Lane(LEDGER, lane.store, lambda: lane.now, "test", settings, lambda: 0.0, None, lambda _: True)
    return lane


def test_what_its_target_has_is_not_withdrawn_whenever_the_order_came() -> None:
    """The next process hands it out with its first batch, and the order waits behind that."""
    database = MemoryDatabase()
    emit(with_window(database, 10), 2)
    lane = taken_at_once(database)
    first = emit(lane, 1)[0]
    (outcome,) = lane.settle(_withdrawal(first.id)).outcomes
    assert outcome.error is not None
    assert outcome.error.code == "handed_over"
    assert len(lane.rows(OutboxEntry)) == 3


def test_what_its_target_got_under_a_lease_before_is_not_withdrawn_either() -> None:
    lane = taken_at_once(MemoryDatabase())
    (entry,) = emit(lane, 1)
    outbox = lane.lane._transactions.outbox
    outbox.begin_again([entry.lane])
    assert outbox.is_taken(entry)
    assert not outbox.is_taken(msgspec.structs.replace(entry, command_id="another"))


def test_what_no_target_has_yet_is_withdrawn() -> None:
    database = MemoryDatabase()
    emit(with_window(database, 10), 2)
    assert taken_at_once(database).settle(_withdrawal(1)).withdrawn == [1]


def _withdrawal(*numbers: int) -> Delivery:
    return delivery(7, WithdrawEmitted(entries=list(numbers)))


def test_a_consumer_that_lost_its_channel_is_not_deposed_by_what_was_confirmed_under_it() -> None:
    """It stands by under a new channel, which is not to be dropped."""
    database = MemoryDatabase()
    lane = with_window(database, 10)
    emitted = emit(lane, 2)
    emit(with_window(database, 10), 1)
    lane.lane.confirm(emitted)
    assert lane.lane.sweep(lane.channel_number + 1) is None
    assert isinstance(lane.lane.sweep(lane.channel_number), Deposed)


def test_what_was_confirmed_under_another_lease_is_kept_until_it_is_confirmed_again() -> None:
    """The database may have lost commits since, and another command may have the number."""
    lane = with_window(MemoryDatabase(), 10)
    emitted = emit(lane, 2)
    lane.lane.confirm(emitted[:1])
    lane.channel_number += 1
    again = emit(lane, 1)
    lane.lane.confirm(emitted[1:])
    assert [entry.id for entry in again] == [1, 2, 3]
    assert sweep_at(lane) == [1, 3]
    lane.lane.confirm(again)
    assert sweep_at(lane) == []


def sweep_at(lane: LaneUnderTest) -> list[int]:
    assert lane.lane.sweep(lane.channel_number) is None
    return [entry.id for entry in lane.rows(OutboxEntry)]


class Reconnecting(MemoryStore):
    """The server has ended the connection of an idle lane."""

    has_ended = False

    def look(self) -> Lease | None:
        if self.has_ended:
            self.has_ended = False
            raise StoreUnavailable("the connection was lost")
        return super().look()


def test_an_idle_lane_that_looks_on_a_new_connection_reads_its_outbox_again() -> None:
    """Another copy of the database may answer there, with entries that were deleted."""
    database = MemoryDatabase()
    lane = with_window(database, 10)
    store = Reconnecting(database)
    lane.lane = Lane(LEDGER, store, lambda: lane.now, "test", LaneSettings(outbox_max=10), lambda: 0.0)
    (entry,) = emitted = emit(lane, 1)
    lane.lane.confirm(emitted)
    assert sweep_at(lane) == []
    database.tables[OutboxEntry][entry.id] = entry
    assert lane.lane.look(lane.channel_number) is None
    assert sweep(lane) == []
    store.has_ended = True
    assert lane.lane.look(lane.channel_number) is None
    assert sweep(lane) == [entry]


class _Deadlocking(MemoryTransaction):
    def commit(self, lease: Lease, sequence: int, changes: Changes) -> None:
        raise Conflict("deadlock")


class InConflict(MemoryStore):
    """Of the transactions that begin, those with the given numbers are in conflict."""

    def __init__(self, database: MemoryDatabase) -> None:
        super().__init__(database)
        self.database = database
        self.left: list[bool] = []

    def begin(self) -> Transaction:
        is_in_conflict = self.left.pop(0) if self.left else False
        return _Deadlocking(self.database) if is_in_conflict else super().begin()


def test_what_is_confirmed_while_its_batch_is_suspended_is_not_published_again() -> None:
    """The entries are read again under a new lease, while the broker's confirm of before is still on its way."""
    database = MemoryDatabase()
    lane = with_window(database, 10)
    store = InConflict(database)
    settings = LaneSettings(outbox_max=10, batch_commands_max=1)
    lane.lane = Lane(LEDGER, store, lambda: lane.now, "test", settings, lambda: 0.0)
    before = emit(lane, 2)
    lane.channel_number += 1
    first, second = _forwards(2)
    pack = msgspec.structs.replace(first, commands=(*first.commands, *second.commands))
    # The lane's knowledge is read; the first command is committed, and a page read with it; the second one is not.
    store.left = [False, False, True]
    assert isinstance(lane.lane.apply([pack], lane.channel_number), Suspension)
    assert [entry.id for entry in lane.rows(OutboxEntry)] == [1, 2, 3]
    lane.lane.confirm(before)
    settlement = lane.settle(pack)
    assert [entry.id for entry in settlement.emitted] == [3, 4]
    assert [entry.id for entry in lane.rows(OutboxEntry)] == [3, 4]
