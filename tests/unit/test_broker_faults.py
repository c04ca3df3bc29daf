"""Whatever the broker does, and in whatever state: a new attempt, ready again, and nothing left behind."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pika
import pytest
from pika import spec
from structlog.testing import capture_logs

from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.settings import BrokerSettings, LaneSettings
from coordinator.service.errors import BrokerUnavailable, ConfigurationError, InvalidCommand
from coordinator.transports import consumer_thread
from coordinator.transports.inbox import Inbox
from coordinator.transports.rabbitmq import amqp, bindings
from coordinator.transports.rabbitmq.amqp import AmqpConnection
from coordinator.transports.rabbitmq.consumer import LaneConsumer
from coordinator.transports.rabbitmq.publisher import UNSENT_BYTES_MAX, Publisher
from coordinator.transports.rabbitmq.writes import RabbitWrites
from tests.support.fake_broker import (
    OWN_ADDRESS,
    FakeBroker,
    Published,
    Stream,
    close_channel,
    close_connection,
    confirm,
    fake_broker,
)
from tests.support.system import wait_until

WITHIN_S = 20.0
QUICK = BrokerSettings(reconnect_delay_s=0.005, reconnect_delay_s_max=0.01, connect_timeout_s=0.3)
PATIENT = BrokerSettings(reconnect_delay_s=0.005, reconnect_delay_s_max=0.01, connect_timeout_s=WITHIN_S)
OPENING = ["AMQP", "Connection.StartOk", "Connection.Open", "Channel.Open"]
STEPS = {
    "publish": [*OPENING, "Confirm.Select"],
    "outcomes": [*OPENING, "Confirm.Select", "Basic.Consume", "Basic.Return", "Basic.Cancel"],
    "replies": [*OPENING, "Queue.Declare", "Basic.Consume"],
    "consume": [*OPENING, "Exchange.Declare", "Queue.Declare", "Queue.Bind", "Basic.Qos", "Basic.Consume"],
}
"""What each kind of connection waits for, from its first byte on."""

Answer = tuple[int, Any]
Fault = Callable[[Stream, int, Answer], None]


def lose(stream: Stream, _: int, answer: Answer) -> None:
    stream.send(answer)
    stream.lose(ConnectionResetError("reset"))


def fall_silent(stream: Stream, _: int, __: Answer) -> None:
    stream.is_silent = True


def a_return(channel: int) -> bytes:
    properties = spec.BasicProperties(headers={"publish-number": 4711})
    frames = (
        pika.frame.Method(channel, spec.Basic.Return(312, "NO_ROUTE", "nowhere", "x")),
        pika.frame.Header(channel, 0, properties),
    )
    return b"".join(frame.marshal() for frame in frames)


ENDS: dict[str, Fault] = {
    "the connection is closed": lambda stream, _, __: stream.send(close_connection()),
    "the connection is closed beside the answer": lambda stream, _, answer: stream.send(answer, close_connection()),
    "the connection is closed twice": lambda stream, _, __: stream.send(close_connection(), close_connection()),
    "the channel is closed": lambda stream, channel, _: stream.send(close_channel(channel or 1, 541, "INTERNAL_ERROR")),
    "the channel is closed beside the answer": lambda stream, channel, answer: stream.send(
        answer, close_channel(channel or 1, 541, "INTERNAL_ERROR")
    ),
    "garbage": lambda stream, _, __: stream.send(b"\x01\x00\x00\x00\x00\x00\x02\xff\xff\xce"),
    "garbage beside the answer": lambda stream, _, answer: stream.send(answer, b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "a reset": lambda stream, _, __: stream.lose(ConnectionResetError("reset")),
    "a reset beside the answer": lose,
    "the end of the stream": lambda stream, _, __: stream.end(),
    "a loss without a reason": lambda stream, _, __: stream.lose(None),
    "silence": fall_silent,
}
"""What ends a connection, or has to."""

ODD: dict[str, Fault] = {
    "the answer comes twice": lambda stream, _, answer: stream.send(answer, answer),
    "an alarm that is over": lambda stream, _, answer: stream.send(
        answer, (0, spec.Connection.Blocked("low on memory")), (0, spec.Connection.Unblocked())
    ),
    "a heartbeat": lambda stream, _, answer: stream.send(answer, pika.frame.Heartbeat().marshal()),
}
"""What may come, and need not end anything."""


@pytest.fixture
def settings(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> BrokerSettings:
    """Impatient only where the broker is to say nothing: a busy machine takes its time."""
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    if parameters.get("fault") not in ("silence", "the channel is closed", "the channel is closed beside the answer"):
        return PATIENT
    monkeypatch.setattr(amqp, "ANSWER_TIMEOUT_S", 0.2)
    return QUICK


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    with fake_broker() as faked:
        yield faked
    assert faked.made == faked.closed, "connections are left open"


def writes(settings: BrokerSettings) -> RabbitWrites:
    return RabbitWrites(settings, confirm_timeout_s=5, wait_s=5, in_flight_max=10, log=None)


@asynccontextmanager
async def lane(settings: BrokerSettings) -> AsyncIterator[LaneConsumer]:
    consumer = LaneConsumer("users", settings, Inbox(), settings=LaneSettings(), holder="test", has_effects=True)
    consumer.start(lambda _: None)
    yield consumer
    assert await asyncio.to_thread(consumer.stop, WITHIN_S)
    assert consumer.failure is None


async def until(condition: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(wait_until, condition, what, None, WITHIN_S)


async def test_every_kind_of_connection_waits_for_the_steps_that_are_tried_here(
    broker: FakeBroker, settings: BrokerSettings
) -> None:
    async with writes(settings), lane(settings) as consumer:
        await until(lambda: consumer.unready_reason is None, "the lane is ready")
        for name, steps in STEPS.items():
            assert set(broker.of(name)[0].seen) - {"Connection.TuneOk", "Exchange.Declare", "Queue.Unbind"} == set(
                steps
            ) - {"Exchange.Declare"}


@pytest.mark.parametrize("fault", ENDS | ODD)
@pytest.mark.parametrize("kind", ["publish", "replies"])
async def test_a_client_is_ready_again_whatever_the_broker_does_while_it_connects(
    broker: FakeBroker, settings: BrokerSettings, kind: str, fault: str
) -> None:
    for step in STEPS[kind]:
        broker.plan(kind, step, (ENDS | ODD)[fault], times=2)
        async with writes(settings) as client:
            await until(lambda: client.connected, f"ready after {fault} at {step}")
            # Before a channel is open, the word that it is closed means nothing.
            ends = fault in ENDS and not ("channel is closed beside" in fault and step in OPENING[:3])
            assert broker.made >= (4 if ends else 2), step


@pytest.mark.parametrize("fault", ENDS | ODD)
async def test_a_lane_is_ready_again_whatever_the_broker_does_while_it_connects(
    broker: FakeBroker, settings: BrokerSettings, fault: str
) -> None:
    for kind in ("consume", "publish", "outcomes"):
        for step in STEPS[kind]:
            broker.plan(kind, step, (ENDS | ODD)[fault])
            async with lane(settings) as consumer:
                await until(lambda: consumer.unready_reason is None, f"ready after {fault} at {step}")


async def test_a_lane_consumes_once_its_first_outcomes_can_go(broker: FakeBroker, settings: BrokerSettings) -> None:
    waiting: list[tuple[Stream, Answer]] = []
    broker.plan("outcomes", "Channel.Open", lambda stream, _, answer: waiting.append((stream, answer)))
    async with lane(settings) as consumer:
        await until(lambda: bool(waiting) and any(each.seen["Basic.Qos"] for each in broker.of("consume")), "it waits")
        # Whatever the consuming connection was to send next, it would have sent by the time that this is answered.
        await until(lambda: all(each.seen["Confirm.Select"] for each in broker.of("publish")), "the other is there")
        assert not broker.of("consume")[0].consumers
        [(stream, answer)] = waiting
        stream.send_threadsafe(answer)
        await until(lambda: consumer.unready_reason is None, "the lane is ready")
        assert broker.made == 3


async def test_a_lane_does_not_wait_for_ever_for_the_way_of_its_outcomes(
    broker: FakeBroker, settings: BrokerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_thread, "OUTCOMES_WAIT_S", 0.05)
    broker.plan("outcomes", "Channel.Open", lambda *_: None)
    async with lane(settings):
        await until(lambda: any(each.consumers for each in broker.of("consume")), "it consumes")


@pytest.mark.parametrize("fault", [name for name in ENDS if name != "silence"])
async def test_a_connection_that_ends_is_unready_and_then_there_again(
    broker: FakeBroker, settings: BrokerSettings, fault: str
) -> None:
    nothing: Answer = (0, spec.Connection.Unblocked())
    async with writes(settings) as client, lane(settings) as consumer:
        await until(lambda: consumer.unready_reason is None, "the lane is ready")
        for kind in STEPS:
            for stream in [stream for stream in broker.of(kind) if not stream.is_closed]:
                stream.call_threadsafe(ENDS[fault], stream, 1, nothing)
                await until(lambda: stream.is_closed, "the connection has ended")  # noqa: B023

        def is_whole() -> bool:
            # Of a stream that the broker has ended nobody may have heard yet.
            return all(any(not stream.is_closed for stream in broker.of(kind)) for kind in STEPS)

        await until(lambda: is_whole() and client.connected and consumer.unready_reason is None, "all are ready again")


@pytest.mark.parametrize("kind", ["replies", "consume"])
async def test_a_consumer_that_the_broker_ends_is_a_new_one_on_a_new_connection(
    broker: FakeBroker, settings: BrokerSettings, kind: str
) -> None:
    """As it does when the queue is deleted, and from RabbitMQ 4.3 on when a delivery is not acknowledged for long."""
    async with writes(settings) as client, lane(settings) as consumer:
        await until(lambda: consumer.unready_reason is None, "the lane is ready")
        ((stream),) = broker.of(kind)
        ((tag, (channel, queue)),) = stream.consumers.items()
        stream.send_threadsafe((channel, spec.Basic.Cancel(tag, True)))
        await until(lambda: len(broker.of(kind)) == 2 and bool(broker.of(kind)[1].consumers), "it consumes again")
        await until(lambda: client.connected and consumer.unready_reason is None, "all are ready again")
        assert stream.is_closed
        assert broker.of(kind)[1].seen["Queue.Declare"], f"{queue} may be gone"


async def test_a_consumer_goes_on_that_may_no_longer_bind_its_queue(
    broker: FakeBroker, settings: BrokerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It binds again what is bound already: for the right that it has lost since its start it need not end."""
    monkeypatch.setattr(bindings, "BIND_EVERY_S", 0.05)
    monkeypatch.setattr(bindings, "REFUSED_PAUSE_S", 0.05)
    refusal = "ACCESS_REFUSED - access to exchange 'writes' in vhost '/' refused for user 'guest'"
    with capture_logs() as lines:
        async with lane(settings) as consumer:
            await until(lambda: consumer.is_consuming, "consuming")
            broker.plan(
                "consume",
                "Exchange.Declare",
                lambda stream, channel, _: stream.send(close_channel(channel, 403, refusal)),
                times=2,
            )
            (stream,) = broker.of("consume")
            await until(lambda: not broker._faults["consume", "Exchange.Declare"], "refused")
            bound = stream.seen["Queue.Bind"]
            await until(lambda: stream.seen["Queue.Bind"] > bound, "bound again")
            assert broker.of("consume") == [stream]
            assert consumer.is_consuming
    assert [line["log_level"] for line in lines if line["event"] == "bindings_not_kept"] == ["warning"]


