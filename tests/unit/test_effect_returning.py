"""Effects that were put back: held until they are due, brought to the workers again, and only then acknowledged."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import msgspec
import pika
import pytest

from coordinator.lane.control import DeadEffect
from coordinator.protocol.attempted import HEADER_CALLS, HEADER_DOUBT, Attempted
from coordinator.protocol.wire import JSON_CONTENT, CommandMessage
from coordinator.service.errors import InvalidCommand
from coordinator.transports.rabbitmq.effects.bringing import Bringing
from coordinator.transports.rabbitmq.effects.retry_queues import (
    DELAYS_S,
    HEADER_PUT_BACK_AT,
    declare_retry_queues,
    retry_key,
    wait_s,
)
from coordinator.transports.rabbitmq.effects.returning import Returning
from coordinator.transports.rabbitmq.topology import SYSTEM_EXCHANGE, WRITES_EXCHANGE
from tests.support.courier import TakeAway
from tests.support.effect_fakes import FakeChannel, FakePublisher

EFFECT_ID = "0b0e7b6e-6d4e-4a57-9a5e-3f5d9f3c9b11"
BODY = b'{"id": 7}'
PUT_BACK_S = 1_700_000_000.0
KNOWN = Attempted(asked_at_s=1.5, first_at_s=2.5, calls=3, not_before_s=PUT_BACK_S + 15, reason="busy")
EFFECTS = "effects.courier"
WITHIN_S = 10.0


class Refusing(FakePublisher):
    """Refuses effects as what makes no message."""

    async def publish(self, exchange: str, routing_key: str, properties: pika.BasicProperties, body: bytes) -> None:
        if routing_key == EFFECTS:
            raise InvalidCommand("too large", code="message_refused")
        await super().publish(exchange, routing_key, properties, body)


class Held:
    """What a worker holds of the queue `10s`, on a clock that stands and with pauses that end when they may."""

    def __init__(self, now_s: float = PUT_BACK_S, publisher: FakePublisher | None = None) -> None:
        self.now_s = now_s
        self.publisher = publisher or FakePublisher()
        self.channel = FakeChannel()
        self.pauses_s: list[float] = []
        self.is_due = asyncio.Event()
        self.defects: list[BaseException] = []
        fake: Any = self.publisher
        bringing = Bringing("courier", fake, 0.001)
        self.returning = Returning("courier", bringing, self.defects.append, lambda: self.now_s, self._pause)

    async def _pause(self, delay_s: float) -> None:
        self.pauses_s.append(delay_s)
        await self.is_due.wait()

    def deliver(self, tag: int, exchange: str = SYSTEM_EXCHANGE, body: bytes = BODY, **how: Any) -> None:
        headers = KNOWN.headers() | {HEADER_PUT_BACK_AT: int(PUT_BACK_S * 1000), "publish-number": 9}
        properties = pika.BasicProperties(
            message_id=EFFECT_ID, type=TakeAway.type, content_type=JSON_CONTENT, headers=headers
        )
        method = SimpleNamespace(delivery_tag=tag, redelivered=how.get("redelivered", False), exchange=exchange)
        channel: Any = how.get("channel", self.channel)
        self.returning.take(channel, DELAYS_S["10s"], method, properties, body)

    async def begun(self) -> None:
        """Return when every delivery has come as far as it can."""
        for _ in range(5):
            await asyncio.sleep(0)

    async def ended(self) -> None:
        async with asyncio.timeout(WITHIN_S):
            while self.returning._held:
                await asyncio.gather(*self.returning._held, return_exceptions=True)

    @property
    def dead(self) -> list[DeadEffect]:
        return [
            msgspec.json.decode(each.body, type=DeadEffect)
            for each in self.publisher.published
            if each.type == DeadEffect.type
        ]


@pytest.mark.parametrize(
    ("put_back_at", "expected_s"),
    [
        (PUT_BACK_S * 1000, 10.0),
        ((PUT_BACK_S - 4) * 1000, 6.0),
        ((PUT_BACK_S - 10) * 1000, 0.0),
        ((PUT_BACK_S - 86_400) * 1000, 0.0),
        ((PUT_BACK_S + 86_400) * 1000, 10.0),
        (-(10**400), 0.0),
        (10**400, 10.0),
        (None, 10.0),
        ("yesterday", 10.0),
    ],
)
def test_it_is_due_when_its_wait_is_over_and_never_held_for_longer(put_back_at: Any, expected_s: float) -> None:
    value = int(put_back_at) if isinstance(put_back_at, float) else put_back_at
    assert wait_s({HEADER_PUT_BACK_AT: value}, 10.0, PUT_BACK_S) == expected_s


def test_what_is_held_for_longest_is_held_for_less_than_the_broker_allows() -> None:
    assert max(DELAYS_S.values()) <= 30 * 60 / 2


async def test_the_broker_is_not_asked_to_send_anything_by_itself() -> None:
    """What it took out of a queue would bear the exchange `writes.system`, whoever put it there."""
    declared: dict[str, Any] = {}

    async def call(method: Any, *, queue: str, arguments: Any = None, **_: Any) -> None:
        if method == "declare":
            declared[queue] = arguments

    channel: Any = SimpleNamespace(call=call, raw=SimpleNamespace(queue_declare="declare", queue_bind="bind"))
    await declare_retry_queues(channel, "courier", 1000)
    assert set(declared) == {retry_key("courier", length_s) for length_s in DELAYS_S.values()}
    for arguments in declared.values():
        assert (arguments["x-queue-type"], arguments["x-overflow"]) == ("quorum", "reject-publish")
        assert not [name for name in arguments if "dead-letter" in name or "ttl" in name]


async def test_it_is_held_until_it_is_due_and_acknowledged_once_the_workers_queue_has_it() -> None:
    held = Held()
    held.publisher.may_confirm.clear()
    held.deliver(1)
    await held.begun()
    assert (held.pauses_s, held.publisher.published) == ([10.0], [])
    held.is_due.set()
    async with asyncio.timeout(WITHIN_S):
        await held.publisher.has_published.wait()
    assert held.channel.acknowledged == []
    held.publisher.may_confirm.set()
    await held.ended()
    [again] = held.publisher.published
    assert (again.target, again.type, again.command_id, again.body) == (EFFECTS, TakeAway.type, EFFECT_ID, BODY)
    assert again.headers == KNOWN.headers()
    assert held.channel.acknowledged == [1]


async def test_one_that_is_delivered_again_is_due_when_it_was_and_in_no_doubt() -> None:
    """Who held it before made no call."""
    held = Held(now_s=PUT_BACK_S + 7)
    held.is_due.set()
    held.deliver(1, redelivered=True)
    await held.ended()
    [again] = held.publisher.published
    assert held.pauses_s == [3.0]
    assert (again.headers[HEADER_CALLS], again.headers[HEADER_DOUBT]) == (3, False)


@pytest.mark.parametrize("exchange", ["", WRITES_EXCHANGE])
async def test_what_did_not_come_from_the_system_is_buried_and_never_passed_on(exchange: str) -> None:
    held = Held()
    held.deliver(1, exchange)
    await held.ended()
    [dead] = held.dead
    assert (dead.code, dead.origin, dead.command_id) == ("not_from_system", "public", EFFECT_ID)
    assert [each.target for each in held.publisher.published] == ["courier"]
    assert (held.pauses_s, held.channel.acknowledged) == ([], [1])


async def test_what_is_no_effect_is_buried() -> None:
    held = Held()
    held.deliver(1, body=b'{"id": 7' + b" " * (2 << 20) + b"}")
    await held.ended()
    assert [each.code for each in held.dead] == ["message_too_large"]
    assert held.channel.acknowledged == [1]


async def test_what_makes_no_message_is_buried() -> None:
    held = Held(publisher=Refusing())
    held.is_due.set()
    held.deliver(1)
    await held.ended()
    assert [(each.code, each.command_id) for each in held.dead] == [("message_refused", EFFECT_ID)]
    assert held.channel.acknowledged == [1]


async def test_while_no_queue_takes_it_it_stays_and_is_tried_again(capsys: pytest.CaptureFixture[str]) -> None:
    held = Held()
    held.publisher.away.add(EFFECTS)
    held.is_due.set()
    for tag in (1, 2):
        held.deliver(tag)
    async with asyncio.timeout(WITHIN_S):
        for _ in range(6):
            await held.publisher.refused.acquire()
    assert (held.publisher.published, held.channel.acknowledged) == ([], [])
    held.publisher.away.clear()
    await held.ended()
    assert sorted(held.channel.acknowledged) == [1, 2]
    assert capsys.readouterr().out.count("effect_not_brought_again") == 1


@pytest.mark.parametrize("is_due", [True, False])
async def test_a_worker_that_stops_leaves_what_it_holds(*, is_due: bool) -> None:
    held = Held()
    held.publisher.may_confirm.clear()
    if is_due:
        held.is_due.set()
    held.deliver(1)
    await held.begun()
    await held.returning.close()
    held.deliver(2)
    await held.ended()
    assert (held.channel.acknowledged, held.defects) == ([], [])
    assert len(held.publisher.published) == is_due


async def test_what_a_lost_connection_brought_is_left_and_the_next_one_begins_anew() -> None:
    held, later = Held(), FakeChannel()
    held.deliver(1)
    await held.begun()
    held.returning.leave()
    await held.ended()
    held.is_due.set()
    held.deliver(1, channel=later, redelivered=True)
    await held.ended()
    assert (held.channel.acknowledged, later.acknowledged) == ([], [1])
    assert len(held.publisher.published) == 1


async def test_an_acknowledgement_that_cannot_be_sent_any_more_is_no_defect_and_anything_else_is() -> None:
    held = Held()
    held.is_due.set()
    for error in (pika.exceptions.ChannelWrongStateError("closed"), OSError("the socket is gone")):
        held.channel.error = error
        held.deliver(1)
        await held.ended()
    assert [str(error) for error in held.defects] == ["the socket is gone"]


async def test_what_is_put_back_says_when() -> None:
    publisher = FakePublisher()
    fake: Any = publisher
    trace = {"traceparent": f"00-{'1' * 32}-{'a' * 16}-01", "tracestate": "a=1"}
    message = CommandMessage(EFFECT_ID, TakeAway.type, BODY, traceparent=trace["traceparent"], tracestate="a=1")
    before_s = time.time()
    assert await Bringing("courier", fake, 0.001).put_back(message, KNOWN, 1_700_000_001, 15.0)
    [back] = publisher.published
    assert back.target == retry_key("courier", 15.0)
    assert before_s - 1 <= back.headers[HEADER_PUT_BACK_AT] / 1000 <= time.time()
    assert {name: back.headers[name] for name in KNOWN.headers()} == KNOWN.headers()
    assert {name: back.headers[name] for name in trace} == trace
