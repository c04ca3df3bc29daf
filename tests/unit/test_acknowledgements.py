"""When settled deliveries are acknowledged, and how many at once."""

import asyncio
import time
from typing import Any

import pika
import pytest

from coordinator.runtime.broker_accounts import broker_accounts
from coordinator.transports.rabbitmq.acknowledgements import WAITING_MAX, Acknowledgements
from coordinator.transports.rabbitmq.queue_watch import sent_at_s

WITHIN_S = 10.0


class RecordingChannel:
    """Notes what is acknowledged."""

    def __init__(self) -> None:
        self.is_open = True
        self.acknowledged: list[tuple[int, bool]] = []
        self.has_acknowledged = asyncio.Event()

    def basic_ack(self, tag: int, *, multiple: bool) -> None:
        self.acknowledged.append((tag, multiple))
        self.has_acknowledged.set()


@pytest.fixture
async def channel() -> RecordingChannel:
    return RecordingChannel()


def acknowledgements(channel: Any, prefetch: int, delivered: int) -> Acknowledgements:
    made = Acknowledgements(channel, prefetch)
    for tag in range(1, delivered + 1):
        made.delivered(tag, float(tag))
    return made


async def test_what_is_settled_within_a_moment_is_acknowledged_at_once(channel: RecordingChannel) -> None:
    made = acknowledgements(channel, 1000, 5)
    made.acknowledge([1])
    made.acknowledge([2, 3])
    assert not channel.acknowledged
    async with asyncio.timeout(WITHIN_S):
        await channel.has_acknowledged.wait()
    assert channel.acknowledged == [(3, True)]
    # And the next ones likewise.
    channel.has_acknowledged.clear()
    made.acknowledge([5])
    async with asyncio.timeout(WITHIN_S):
        await channel.has_acknowledged.wait()
    assert channel.acknowledged == [(3, True), (5, False)]


@pytest.mark.parametrize(("prefetch", "waiting_max"), [(1, 1), (7, 1), (40, 10), (1000, WAITING_MAX)])
async def test_the_prefetch_never_runs_out_for_waiting(
    channel: RecordingChannel, prefetch: int, waiting_max: int
) -> None:
    made = acknowledgements(channel, prefetch, waiting_max)
    for tag in range(1, waiting_max):
        made.acknowledge([tag])
    assert not channel.acknowledged
    made.acknowledge([waiting_max])
    assert channel.acknowledged == [(waiting_max, True)]


async def test_what_waits_can_be_flushed_and_is_acknowledged_once(channel: RecordingChannel) -> None:
    made = acknowledgements(channel, 1000, 2)
    made.acknowledge([1, 2])
    made.flush()
    made.flush()
    assert channel.acknowledged == [(2, True)]


async def test_nothing_is_sent_on_a_closed_channel(channel: RecordingChannel) -> None:
    made = acknowledgements(channel, 1000, 1)
    made.acknowledge([1])
    channel.is_open = False
    made.flush()
    assert not channel.acknowledged


async def test_what_a_paused_lane_holds_is_counted_until_its_channel_is_gone(channel: RecordingChannel) -> None:
    made = acknowledgements(channel, 1000, 7)
    assert made.unacknowledged == 7
    made.acknowledge([1, 2, 5])
    made.flush()
    assert made.unacknowledged == 4
    channel.is_open = False
    assert made.unacknowledged == 0


async def test_the_oldest_is_the_first_that_is_not_acknowledged(channel: RecordingChannel) -> None:
    made = acknowledgements(channel, 1000, 4)  # each was sent in the second of its tag
    assert made.oldest_age_s(11.0) == 10
    made.acknowledge([2, 3])
    made.flush()
    assert made.oldest_age_s(11.0) == 10
    made.acknowledge([1])
    made.flush()
    assert made.oldest_age_s(11.0) == 7
    # A clock that is behind the publisher's.
    assert made.oldest_age_s(3.0) == 0
    made.acknowledge([4])
    made.flush()
    assert made.oldest_age_s(11.0) == 0
    made.delivered(5, 9.0)
    assert made.oldest_age_s(11.0) == 2
    channel.is_open = False
    # Its deliveries are the broker's again.
    assert made.oldest_age_s(11.0) == 0


async def test_an_older_one_behind_a_newer_one_is_the_oldest(channel: RecordingChannel) -> None:
    """The newer one's publisher says nothing that is believed, or his clock is ahead."""
    made = acknowledgements(channel, 1000, 0)
    for tag, at_s in ((1, 9.0), (2, 4.0), (3, 4.0), (4, 6.0)):
        made.delivered(tag, at_s)
    assert made.oldest_age_s(10.0) == 6
    made.acknowledge([2, 3])
    made.flush()
    # The first one came before them.
    assert made.oldest_age_s(10.0) == 6
    made.acknowledge([1])
    made.flush()
    assert made.oldest_age_s(10.0) == 4
    made.acknowledge([4])
    made.flush()
    assert made.oldest_age_s(10.0) == 0


@pytest.mark.parametrize(
    ("exchange", "user", "gateways", "is_believed"),
    [
        ("writes", "users_gateway", "users_gateway", True),
        ("writes.system", None, "users_gateway", True),
        ("writes", "public", "users_gateway", False),
        ("writes", None, "users_gateway", False),
        ("writes", None, "", True),
    ],
)
def test_a_stranger_is_not_believed_when_he_has_sent(
    exchange: str, user: str | None, gateways: str, *, is_believed: bool
) -> None:
    """An alarm rings for what is old."""
    method = pika.spec.Basic.Deliver(exchange=exchange)
    sent = sent_at_s(method, pika.BasicProperties(timestamp=1, user_id=user), broker_accounts(gateways, ""))
    assert (sent == 1) == is_believed
    assert sent == 1 or abs(time.time() - sent) < WITHIN_S
    ahead = sent_at_s(method, pika.BasicProperties(timestamp=1 << 60, user_id=user), broker_accounts(gateways, ""))
    assert ahead <= time.time()