async def test_under_an_alarm_from_the_first_moment_on_nothing_is_ready(
    broker: FakeBroker, settings: BrokerSettings
) -> None:
    alarm = (0, spec.Connection.Blocked("low on memory"))
    broker.plan("publish", "Connection.Open", lambda stream, _, answer: stream.send(answer, alarm), times=2)
    client = writes(settings)
    await client.start()
    async with lane(settings) as consumer:
        await until(lambda: all(stream.seen["Confirm.Select"] for stream in broker.of("publish")), "connected")
        await until(lambda: "alarm" in client.unready_reason, "the client knows of the alarm")
        await until(lambda: "alarm" in (consumer.unready_reason or ""), "the lane knows of the alarm")
        assert not client.connected
        for stream in broker.of("publish"):
            stream.send_threadsafe((0, spec.Connection.Unblocked()))
        await until(lambda: client.connected and consumer.unready_reason is None, "the alarm is over")
    await client.close()


async def published(publisher: Publisher, *bodies: bytes, exchange: str = "writes") -> list[Exception | None]:
    """What became of these messages, which are published together."""
    futures = [publisher.publish(exchange, "users", pika.BasicProperties(), body) for body in bodies]
    async with asyncio.timeout(WITHIN_S):
        return [
            error if isinstance(error, Exception) else None
            for error in await asyncio.gather(*futures, return_exceptions=True)
        ]


