"""A lane in one process, and the broker by which others reach it: the transport here does as a test says."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, cast

import msgspec
import pytest

from coordinator.client.writes import DEFAULT_OPTIONS, execute
from coordinator.lane.delivery import Delivery, Settlement
from coordinator.lane.high_water import Mark
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.settings import LaneSettings
from coordinator.service.commands import Command
from coordinator.service.errors import ConfigurationError
from coordinator.service.ids import new_command_id
from coordinator.service.rows import VersionedRow
from coordinator.service.service import Service
from coordinator.service.unit_of_work import UnitOfWork
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from coordinator.transports.inbox import Inbox
from coordinator.transports.port import Confirmed
from coordinator.worker import bridge
from coordinator.worker.inprocess import InProcessWrites
from coordinator.worker.waiting_issuer import WaitingIssuer
from tests.support.store_contract import NOW
from tests.support.system import wait_until

ORDERS = Service("orders")
WITHIN_S = 10.0
ENTERED, GATE = threading.Event(), threading.Event()
"""The handler has begun, and may go on."""


@ORDERS.row
class Counter(VersionedRow, table="counters_of_orders", key="id"):
    id: int
    count: int = 0


class ReserveStock(Command, type="stock.reserve"):
    """Of a lane that runs elsewhere."""

    order: int


class PlaceOrder(Command, type="orders.place"):
    reserve: bool = False


@ORDERS.handles(PlaceOrder, target=lambda _: Counter.at(1))
def place(work: UnitOfWork, command: PlaceOrder) -> Counter:
    ENTERED.set()
    GATE.wait(WITHIN_S)
    counter = work.get(Counter, 1) or work.add(Counter(id=1))
    if command.reserve:
        work.emit(ReserveStock(order=counter.count + 1))
    return work.save(counter.replace(count=counter.count + 1))


class Elsewhere:
    """Implements `Transport` and its `LaneTransport`."""

    failure: Exception | None = None
    late = None

    def __init__(self) -> None:
        self.unready_reason: str | None = None
        self.settled: list[tuple[int, Settlement]] = []
        self.published: list[OutboxEntry] = []
        self.is_stopped = False
        self.woken: list[str] = []
        self.kept: list[tuple[int, int]] = []
        """The channels and sequences of marks."""
        self.inbox: Inbox
        self.confirm: Confirmed
        self._tags = 0

    def lane(self, lane: str, inbox: Inbox, settings: LaneSettings, **_: Any) -> "Elsewhere":
        del lane, settings
        self.inbox = inbox
        inbox.begin_channel()
        return self

    def start(self, on_emitted_confirmed: Confirmed) -> None:
        self.confirm = on_emitted_confirmed

    def settle(self, channel: int, settlement: Settlement) -> None:
        self.settled.append((channel, settlement))

    def publish_emitted(self, entries: Sequence[OutboxEntry]) -> None:
        self.published += entries

    def keep(self, channel: int, mark: Mark) -> None:
        self.kept.append((channel, mark.sequence))

    def wake(self, command_id: str) -> None:
        self.woken.append(command_id)

    def stop(self, timeout_s: float) -> bool:
        del timeout_s
        self.is_stopped = True
        return True

    def deliver(
        self, command_id: str, reply_to: str | None = None, correlation_id: str | None = None, **options: Any
    ) -> int:
        """Publish a command; its tag."""
        self._tags += 1
        message = CommandMessage(command_id=command_id, type=PlaceOrder.type, arguments=b"{}")
        delivery = Delivery(
            tag=self._tags, commands=(message,), reply_to=reply_to, correlation_id=correlation_id, **options
        )
        self.inbox.put(self.inbox.channel_number, lambda: delivery)
        return delivery.tag

    @property
    def acknowledged(self) -> set[tuple[int, int]]:
        return {(channel, tag) for channel, settlement in self.settled for tag in settlement.tags}

    @property
    def replies(self) -> list[tuple[str, str, bool]]:
        return [
            (reply.reply_to, outcome.status, outcome.replayed)
            for _, settlement in self.settled
            for reply in settlement.replies
            for outcome in reply.outcomes
        ]


async def until(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, condition, "the lane has done it", None, WITHIN_S)


@pytest.fixture
def elsewhere() -> Elsewhere:
    GATE.set()
    return Elsewhere()


@pytest.fixture
async def writes(elsewhere: Elsewhere) -> AsyncIterator[InProcessWrites]:
    made = InProcessWrites(
        {"orders": MemoryStore(MemoryDatabase())},
        [ORDERS],
        clock=lambda: NOW,
        targets={"orders", "stock"},
        broker=cast(Any, elsewhere),
    )
    async with made:
        yield made
    assert elsewhere.is_stopped


async def count(writes: InProcessWrites) -> int:
    return (await execute(writes, PlaceOrder(), Counter, DEFAULT_OPTIONS)).value.count


async def test_what_comes_in_is_applied_and_acknowledged(elsewhere: Elsewhere, writes: InProcessWrites) -> None:
    tags = [elsewhere.deliver(new_command_id(), "replies.ada", "7"), elsewhere.deliver(new_command_id())]
    await until(lambda: elsewhere.acknowledged == {(1, tag) for tag in tags})
    assert elsewhere.replies == [("replies.ada", "applied", False)]
    (told,) = [reply for _, settlement in elsewhere.settled for reply in settlement.replies]
    assert told.correlation_id == "7"
    assert await count(writes) == 3


async def test_a_lane_that_has_come_further_elsewhere_is_not_gone_on_with_here(
    elsewhere: Elsewhere, writes: InProcessWrites
) -> None:
    elsewhere.inbox.learn(Mark(sequence=5, epoch=1))
    elsewhere.deliver(new_command_id(), "replies.ada")
    await until(lambda: writes.at_hand("orders").cause == "commits_lost")
    assert (elsewhere.acknowledged, elsewhere.replies) == (set(), [])


async def test_a_lane_at_work_here_that_has_come_further_elsewhere_applies_nothing_more(
    elsewhere: Elsewhere, writes: InProcessWrites
) -> None:
    assert await count(writes) == 1
    elsewhere.inbox.learn(Mark(sequence=5, epoch=1))
    elsewhere.deliver(new_command_id(), "replies.ada")
    await until(lambda: writes.at_hand("orders").cause == "commits_lost")
    assert (elsewhere.acknowledged, elsewhere.replies) == (set(), [])
    # What `accept-loss` asks for at the socket.
    await until(lambda: writes.at_hand("orders").mark == 5)


async def test_what_a_broker_remembers_is_looked_at_before_it_delivers(
    elsewhere: Elsewhere, writes: InProcessWrites
) -> None:
    elsewhere.inbox.learn(Mark(sequence=5, epoch=1))
    await until(lambda: writes.at_hand("orders").cause == "commits_lost")


async def test_the_broker_keeps_how_far_the_lane_has_come_once_it_has_said_what_it_had(
    elsewhere: Elsewhere, writes: InProcessWrites
) -> None:
    assert await count(writes) == 1
    assert elsewhere.kept == []
    elsewhere.inbox.learn(Mark(sequence=1, epoch=1))
    elsewhere.deliver(new_command_id())
    await until(lambda: elsewhere.kept[:1] == [(1, 2)])
    assert await count(writes) == 3
    await until(lambda: elsewhere.kept[-1] == (1, 3))


async def test_what_another_database_left_at_the_broker_stays_there(
    elsewhere: Elsewhere, writes: InProcessWrites
) -> None:
    assert await count(writes) == 1
    elsewhere.inbox.learn(Mark(sequence=1, epoch=1, lineage="other"))
    elsewhere.deliver(new_command_id(), "replies.ada")
    await until(lambda: writes.at_hand("orders").cause == "commits_lost")
    assert elsewhere.kept == []


async def test_what_was_begun_before_the_mark_came_keeps_none_over_it(
    elsewhere: Elsewhere, writes: InProcessWrites
) -> None:
    """It comes again behind the mark of another database, of which the lane does not know yet as it commits that."""
    ENTERED.clear()
    GATE.clear()
    command_id = new_command_id()
    elsewhere.deliver(command_id)
    assert await asyncio.to_thread(ENTERED.wait, WITHIN_S)
    elsewhere.inbox.begin_channel()
    elsewhere.inbox.learn(Mark(sequence=1, epoch=1, lineage="other"))
    again = elsewhere.deliver(command_id, redelivered=True)
    under_way = writes._bridges["orders"]._under_way
    await until(lambda: [each.channel for each in under_way.values()] == [2])
    GATE.set()
    await until(lambda: elsewhere.acknowledged == {(2, again)})
    await until(lambda: writes.at_hand("orders").cause == "commits_lost")
    assert elsewhere.kept == []


async def test_on_each_channel_the_broker_is_asked_what_it_has_before_it_keeps_more(
    monkeypatch: pytest.MonkeyPatch, elsewhere: Elsewhere, writes: InProcessWrites
) -> None:
    monkeypatch.setattr(bridge, "_LOOK_EVERY_S", 0.1)
    elsewhere.deliver(new_command_id())
    await until(lambda: (1, 1) in elsewhere.kept)
    elsewhere.inbox.begin_channel()
    assert await count(writes) == 2
    await until(lambda: bool(elsewhere.woken))
    assert all(channel == 1 for channel, _ in elsewhere.kept), "which is gone"
    elsewhere.deliver(elsewhere.woken[0])
    await until(lambda: elsewhere.kept[-1] == (2, 3))


async def test_a_broker_that_delivers_nothing_is_asked_for_a_delivery_which_brings_what_it_remembers(
    elsewhere: Elsewhere, writes: InProcessWrites
) -> None:
    del writes
    elsewhere.unready_reason = "nothing answers"
    await asyncio.sleep(1.2)
    assert elsewhere.woken == []
    elsewhere.unready_reason = None
    await until(lambda: len(elsewhere.woken) == 1)
    tag = elsewhere.deliver(elsewhere.woken[0])
    await until(lambda: elsewhere.acknowledged == {(1, tag)})
    await asyncio.sleep(2.5)
    assert len(elsewhere.woken) == 1, "it has answered"


async def test_a_process_that_ends_asks_the_broker_for_nothing(elsewhere: Elsewhere) -> None:
    stores = {"orders": MemoryStore(MemoryDatabase())}
    async with InProcessWrites(stores, [ORDERS], targets={"orders", "stock"}, broker=cast(Any, elsewhere)):
        pass
    assert (elsewhere.is_stopped, elsewhere.woken) == (True, [])


async def test_nothing_is_acknowledged_before_it_is_committed(elsewhere: Elsewhere, writes: InProcessWrites) -> None:
    del writes
    ENTERED.clear()
    GATE.clear()
    tag = elsewhere.deliver(new_command_id(), "replies.ada")
    assert await asyncio.to_thread(ENTERED.wait, WITHIN_S)
    assert elsewhere.settled == []
    GATE.set()
    await until(lambda: elsewhere.acknowledged == {(1, tag)})


async def test_what_comes_again_on_another_channel_is_applied_once_and_acknowledged_there(
    elsewhere: Elsewhere, writes: InProcessWrites
) -> None:
    command_id = new_command_id()
    first = elsewhere.deliver(command_id, "replies.ada")
    await until(lambda: (1, first) in elsewhere.acknowledged)
    elsewhere.inbox.begin_channel()
    again = elsewhere.deliver(command_id, "replies.ada", redelivered=True)
    await until(lambda: (2, again) in elsewhere.acknowledged)
    assert elsewhere.replies == [("replies.ada", "applied", False), ("replies.ada", "applied", True)]
    assert await count(writes) == 2


async def test_what_comes_again_while_it_still_waits_here_is_in_the_queue_once(
    elsewhere: Elsewhere, writes: InProcessWrites
) -> None:
    ENTERED.clear()
    GATE.clear()
    ids = [new_command_id() for _ in range(4)]
    for command_id in ids[:3]:
        elsewhere.deliver(command_id, "replies.ada")
    assert await asyncio.to_thread(ENTERED.wait, WITHIN_S)
    queue = writes._lanes["orders"].queue
    await until(lambda: queue.waiting == 3)
    for _ in range(3):
        elsewhere.inbox.begin_channel()
        tags = [elsewhere.deliver(command_id, "replies.ada", redelivered=True) for command_id in ids[:3]]
    tags.append(elsewhere.deliver(ids[3], "replies.ada"))
    await until(lambda: queue.waiting == 4)
    GATE.set()
    await until(lambda: elsewhere.acknowledged == {(4, tag) for tag in tags})
    assert elsewhere.replies == [("replies.ada", "applied", False)] * 4
    assert await count(writes) == 5


async def test_nobody_outside_answers_for_those_who_wait_here(elsewhere: Elsewhere, writes: InProcessWrites) -> None:
    """He has guessed how the process calls a command for which somebody waits."""
    waiting = writes._waiting["guessed"] = WaitingIssuer("orders", "", asyncio.get_running_loop())
    elsewhere.deliver(new_command_id(), "here", "guessed")
    await until(lambda: elsewhere.replies == [("here", "applied", False)])
    # What the lane's thread has given to this loop is done by now.
    await count(writes)
    assert not waiting.outcome.done()
    waiting.outcome.cancel()


async def test_what_is_emitted_to_a_lane_elsewhere_stays_in_the_outbox_until_it_is_safe_there(
    elsewhere: Elsewhere, writes: InProcessWrites
) -> None:
    await execute(writes, PlaceOrder(reserve=True), Counter, DEFAULT_OPTIONS)
    await until(lambda: bool(elsewhere.published))
    (entry,) = elsewhere.published
    assert (entry.lane, msgspec.json.decode(entry.arguments)) == ("stock", {"order": 1})
    store = writes._lanes["orders"]._store

    def left() -> int:
        transaction = store.begin()
        found = transaction.scan(OutboxEntry, 10)
        transaction.rollback()
        return len(found)

    assert await count(writes) == 2
    assert await asyncio.to_thread(left) == 1
    elsewhere.confirm([entry])
    # The lane deletes it with its next batch.
    await count(writes)
    await until(lambda: left() == 0)


async def test_without_the_broker_commands_are_applied_here(elsewhere: Elsewhere, writes: InProcessWrites) -> None:
    elsewhere.unready_reason = "nothing answers"
    assert await count(writes) == 1
    assert (writes.connected, writes.bridge_problem) == (True, "nothing answers")


async def test_a_transport_that_has_failed_for_good_ends_the_process(
    elsewhere: Elsewhere, writes: InProcessWrites
) -> None:
    elsewhere.failure = ConfigurationError("the broker refuses this account")
    elsewhere.inbox.close()
    with pytest.raises(ConfigurationError, match="the broker refuses this account"):
        await asyncio.wait_for(writes.failed(), WITHIN_S)


async def test_a_lane_that_is_lost_leaves_what_waits_to_others(elsewhere: Elsewhere, writes: InProcessWrites) -> None:
    writes.lost("orders", "another process took it over")
    assert elsewhere.is_stopped
    assert elsewhere.inbox.is_closed
