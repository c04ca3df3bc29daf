"""What every transport promises a lane (docs/ARCHITECTURE.md, "The transport"). The tests of each inherit this class.

RabbitMQ, Redis, the in-process transport and the broker of the simulation pass it: so what is simulated behaves as what
runs. `BrokerContract` is what brokers promise beside it.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol

from coordinator.lane.delivery import Delivery
from coordinator.lane.high_water import Mark
from coordinator.protocol.wire import CommandMessage
from coordinator.service.errors import ConfigurationError, Overloaded
from coordinator.service.options import Origin
from coordinator.service.outcome import Outcome
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.transports.emitting import Emitting
from tests.support.lane_contract import command_id

WITHIN_S = 20.0
COMMAND_BYTES = 1024
COMMANDS_OVER = 10
"""More than there is room for in a limited queue."""
SOON_S = 0.02
"""How long a full queue is left alone at first."""


class Consuming(Protocol):
    """A consumer of the lane."""

    @property
    def channel(self) -> int:
        """The number of the channel that its deliveries come on now."""

    async def take(self, count: int) -> list[Delivery]:
        """So many deliveries, once they are there."""

    @property
    def has_any(self) -> bool:
        """Whether there are deliveries that were not taken."""

    async def settle(self, deliveries: list[Delivery]) -> None:
        """As the lane does: each is applied, and its outcome goes to whoever published it."""

    @property
    def mark(self) -> Mark | None:
        """What it was told, once, of how far the lane has come."""

    async def keep(self, mark: Mark) -> None:
        """Return once that is safe."""

    async def leave(self) -> None:
        """It ends; what it settled is acknowledged."""


class Transporting(Protocol):
    """One lane's way through a transport."""

    async def publish(self, message: CommandMessage) -> None:
        """Return once it is safe. Raises Overloaded, and then it is not in the queue."""

    async def ask(self, message: CommandMessage) -> Outcome:
        """Publish, and wait for the outcome."""

    async def consumer(self) -> Consuming:
        """Another one. Raises ConfigurationError where there can be one only."""

    async def crash(self) -> None:
        """The transport is killed, and comes back; with it whoever is within its process."""

    def limit(self) -> None:
        """From now on its queue has room for a few commands."""


class BrokerConsuming(Consuming, Protocol):
    """A consumer of the lane beside others."""

    def hand_over(self, mark: Mark) -> None:
        """Give the lane up to the next consumer, which is to know this."""

    async def kept(self) -> Mark | None:
        """The mark as the broker has it; None: there is none."""

    async def until_behind(self, channel: int) -> None:
        """Return once it is behind the others, since it has handed this channel over."""


class Brokering(Transporting, Protocol):
    """One lane's way through a broker, where other lanes are elsewhere."""

    @property
    def lane(self) -> str: ...

    async def consumer(self) -> BrokerConsuming:
        """Another one."""

    async def lose_mark(self) -> None:
        """Somebody takes the lane's mark away."""

    async def emitting(self, on_confirmed: Callable[[Sequence[OutboxEntry]], None]) -> Emitting:
        """What publishes what another lane emits to this one."""


def command(number: int, *, origin: Origin = "public") -> CommandMessage:
    text = "x" * (COMMAND_BYTES - 32)
    return CommandMessage(
        command_id=command_id(number), type="ledger.open", arguments=b'{"owner":"%s"}' % text.encode(), origin=origin
    )


def numbers(deliveries: list[Delivery]) -> list[int]:
    return [int((message.command_id or "")[-12:]) for delivery in deliveries for message in delivery.commands]