@asynccontextmanager
async def publishing(settings: BrokerSettings, *exchanges: str) -> AsyncIterator[Publisher]:
    publisher = Publisher(settings, "publish", exchanges)
    publisher.start()
    await publisher.wait_ready()
    yield publisher
    await publisher.close()


@pytest.mark.parametrize("fault", ENDS)
async def test_what_is_published_while_connections_end_is_confirmed_once(
    broker: FakeBroker, settings: BrokerSettings, fault: str
) -> None:
    """Each message in its first place, whatever is repeated; a future that is resolved twice would raise."""
    remaining = [3]

    def on_published(stream: Stream, channel: int, tag: int | None, message: Published) -> None:
        if message.body == b"2" and remaining[0]:
            remaining[0] -= 1
            if fault == "silence":
                # What never answers is ended by a heartbeat; here by a reset.
                stream.is_silent = True
                stream.lose(None)
            else:
                ENDS[fault](stream, channel, (channel, spec.Basic.Ack(tag)))
            return
        confirm(stream, channel, tag, message)

    broker.on_published = on_published
    async with publishing(settings) as publisher:
        assert await published(publisher, *(b"%d" % number for number in range(5))) == [None] * 5
    assert list(dict.fromkeys(message.body for message in broker.published)) == [b"%d" % number for number in range(5)]


