"""A connection whose packets are dropped looks like an idle one: it is asked, and says so of itself in time."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pika import spec
from prometheus_client import REGISTRY

from coordinator.runtime.awaited import Late
from coordinator.runtime.late_answers import LateAnswers
from coordinator.runtime.settings import BrokerSettings, LaneSettings
from coordinator.transports.inbox import Inbox
from coordinator.transports.rabbitmq import pulse
from coordinator.transports.rabbitmq.amqp import AmqpConnection
from coordinator.transports.rabbitmq.consumer import LaneConsumer
from coordinator.transports.rabbitmq.effects.transport import RabbitEffects
from coordinator.transports.rabbitmq.pika_connection import PikaConnection
from coordinator.transports.rabbitmq.writes import RabbitWrites
from tests.support.fake_broker import FakeBroker, fake_broker
from tests.support.system import wait_until

WITHIN_S = 20.0
LOOK_EVERY_S = 0.01
LATE_S = 0.2
SETTINGS = BrokerSettings(reconnect_delay_s=0.005, reconnect_delay_s_max=0.01)
QUESTIONS = ("Channel.Open", "Basic.Qos")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "LOOK_EVERY_S", LOOK_EVERY_S)
    monkeypatch.setattr(pulse, "LATE_S", LATE_S)


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    with fake_broker() as faked:
        yield faked
    assert faked.made == faked.closed, "connections are left open"


@pytest.fixture
async def connection(broker: FakeBroker) -> AsyncIterator[AmqpConnection]:
    opened = await AmqpConnection.open(SETTINGS, "test")
    yield opened
    await opened.end()


async def until(condition: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(wait_until, condition, what, None, WITHIN_S)


def asked(broker: FakeBroker) -> int:
    return sum(broker.streams[0].seen[question] for question in QUESTIONS)


async def test_a_silent_connection_that_lives_is_asked_again_and_again(
    broker: FakeBroker, connection: AmqpConnection
) -> None:
    await until(lambda: asked(broker) > 10, "it is asked")
    assert broker.streams[0].seen["Channel.Open"] == 1
    assert connection.late is None


async def test_a_connection_on_which_something_arrives_is_asked_nothing(
    broker: FakeBroker, connection: AmqpConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[None] = []

    def more_each_time(_: Any) -> int:
        looks.append(None)
        return -len(looks)

    monkeypatch.setattr(PikaConnection, "bytes_received", property(more_each_time, lambda *_: None), raising=False)
    await until(lambda: len(looks) > 2, "it has looked")
    before = asked(broker)
    await until(lambda: len(looks) > 40, "it has looked again and again")
    assert asked(broker) == before


async def test_an_answer_that_does_not_come_is_late_until_it_comes(
    broker: FakeBroker, connection: AmqpConnection
) -> None:
    held: list[Callable[[], None]] = []
    broker.plan("test", "Basic.Qos", lambda stream, _, answer: held.append(lambda: stream.send(answer)))
    await until(lambda: connection.late is not None, "it is late")
    late = connection.late
    assert isinstance(late, Late)
    assert late.what == "RabbitMQ (connection test)"
    assert late.waited_s >= LATE_S
    # Only one question waits.
    assert len(held) == 1
    held[0]()
    await until(lambda: connection.late is None, "the answer has come")
    before = asked(broker)
    await until(lambda: asked(broker) > before, "it is asked again")


async def test_an_alarm_is_no_late_answer(broker: FakeBroker, connection: AmqpConnection) -> None:
    """The broker reads nothing then, and has said so."""
    broker.plan("test", "Basic.Qos", lambda stream, _, __: stream.send((0, spec.Connection.Blocked("low on memory"))))
    await until(lambda: connection.is_blocked, "there is an alarm")
    await until(lambda: connection._pulse is not None and connection._pulse.late is not None, "a question waits")
    assert connection.late is None


async def test_a_channel_that_the_broker_closes_is_replaced(broker: FakeBroker, connection: AmqpConnection) -> None:
    broker.plan(
        "test", "Basic.Qos", lambda stream, channel, _: stream.send((channel, spec.Channel.Close(541, "", 0, 0)))
    )
    await until(lambda: broker.streams[0].seen["Channel.Open"] == 2, "there is another")
    assert not connection.lost.done()


async def test_a_connection_that_is_lost_is_asked_nothing_more(broker: FakeBroker, connection: AmqpConnection) -> None:
    broker.streams[0].is_silent = True
    await until(lambda: connection.late is not None, "it is late")
    broker.streams[0].lose(ConnectionResetError("reset"))
    await connection.lost
    await asyncio.sleep(0)
    assert connection.late is None
    assert connection._pulse is not None
    assert connection._pulse._timer.cancelled()


@asynccontextmanager
async def client() -> AsyncIterator[Callable[[], str | None]]:
    async with RabbitWrites(SETTINGS, confirm_timeout_s=5, wait_s=5, in_flight_max=10, log=None) as writes:
        yield lambda: None if writes.connected else writes.unready_reason


@asynccontextmanager
async def lane() -> AsyncIterator[Callable[[], str | None]]:
    consumer = LaneConsumer("users", SETTINGS, Inbox(), settings=LaneSettings(), holder="test")
    late = LateAnswers(("lane", "users"), [consumer])
    consumer.start(lambda _: None)
    yield lambda: late.reason or consumer.unready_reason
    assert await asyncio.to_thread(consumer.stop, WITHIN_S)


@asynccontextmanager
async def effects() -> AsyncIterator[Callable[[], str | None]]:
    transport = RabbitEffects("payments", SETTINGS, 10)
    late = LateAnswers(("effects", "payments"), [transport])
    transport.start(lambda _: None, lambda _: None)

    def reason() -> str | None:
        waited_s = REGISTRY.get_sample_value("coordinator_effects_answer_late_seconds", {"service": "payments"})
        assert late.reason is None or waited_s, "the metric says it too"
        return transport.unready_reason

    yield reason
    transport.stop()
    await transport.close()


async def test_a_client_says_in_words_for_anybody_why_the_broker_takes_nothing(broker: FakeBroker) -> None:
    """And for the log in the same words, or with the host."""
    async with RabbitWrites(SETTINGS, confirm_timeout_s=5, wait_s=5, in_flight_max=10, log=None) as writes:
        assert writes.problem is None
        (publishing,) = broker.of("publish")
        held: list[Callable[[], None]] = []
        alarm = "takes no messages: a memory or disk alarm"
        publishing.call_threadsafe(lambda: publishing.send((0, spec.Connection.Blocked("low on memory"))))
        await until(lambda: writes.problem == f"the broker {alarm}", "it says that there is an alarm")
        assert writes.unready_reason == f"RabbitMQ at 127.0.0.1:5672 {alarm}"
        publishing.call_threadsafe(lambda: publishing.send((0, spec.Connection.Unblocked())))
        await until(lambda: writes.connected, "the alarm is over")
        publishing.is_silent = True
        await until(lambda: writes.problem == "the broker does not answer", "it says that nothing comes back")
        assert "it has waited" in writes.unready_reason
        # The next connection is not answered at once, or it might be there before anybody has looked.
        broker.plan("publish", "Channel.Open", lambda stream, _, answer: held.append(lambda: stream.send(answer)))
        publishing.call_threadsafe(publishing.end)
        await until(lambda: writes.problem == "the broker is not connected", "it says that the connection is gone")
        await until(lambda: bool(held), "it connects again")
        broker.of("publish")[-1].call_threadsafe(held.pop())
        await until(lambda: writes.connected, "it is connected again")


Kind = Callable[[], Any]


@pytest.mark.parametrize(
    ("kind", "connections"),
    [
        (client, ("publish", "replies")),
        (lane, ("consume", "publish", "outcomes")),
        (effects, ("effects payments", "publish")),
    ],
)
async def test_each_connection_of_each_kind_of_process_says_that_it_is_silent(
    broker: FakeBroker, kind: Kind, connections: tuple[str, ...]
) -> None:
    async with kind() as reason:
        await until(lambda: reason() is None, "it is ready")
        for name in connections:
            (stream,) = broker.of(name)
            stream.is_silent = True
            await until(lambda: f"{stream.name})" in (reason() or ""), f"{name} is said to be silent")  # noqa: B023
            assert "RabbitMQ (connection" in (reason() or "")
            stream.call_threadsafe(stream.end)
            await until(lambda: reason() is None and len(broker.of(name)) == 2, "it is ready again")  # noqa: B023
