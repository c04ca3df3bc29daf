"""What a worker does with a delivery: its result or a dead letter is safe before it is acknowledged."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pika
import pytest

from coordinator.effects.worker import EffectWorker
from shared.commands import Command
from shared.effects import EffectHandler, EffectRetry, GivenUp
from shared.ids import derived_command_id
from shared.messaging.topology import DEAD_EXCHANGE, WRITES_EXCHANGE
from shared.settings import BrokerSettings, EffectSettings
from tests.support.courier import Courier, ParcelTold, TakeAway

FIRST = "0b0e7b6e-6d4e-4a57-9a5e-3f5d9f3c9b11"
SECOND = "0b0e7b6e-6d4e-4a57-9a5e-3f5d9f3c9b12"
WITHIN_S = 10.0


class FakePublisher:
    """Notes what is published; confirms it once it may."""

    def __init__(self) -> None:
        self.published: list[tuple[str, str, pika.BasicProperties, bytes]] = []
        self.has_published = asyncio.Event()
        self.may_confirm = asyncio.Event()
        self.may_confirm.set()

    async def publish(self, exchange: str, routing_key: str, properties: pika.BasicProperties, body: bytes) -> None:
        self.published.append((exchange, routing_key, properties, body))
        self.has_published.set()
        await self.may_confirm.wait()


class FakeChannel:
    """Notes what is acknowledged; fails with `error` if there is one."""

    def __init__(self) -> None:
        self.acknowledged: list[int] = []
        self.error: Exception | None = None
        self.raw = SimpleNamespace(is_open=True, basic_ack=self._acknowledge)

    def _acknowledge(self, tag: int) -> None:
        if self.error is not None:
            raise self.error
        self.acknowledged.append(tag)


class Crashing(Courier):
    """A courier with a defect: `give_up` raises."""

    @property
    def handlers(self) -> tuple[EffectHandler[TakeAway], ...]:
        return (EffectHandler(TakeAway, self._take_away, self._crash),)

    def _crash(self, effect: TakeAway, given_up: GivenUp) -> Command:
        raise ValueError(f"\ud800 {effect.id}")


class Untellable(Courier):
    """A courier with a defect: its result has no JSON."""

    async def _take_away(self, effect: TakeAway, key: str) -> Command:
        return ParcelTold(id=effect.id, state="\ud800")


class Delivering:
    """A worker between fakes."""

    def __init__(self, courier: Courier, **settings: float) -> None:
        self.worker = EffectWorker("courier", courier, BrokerSettings(), EffectSettings(**settings), lambda: 1.0)  # type: ignore[arg-type]
        self.publisher = FakePublisher()
        self.channel = FakeChannel()
        fakes: Any = self.worker
        fakes._publisher = self.publisher
        self.connect(self.channel)

    def connect(self, channel: Any) -> None:
        self.worker._channel = channel

    def deliver(self, channel: Any, tag: int, command_id: str | None, body: bytes = b'{"id": 7}') -> None:
        properties = pika.BasicProperties(message_id=command_id, type=TakeAway.type)
        self.worker._take(channel, SimpleNamespace(delivery_tag=tag, redelivered=False), properties, body)

    async def until_done(self) -> None:
        async with asyncio.timeout(WITHIN_S):
            await asyncio.gather(*self.worker._under_way)

    @property
    def published(self) -> list[tuple[str, str | None]]:
        return [(exchange, properties.message_id) for exchange, _, properties, _ in self.publisher.published]


async def test_an_effect_is_acknowledged_once_the_broker_has_its_result() -> None:
    delivering = Delivering(Courier([]))
    delivering.publisher.may_confirm.clear()
    delivering.deliver(delivering.channel, 1, FIRST)
    async with asyncio.timeout(WITHIN_S):
        await delivering.publisher.has_published.wait()
    assert delivering.channel.acknowledged == []
    delivering.publisher.may_confirm.set()
    await delivering.until_done()
    assert delivering.published == [(WRITES_EXCHANGE, derived_command_id(FIRST, 0))]
    assert delivering.channel.acknowledged == [1]


@pytest.mark.parametrize(
    ("courier", "error"),
    [(Crashing([EffectRetry("busy")]), "ValueError"), (Untellable([]), "UnicodeEncodeError")],
)
async def test_an_effect_that_meets_a_defect_is_dead_lettered_with_its_traceback(courier: Courier, error: str) -> None:
    delivering = Delivering(courier, attempts_max=1)
    delivering.deliver(delivering.channel, 1, FIRST)
    await delivering.until_done()
    [(exchange, routing_key, properties, body)] = delivering.publisher.published
    assert (exchange, routing_key, body) == (DEAD_EXCHANGE, "effects.courier", b'{"id": 7}')
    assert (properties.message_id, properties.type) == (FIRST, TakeAway.type)
    assert properties.headers["reason"] == "handler_error"
    assert properties.headers["error"].startswith(f"{error}: ")
    assert "Traceback" in properties.headers["traceback"]
    properties.encode()
    assert delivering.channel.acknowledged == [1]


async def test_an_effect_that_is_done_is_not_dead_lettered_for_want_of_an_acknowledgement() -> None:
    delivering = Delivering(Courier([]))
    delivering.channel.error = OSError("the socket is gone")
    delivering.deliver(delivering.channel, 1, FIRST)
    with pytest.raises(OSError, match="socket"):
        await delivering.until_done()
    assert [exchange for exchange, _ in delivering.published] == [WRITES_EXCHANGE]


async def test_a_worker_that_stops_leaves_what_it_would_only_repeat_to_another() -> None:
    delivering = Delivering(Courier([EffectRetry("busy", after_s=9.0)]))
    delivering.deliver(delivering.channel, 1, FIRST)
    delivering.worker._stop.set()
    await delivering.until_done()
    assert (delivering.published, delivering.channel.acknowledged) == ([], [])


async def test_a_worker_that_is_cancelled_leaves_its_call_to_another() -> None:
    courier = Courier([])
    courier.may_go.clear()
    delivering = Delivering(courier)
    delivering.deliver(delivering.channel, 1, FIRST)
    async with asyncio.timeout(WITHIN_S):
        await courier.arrived.wait()
    [task] = delivering.worker._under_way
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (delivering.published, delivering.channel.acknowledged) == ([], [])


async def test_an_effect_that_is_delivered_again_is_called_once_and_acknowledged_where_it_came_last() -> None:
    courier, later = Courier([]), FakeChannel()
    courier.may_go.clear()
    delivering = Delivering(courier)
    delivering.deliver(delivering.channel, 5, FIRST)
    async with asyncio.timeout(WITHIN_S):
        await courier.arrived.wait()
    delivering.connect(later)
    delivering.deliver(later, 1, FIRST)
    delivering.deliver(later, 2, SECOND)
    courier.may_go.set()
    await delivering.until_done()
    assert sorted(courier.keys) == [FIRST, SECOND]
    assert (delivering.channel.acknowledged, sorted(later.acknowledged)) == ([], [1, 2])


async def test_deliveries_without_an_id_are_each_dead_lettered_on_its_own() -> None:
    """The first is not settled yet when a new channel, whose tags begin anew, brings the second."""
    delivering, later = Delivering(Courier([])), FakeChannel()
    delivering.deliver(delivering.channel, 1, None, b'{"id": 1}')
    delivering.connect(later)
    delivering.deliver(later, 1, None, b'{"id": 2}')
    delivering.deliver(later, 2, None, b'{"id": 3}')
    await delivering.until_done()
    assert [body for *_, body in delivering.publisher.published] == [b'{"id": 1}', b'{"id": 2}', b'{"id": 3}']
    assert {exchange for exchange, _ in delivering.published} == {DEAD_EXCHANGE}
    assert (delivering.channel.acknowledged, later.acknowledged) == ([], [1, 2])