@pytest.mark.parametrize("code", [311, 406, 501, 503, 540])
async def test_a_message_for_which_the_broker_ends_the_channel_fails_alone_and_the_others_go_through(
    broker: FakeBroker, settings: BrokerSettings, code: int
) -> None:
    def on_published(stream: Stream, channel: int, tag: int | None, message: Published) -> None:
        if message.body == b"poison":
            whole = close_connection(code, "FRAME_ERROR")
            stream.send(whole if code > 500 else close_channel(channel, code, "PRECONDITION_FAILED - too large"))
        elif not stream.is_silent:
            confirm(stream, channel, tag, message)

    broker.on_published = on_published
    async with publishing(settings) as publisher:
        before, poison, after = await published(publisher, b"before", b"poison", b"after")
        assert (before, after) == (None, None)
        assert isinstance(poison, InvalidCommand)
        assert "'users'" in str(poison)
        assert await published(publisher, b"later") == [None]
        alone = await published(publisher, b"poison")
        assert isinstance(alone[0], InvalidCommand)
        assert await published(publisher, b"last") == [None]
    assert broker.made <= 6


@pytest.mark.parametrize(
    ("code", "text"), [(404, "NOT_FOUND - no exchange"), (403, "ACCESS_REFUSED - access to exchange")]
)
async def test_what_goes_to_an_exchange_that_takes_nothing_fails_at_once_and_is_not_repeated(
    broker: FakeBroker, settings: BrokerSettings, code: int, text: str
) -> None:
    def on_published(stream: Stream, channel: int, tag: int | None, message: Published) -> None:
        if message.exchange == "gone":
            stream.send(close_channel(channel, code, f"{text} 'gone' in vhost '/'"))
        else:
            confirm(stream, channel, tag, message)

    broker.on_published = on_published
    async with publishing(settings) as publisher:
        good, bad = await asyncio.gather(
            published(publisher, b"1", b"2"), published(publisher, b"3", b"4", exchange="gone")
        )
        assert good == [None, None]
        assert [isinstance(error, BrokerUnavailable) and "exchange gone" in str(error) for error in bad] == [True, True]
    assert [message.body for message in broker.published].count(b"3") == 1


