"""A queue that refuses is believed to be full once another channel has heard the same; a loss refuses nothing."""

import asyncio
from typing import Any

import pika
import pytest
from pika import spec
from pika.frame import Header

from coordinator.runtime.settings import BrokerSettings
from coordinator.service.errors import BrokerUnavailable, Overloaded
from coordinator.transports.rabbitmq.doubts import DOUBT_AGAIN_S, DOUBTED_S, Doubts
from coordinator.transports.rabbitmq.properties import outcome_properties
from coordinator.transports.rabbitmq.publisher import Publisher
from tests.support.fake_broker import Published, Stream, confirm, fake_broker

SETTINGS = BrokerSettings(reconnect_delay_s=0.005, reconnect_delay_s_max=0.01)


def refuse(stream: Stream, channel: int, tag: int | None, _: Published) -> None:
    if tag is not None:
        stream.send((channel, spec.Basic.Nack(tag)))


def come_back(stream: Stream, channel: int, tag: int | None, message: Published) -> None:
    if tag is not None:
        headers = pika.BasicProperties(headers=message.headers)
        returned = spec.Basic.Return(312, "NO_ROUTE", message.exchange, message.routing_key)
        stream.send((channel, returned), Header(channel, 0, headers).marshal(), (channel, spec.Basic.Ack(tag)))


def test_what_a_channel_has_not_reached_is_doubted_after_a_loss_and_now_and_then() -> None:
    now = [0.0]
    doubts = Doubts(lambda: now[0])
    doubts.begin()
    assert not doubts.refused("seats"), "nothing was lost"
    doubts.lost()
    doubts.begin()
    doubts.taken("orders")
    assert (doubts.refused("seats"), doubts.refused("orders")) == (True, False)
    now[0] = DOUBTED_S
    doubts.lost()
    doubts.begin()
    assert not doubts.refused("seats"), "that loss was ours, and gives no more time"
    now[0] += DOUBT_AGAIN_S
    assert doubts.refused("seats")


async def test_a_message_that_a_stuck_channel_refuses_goes_through_on_the_next() -> None:
    with fake_broker() as broker:
        publisher = Publisher(SETTINGS, "publish")
        publisher.start()
        await publisher.wait_ready()
        properties: Any = outcome_properties(None, is_pack=False)
        broker.on_published = refuse
        with pytest.raises(Overloaded):
            await publisher.publish("writes", "seats", properties, b"1")

        def on_published(stream: Stream, channel: int, tag: int | None, message: Published) -> None:
            (refuse if broker.made == 2 else confirm)(stream, channel, tag, message)

        broker.on_published = on_published
        broker.streams[0].lose(None)
        await publisher.publish("writes", "seats", properties, b"2")
        assert broker.made == 3
        await publisher.close()


async def test_what_came_back_as_unroutable_was_not_taken() -> None:
    with fake_broker() as broker:
        publisher = Publisher(SETTINGS, "publish")
        publisher.start()
        await publisher.wait_ready()
        properties: Any = outcome_properties(None, is_pack=False)
        broker.on_published = come_back
        broker.streams[0].lose(None)
        with pytest.raises(BrokerUnavailable, match="no queue"):
            await publisher.publish("writes", "seats", properties, b"1")
        assert broker.made == 2

        def on_published(stream: Stream, channel: int, tag: int | None, message: Published) -> None:
            (refuse if broker.made == 2 else confirm)(stream, channel, tag, message)

        broker.on_published = on_published
        await publisher.publish("writes", "seats", properties, b"2")
        assert broker.made == 3
        await publisher.close()


async def test_no_moment_of_a_loss_refuses_a_message() -> None:
    with fake_broker() as broker:
        publisher = Publisher(SETTINGS, "publish")
        publisher.start()
        await publisher.wait_ready()
        properties: Any = outcome_properties(None, is_pack=False)
        broker.on_published = confirm
        given: list[asyncio.Future[None]] = []
        # As a node says that is being stopped.
        broker.streams[0].send((0, spec.Connection.Close(320, "CONNECTION_FORCED", 0, 0)))
        while broker.made == 1:
            assert publisher.takes_messages
            given.append(publisher.publish("writes", "seats", properties, str(len(given)).encode()))
            await asyncio.sleep(0)
        await asyncio.gather(*given)
        bodies = list(dict.fromkeys(message.body for message in broker.published if message.routing_key == "seats"))
        assert bodies == [str(number).encode() for number in range(len(given))]
        await publisher.close()


async def test_a_doubt_is_no_outage_and_a_loss_is_one() -> None:
    connected, healthy = 1, dict[int, set[bool]]()

    def on_published(stream: Stream, channel: int, tag: int | None, message: Published) -> None:
        (refuse if broker.made == 2 else confirm)(stream, channel, tag, message)

    def look() -> bool:
        nonlocal connected
        if publisher.is_ready:
            connected = broker.made
        else:
            healthy.setdefault(connected, set()).add(publisher.is_healthy)
        return connected == 3

    with fake_broker() as broker:
        publisher = Publisher(SETTINGS, "publish")
        publisher.start()
        await publisher.wait_ready()
        broker.on_published = on_published
        broker.streams[0].lose(None)
        publishing = publisher.publish("writes", "seats", outcome_properties(None, is_pack=False), b"1")
        while not look():  # noqa: ASYNC110  # each turn of the loop is looked at
            await asyncio.sleep(0)
        await publishing
        assert healthy == {1: {False}, 2: {True}}
        await publisher.close()