class TransportContract:
    """`transporting` is a fixture of the subclass."""

    async def test_commands_come_in_the_order_in_which_they_were_published(self, transporting: Transporting) -> None:
        async with asyncio.timeout(WITHIN_S):
            for number in range(1, 8):
                await transporting.publish(command(number))
            consumer = await transporting.consumer()
            taken = await consumer.take(7)
        assert numbers(taken) == list(range(1, 8))
        assert [delivery.tag for delivery in taken] == sorted(delivery.tag for delivery in taken)
        assert not any(delivery.redelivered for delivery in taken)

    async def test_what_was_not_acknowledged_comes_again_in_its_order(self, transporting: Transporting) -> None:
        async with asyncio.timeout(WITHIN_S):
            for number in range(1, 7):
                await transporting.publish(command(number))
            first = await transporting.consumer()
            taken = await first.take(5)
            # As where the second and the fourth waited for others: acknowledged is what is settled, and no more.
            await first.settle([taken[0], taken[2]])
            await first.leave()
            second = await transporting.consumer()
            again = await second.take(4)
            assert numbers(again) == [2, 4, 5, 6]
            assert all(delivery.redelivered for delivery in again[:3])
            await second.settle(again)
            await second.leave()
            await transporting.publish(command(7))
            third = await transporting.consumer()
            assert numbers(await third.take(1)) == [7]

    async def test_a_full_queue_refuses_and_drops_nothing(self, transporting: Transporting) -> None:
        transporting.limit()
        accepted: list[int] = []
        refused = 0
        async with asyncio.timeout(WITHIN_S):
            for number in range(1, 61):
                try:
                    await transporting.publish(command(number))
                except Overloaded:
                    refused += 1
                else:
                    accepted.append(number)
            assert refused
            assert accepted
            consumer = await transporting.consumer()
            assert numbers(await consumer.take(len(accepted))) == accepted
            assert not consumer.has_any

    async def test_what_was_confirmed_outlives_a_crash(self, transporting: Transporting) -> None:
        async with asyncio.timeout(3 * WITHIN_S):
            for number in range(1, 6):
                await transporting.publish(command(number))
            await transporting.crash()
            consumer = await transporting.consumer()
            assert numbers(await consumer.take(5)) == [1, 2, 3, 4, 5]

    async def test_one_consumer_has_the_lane_at_a_time(self, transporting: Transporting) -> None:
        async with asyncio.timeout(WITHIN_S):
            first = await transporting.consumer()
            await transporting.publish(command(1))
            assert numbers(await first.take(1)) == [1]
            try:
                second = await transporting.consumer()
            except ConfigurationError:
                # One that cannot even wait for its turn.
                return
            await transporting.publish(command(2))
            assert numbers(await first.take(1)) == [2]
            assert not second.has_any
            await first.leave()
            assert numbers(await second.take(2)) == [1, 2]

    async def test_what_comes_again_comes_on_a_channel_of_another_number(self, transporting: Transporting) -> None:
        """By that a lane knows that it has to take over."""
        async with asyncio.timeout(3 * WITHIN_S):
            first = await transporting.consumer()
            await transporting.publish(command(1))
            await first.take(1)
            channel = first.channel
            assert channel > 0
            await first.leave()
            second = await transporting.consumer()
            await second.take(1)
            assert second is not first or second.channel != channel

    async def test_how_far_the_lane_has_come_is_known_before_its_next_commands(
        self, transporting: Transporting
    ) -> None:
        async with asyncio.timeout(WITHIN_S):
            await transporting.publish(command(1))
            first = await transporting.consumer()
            taken = await first.take(1)
            assert first.mark is None
            await first.keep(Mark(sequence=6, epoch=2, series={"accounts": 3}))
            await first.keep(Mark(sequence=7, epoch=2, series={"accounts": 4}, lineage="a"))
            await first.settle(taken)
            await first.leave()
            second = await transporting.consumer()
            await transporting.publish(command(2))
            assert numbers(await second.take(1)) == [2]
            assert second.mark == Mark(sequence=7, epoch=2, series={"accounts": 4}, lineage="a")

    async def test_public_and_system_are_told_apart(self, transporting: Transporting) -> None:
        async with asyncio.timeout(WITHIN_S):
            await transporting.publish(command(1, origin="public"))
            await transporting.publish(command(2, origin="system"))
            consumer = await transporting.consumer()
            taken = await consumer.take(2)
        origins = [(message.command_id, message.origin) for delivery in taken for message in delivery.commands]
        assert sorted(origins) == [(command_id(1), "public"), (command_id(2), "system")]

    async def test_whoever_waits_for_an_outcome_gets_his_own(self, transporting: Transporting) -> None:
        async with asyncio.timeout(WITHIN_S):
            consumer = await transporting.consumer()
            asked = [asyncio.ensure_future(transporting.ask(command(number))) for number in (1, 2, 3)]
            taken: list[Delivery] = []
            while len(numbers(taken)) < 3:
                taken += await consumer.take(1)
            await consumer.settle(taken)
            outcomes = await asyncio.gather(*asked)
        assert [outcome.command_id for outcome in outcomes] == [command_id(number) for number in (1, 2, 3)]