@pytest.mark.parametrize(
    "properties",
    [
        pika.BasicProperties(headers={"x": "y" * 10_000}),
        pika.BasicProperties(correlation_id="c" * 300),
        pika.BasicProperties(correlation_id="\ud800"),
        pika.BasicProperties(headers={"n": 1 << 70}),
        pika.BasicProperties(headers={"s": {1, 2}}),
        pika.BasicProperties(headers={"k" * 300: 1}),
        pika.BasicProperties(priority=4711),
    ],
    ids=["beyond a frame", "long text", "surrogate", "large number", "no type of AMQP", "long name", "large priority"],
)
async def test_what_makes_no_message_fails_alone_and_what_a_stranger_named_raises_nothing(
    broker: FakeBroker, settings: BrokerSettings, properties: pika.BasicProperties
) -> None:
    async with publishing(settings) as publisher:
        with pytest.raises(InvalidCommand, match="cannot be published"):
            await publisher.publish("writes", "users", properties, b"{}")
        assert publisher.send("reply", properties, b"{}") is False
        for name in ("r" * 300, "\ud800", "\x00"):
            publisher.send(name, pika.BasicProperties(), b"{}")
        assert await published(publisher, b"1") == [None]
    assert broker.made == 1


async def test_an_exchange_that_is_not_there_yet_is_waited_for_and_said(
    broker: FakeBroker, settings: BrokerSettings
) -> None:
    def on_published(stream: Stream, channel: int, tag: int | None, message: Published) -> None:
        if broker.made <= 3:
            stream.send(close_channel(channel, 404, f"NOT_FOUND - no exchange '{message.exchange}' in vhost '/'"))
        else:
            confirm(stream, channel, tag, message)

    broker.on_published = on_published
    with capture_logs() as lines:
        async with publishing(settings, "writes") as publisher:
            assert broker.made >= 3
            assert await published(publisher, b"1") == [None]
    (line,) = [line for line in lines if line["event"] == "broker_unavailable"]
    assert line["what_to_do"].startswith("start a coordinator"), "not the broker, which runs"


async def test_a_command_whose_exchange_vanishes_is_answered_at_once_with_the_reason(
    broker: FakeBroker, settings: BrokerSettings
) -> None:
    async with writes(settings) as client:
        gone = "NOT_FOUND - no exchange 'writes' in vhost '/'"
        broker.on_published = lambda stream, channel, _, __: stream.send(close_channel(channel, 404, gone))
        command = CommandMessage(command_id="01900000-0000-7000-8000-000000000000", type="users.x", arguments=b"{}")
        with pytest.raises(BrokerUnavailable, match="exchange writes"):
            await client.issue("users", command, 1)
        await until(lambda: gone in client.unready_reason, "it says why")
        with pytest.raises(BrokerUnavailable, match="no exchange 'writes'"):
            await client.issue("users", command, 1)
        broker.on_published = confirm
        await client.wait_connected(WITHIN_S)


@pytest.mark.parametrize("silent_at", ["AMQP", "Connection.StartOk", "Connection.Open"])
async def test_an_attempt_that_is_given_up_is_gone(
    broker: FakeBroker, settings: BrokerSettings, silent_at: str
) -> None:
    broker.plan("any", silent_at, fall_silent)
    broker.plan("", silent_at, fall_silent)
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:5672 did not answer within 0\.3 s"):
        await AmqpConnection.open(QUICK, "any")
    assert (broker.made, broker.closed) == (1, 1)
    broker.plan("", silent_at, fall_silent)
    attempt = asyncio.create_task(AmqpConnection.open(QUICK, "any"))
    await until(lambda: broker.made == 2, "it is connecting")
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    assert (broker.made, broker.closed) == (2, 2)


