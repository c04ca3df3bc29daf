"""The in-process transport, and the broker of the simulation, keep what a transport promises."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import msgspec
import pika
import pytest

from coordinator.lane.acknowledger import Acknowledger
from coordinator.lane.delivery import Delivery, Settlement
from coordinator.lane.high_water import Mark
from coordinator.protocol.outcomes import decode_outcome, encode_outcome
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.settings import LaneSettings
from coordinator.service.errors import BrokerUnavailable, Overloaded
from coordinator.service.outcome import Outcome
from coordinator.transports.inbox import Inbox
from coordinator.transports.inprocess.journal import FileJournal, JournalEntry
from coordinator.transports.inprocess.queue import LocalQueue
from coordinator.transports.rabbitmq.topology import SYSTEM_EXCHANGE, WRITES_EXCHANGE
from tests.simulation.broker import Broker, Channel, Message
from tests.simulation.publisher import Publisher
from tests.simulation.schedule import IDLE, NEVER, Act, Schedule
from tests.support.consuming import InboxConsuming, settlement
from tests.support.transport_contract import COMMAND_BYTES, TransportContract, command

LANE = "ledger"
ROOM = 5


class LocalConsuming(InboxConsuming):
    """The lane of the process that has the queue."""

    def __init__(self, owner: "LocalTransporting") -> None:
        self._owner = owner
        super().__init__()
        self.queue = LocalQueue(
            LANE,
            self.inbox,
            FileJournal(owner.path),
            on_settlement=owner.reply,
            on_emitted=lambda _: None,
            on_lost=lambda _: None,
            bytes_max=owner.bytes_max,
        )
        self.queue.start(lambda _: None)

    async def settle(self, deliveries: list[Delivery]) -> None:
        self.queue.settle(self.channel, settlement(deliveries))

    async def keep(self, mark: Mark) -> None:
        self.queue.keep(self.channel, mark)

    async def leave(self) -> None:
        self.queue.stop(1.0)
        await self.queue.close()
        self._owner.consuming = None


class LocalTransporting:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes_max = 1 << 20
        self.consuming: LocalConsuming | None = None
        self._is_given = False
        self._asked: dict[str, asyncio.Future[Outcome]] = {}

    def limit(self) -> None:
        self.bytes_max = ROOM * COMMAND_BYTES

    def reply(self, settlement: Settlement) -> None:
        for reply in settlement.replies:
            self._asked[reply.correlation_id or ""].set_result(reply.outcomes[0])

    def _opened(self) -> LocalConsuming:
        if self.consuming is None:
            self.consuming = LocalConsuming(self)
            self._is_given = False
        return self.consuming

    async def publish(self, message: CommandMessage) -> None:
        queue = self._opened().queue
        await queue.accept(queue.put(message), message)

    async def ask(self, message: CommandMessage) -> Outcome:
        asked: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._asked[message.command_id or ""] = asked
        self._opened().queue.put(message, message.command_id)
        return await asked

    async def consumer(self) -> LocalConsuming:
        if self._is_given and self.consuming is not None:
            # Another process.
            return LocalConsuming(self)
        consuming = self._opened()
        self._is_given = True
        return consuming

    async def crash(self) -> None:
        """Nothing of the process is left but its file, as it is on disk."""
        if self.consuming is not None:
            copies = {name: name.read_bytes() for name in self.path.parent.iterdir()}
            await self.consuming.leave()
            for name, copy in copies.items():
                name.write_bytes(copy)


class TestInProcess(TransportContract):
    @pytest.fixture
    async def transporting(self, tmp_path: Path) -> AsyncIterator[LocalTransporting]:
        transporting = LocalTransporting(tmp_path / "ledger.queue")
        yield transporting
        if transporting.consuming is not None:
            await transporting.consuming.leave()

    async def test_a_lane_is_handed_over_to_nobody(self, tmp_path: Path) -> None:
        consumer = await LocalTransporting(tmp_path / "ledger.queue").consumer()
        assert not consumer.queue.hand_over(consumer.channel)
        await consumer.leave()

    async def test_what_is_settled_already_does_not_stay_in_the_journal(self, tmp_path: Path) -> None:
        transporting = LocalTransporting(tmp_path / "ledger.queue")
        consumer = await transporting.consumer()
        queue = consumer.queue
        message = command(1)
        number = queue.put(message)
        await consumer.settle(await consumer.take(1))
        await asyncio.sleep(0)  # so that the loop has heard of it
        await queue.accept(number, message)
        await consumer.leave()
        journal = FileJournal(transporting.path)
        assert journal.read() == []
        journal.close()

    async def test_what_comes_while_it_starts_does_not_take_the_place_of_what_was_accepted(
        self, tmp_path: Path
    ) -> None:
        transporting = LocalTransporting(tmp_path / "ledger.queue")
        await transporting.publish(command(1))
        await transporting.publish(command(2))
        await transporting.crash()
        journal = Interrupted(transporting.path)
        inbox = Inbox()
        queue = LocalQueue(
            LANE, inbox, journal, on_settlement=lambda _: None, on_emitted=lambda _: None, on_lost=lambda _: None
        )
        early: list[int] = []

        def emit() -> None:
            with suppress(BrokerUnavailable):
                early.append(queue.put(command(3), is_bounded=False))

        journal.meanwhile = emit
        queue.start(lambda _: None)
        assert early == []
        assert queue.put(command(3), is_bounded=False) == 3
        _, deliveries = inbox.take(10, 1 << 20, 0)
        assert [delivery.tag for delivery in deliveries] == [1, 2, 3]
        await queue.close()


class Interrupted(FileJournal):
    """Another thread acts while it is read."""

    meanwhile: Callable[[], None]

    def read(self) -> list[JournalEntry]:
        self.meanwhile()
        return super().read()


class Quiet:
    """As much of a World as a broker needs, in which nothing goes wrong and whose time stands."""

    def __init__(self) -> None:
        self.now = 0.0
        self.is_calm = True
        self.is_full = False
        self.settings = LaneSettings()
        self.schedule = Schedule(self.chance)
        self.wake = self.schedule.wake
        self.was_live: set[str | None] = set()
        self.expired: set[str] = set()
        self.broker = Broker(self, [LANE], prefetch=64)  # type: ignore[arg-type]

    def chance(self) -> float:
        return 0.99

    def happens(self, fault: str) -> bool:
        return fault == "reject" and len(self.broker.queues[LANE].ready) >= ROOM and self.is_full

    def trace(self, text: str, *arguments: object) -> None:
        pass

    def violation(self, text: str) -> None:
        raise AssertionError(text)

    def acknowledged(self, message: Message) -> None:
        pass

    def wake_lane(self, lane: str) -> None:
        pass

    def until_idle(self) -> None:
        while self.broker.step() is not IDLE:
            pass


class Reader:
    """An actor that is never asked: the test looks by itself."""

    def __init__(self, world: Quiet) -> None:
        self.actor = world.schedule.add()
        self.actor.step, self.actor.wake = self._step, self._wake

    def _step(self) -> Act:
        return IDLE

    def _wake(self) -> float:
        return NEVER


class SimulatedConsuming:
    def __init__(self, world: Quiet, number: int) -> None:
        self._world = world
        self.channel = number
        self._acknowledger = Acknowledger()
        self._consumed: Channel = world.broker.consume(
            LANE, f"consumer {number}", f"consumer {number}", Reader(world).actor
        )
        self._publisher = Publisher(world, f"consumer {number}", Reader(world).actor)  # type: ignore[arg-type]
        self._publisher.step()

    @property
    def has_any(self) -> bool:
        self._world.until_idle()
        return bool(self._consumed.inbound)

    async def take(self, count: int) -> list[Delivery]:
        while len(self._consumed.inbound) < count:
            self._world.until_idle()
            await asyncio.sleep(0)
        taken = [self._consumed.inbound.popleft() for _ in range(count)]
        for tag, _, _ in taken:
            self._acknowledger.delivered(tag)
        return [
            msgspec.structs.replace(message.delivered(self._world.settings), tag=tag, redelivered=is_redelivered)
            for tag, message, is_redelivered in taken
        ]

    async def settle(self, deliveries: list[Delivery]) -> None:
        decided = settlement(deliveries)
        for reply in decided.replies:
            self._publisher.send((reply.reply_to, reply.correlation_id, False, encode_outcome(reply.outcomes[0])))
        self._consumed.outbound.extend(self._acknowledger.acknowledge(decided.tags))
        self._world.until_idle()

    @property
    def mark(self) -> Mark | None:
        return self._world.broker.marks.get(LANE)

    async def keep(self, mark: Mark) -> None:
        self._world.broker.marks[LANE] = mark

    async def leave(self) -> None:
        self._world.broker.drop_channel(self._consumed)


class SimulatedTransporting:
    def __init__(self) -> None:
        self._world = Quiet()
        self._publisher = Publisher(self._world, "publisher", Reader(self._world).actor)  # type: ignore[arg-type]
        self._publisher.step()
        self._channels = 0
        replies = self._world.broker.replies
        self._replies: deque[tuple[str | None, bool, bytes]] = replies["here"]
        self._world.broker.readers["here"] = Reader(self._world).actor

    def limit(self) -> None:
        self._world.is_full = True

    async def publish(self, message: CommandMessage, **properties: Any) -> None:
        taken: list[bool] = []
        exchange = SYSTEM_EXCHANGE if message.origin == "system" else WRITES_EXCHANGE
        given = pika.BasicProperties(message_id=message.command_id, type=message.type, **properties)
        self._publisher.publish(LANE, Message(exchange, given, message.arguments, (message.command_id,)), taken.append)
        while not taken:
            self._world.until_idle()
            self._publisher.step()
        if not taken[0]:
            raise Overloaded("the queue takes nothing")

    async def ask(self, message: CommandMessage) -> Outcome:
        await self.publish(message, reply_to="here", correlation_id=message.command_id)
        while True:
            for correlation_id, _, body in self._replies:
                if correlation_id == message.command_id:
                    return decode_outcome(body)
            await asyncio.sleep(0)

    async def consumer(self) -> SimulatedConsuming:
        self._channels += 1
        return SimulatedConsuming(self._world, self._channels)

    async def crash(self) -> None:
        self._world.broker.restart(0.0)
        self._publisher.step()


class TestSimulation(TransportContract):
    @pytest.fixture
    async def transporting(self) -> AsyncIterator[SimulatedTransporting]:
        async with AsyncExitStack():
            yield SimulatedTransporting()