class BrokerContract(TransportContract):
    """`transporting` is a fixture of the subclass."""

    async def test_a_lane_that_is_handed_over_is_the_next_consumer_s_with_the_mark_as_it_was(
        self, transporting: Brokering
    ) -> None:
        async with asyncio.timeout(3 * WITHIN_S):
            first = await transporting.consumer()
            await transporting.publish(command(1))
            taken, channel = await first.take(1), first.channel
            await first.keep(Mark(sequence=6, epoch=2))
            second = await transporting.consumer()
            first.hand_over(Mark(sequence=7, epoch=2, series={"accounts": 4}))
            assert numbers(await second.take(1)) == [1]
            assert second.mark == Mark(sequence=7, epoch=2, series={"accounts": 4})
            await first.settle(taken)
            await transporting.publish(command(2))
            assert numbers(await second.take(1)) == [2]
            await first.until_behind(channel)
            second.hand_over(Mark(sequence=8, epoch=3))
            assert numbers(await first.take(2)) == [1, 2]
            assert first.channel != channel
            assert first.mark == Mark(sequence=8, epoch=3)

    async def test_a_mark_that_somebody_takes_away_is_kept_again(self, transporting: Brokering) -> None:
        """The lane is idle, or blocked, and has no newer one. `transporting` has it looked at often."""
        mark = Mark(sequence=7, epoch=2, series={"accounts": 4})
        async with asyncio.timeout(2 * WITHIN_S):
            await transporting.publish(command(1))
            first = await transporting.consumer()
            await first.settle(await first.take(1))
            await first.keep(mark)
            await transporting.lose_mark()
            await self._until_kept(first, mark)
            # Whoever has the lane next has not kept it himself.
            second = await transporting.consumer()
            await first.leave()
            await transporting.publish(command(2))
            await second.take(1)
            await transporting.lose_mark()
            await self._until_kept(second, mark)

    @staticmethod
    async def _until_kept(consumer: BrokerConsuming, mark: Mark) -> None:
        while await consumer.kept() != mark:  # no broker offers an event
            await asyncio.sleep(0.05)

    async def test_what_is_emitted_is_not_overtaken_where_the_queue_is_full_now_and_then(
        self, transporting: Brokering
    ) -> None:
        """The queue is emptied while more comes: it refuses one and takes the next."""
        transporting.limit()
        confirmed: list[int] = []
        expected = list(range(1, 401))
        came: dict[int, None] = {}

        async def consume(consumer: Consuming) -> None:
            while len(came) < len(expected):
                taken = await consumer.take(1)
                came.update(dict.fromkeys(numbers(taken)))
                await consumer.settle(taken)

        async with asyncio.timeout(3 * WITHIN_S):
            emitting = await transporting.emitting(lambda entries: confirmed.extend(each.id for each in entries))
            consuming = asyncio.create_task(consume(await transporting.consumer()))
            for number in expected:
                emitting.publish([emitted(number, transporting.lane)])
                # As many as there is room for, and a few more.
                while number - len(came) > 2 * COMMANDS_OVER:
                    await asyncio.sleep(0)
            await consuming
            while len(confirmed) < len(expected):
                await asyncio.sleep(0)
        assert list(came) == expected
        assert confirmed == expected


def emitted(number: int, lane: str) -> OutboxEntry:
    message = command(number)
    return OutboxEntry(
        id=number,
        lane=lane,
        command_id=message.command_id or "",
        type=message.type or "",
        arguments=message.arguments,
        created_at=datetime.now(UTC),
    )