async def test_a_client_that_finds_no_broker_gives_up_with_the_address_and_the_last_reason(
    broker: FakeBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in ("AMQP",):
        broker.plan("", step, ENDS["a reset"], times=1000)
    settings = BrokerSettings(url="amqp://guest:secret@127.0.0.1:1234/x", reconnect_delay_s=0.001)
    client = RabbitWrites(settings, confirm_timeout_s=5, wait_s=5, in_flight_max=10, log=None)
    await client.start()
    with (
        capture_logs() as lines,
        pytest.raises(BrokerUnavailable, match=r"not connected within 1 s: .*127\.0\.0\.1:1234.*"),
    ):
        await client.wait_connected(1.0)
    await client.close()
    assert broker.made > 4
    assert len(lines) <= 2, "a line for each connection"
    assert "secret" not in repr(lines)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("code", "text"), [(403, "ACCESS_REFUSED - Login was refused"), (530, "NOT_ALLOWED - vhost x")]
)
async def test_a_client_whose_login_is_refused_is_told_at_once(broker: FakeBroker, code: int, text: str) -> None:
    step = "Connection.StartOk" if code == 403 else "Connection.Open"
    broker.plan("", step, lambda stream, _, __: stream.send(close_connection(code, text)), times=1000)
    with pytest.raises(ConfigurationError, match=f"AMQP_URL: .*'guest'.*{text}"):
        async with writes(PATIENT):
            pass
    assert broker.made <= 2


async def test_a_limit_of_connections_is_an_outage(broker: FakeBroker, settings: BrokerSettings) -> None:
    text = "NOT_ALLOWED - access to vhost '/' refused for user 'guest': connection limit (2) is reached"
    broker.plan("", "Connection.Open", lambda stream, _, __: stream.send(close_connection(530, text)), times=3)
    async with writes(settings) as client:
        assert client.connected


def an_outcome(publisher: Publisher, routing_key: str = "mine", body: bytes = b"{}") -> bool:
    return publisher.send(routing_key, pika.BasicProperties(), body)


async def test_outcomes_that_the_broker_does_not_read_are_refused_and_do_not_pile_up(
    broker: FakeBroker, settings: BrokerSettings
) -> None:
    async with publishing(settings) as publisher:
        [stream] = broker.of("publish")
        stream.is_stuck = True
        body = b"x" * (1 << 20)
        sent = [an_outcome(publisher, body=body) for _ in range(40)]
        assert sent == sorted(sent, reverse=True)
        assert 16 <= sum(sent) < 20
        assert stream.unsent_bytes <= UNSENT_BYTES_MAX + 2 * len(body)
        stream.is_stuck, stream.unsent_bytes = False, 0
        assert an_outcome(publisher)
        await until(lambda: broker.published[-1].routing_key == "mine", "it is sent")


async def test_under_an_alarm_outcomes_are_refused(broker: FakeBroker, settings: BrokerSettings) -> None:
    async with publishing(settings) as publisher:
        [stream] = broker.of("publish")
        stream.send((0, spec.Connection.Blocked("low on memory")))
        await until(lambda: publisher.is_blocked, "blocked")
        assert not an_outcome(publisher)
        stream.send((0, spec.Connection.Unblocked()))
        await until(lambda: not publisher.is_blocked, "free again")
        assert an_outcome(publisher)


async def test_outcomes_go_to_direct_reply_addresses_that_the_broker_makes_and_to_no_others(
    broker: FakeBroker, settings: BrokerSettings
) -> None:
    publisher = Publisher(settings, "outcomes", answers=True)
    publisher.start()
    await publisher.wait_ready()
    assert an_outcome(publisher, OWN_ADDRESS)
    assert not an_outcome(publisher, f"{OWN_ADDRESS}x")
    assert not an_outcome(publisher, "amq.rabbitmq.reply-to.a.b")
    assert an_outcome(publisher, "mine")
    await until(lambda: len(broker.published) == 2, "two are sent")
    await publisher.close()
    assert [message.routing_key for message in broker.published] == [OWN_ADDRESS, "mine"]
    async with publishing(settings) as other:
        assert not an_outcome(other, OWN_ADDRESS)
