"""A lane's mark is sent until the broker has it: an idle lane has no next one."""

import asyncio
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from coordinator.lane.high_water import SERIES_MAX, Mark, decode_mark, encode_mark
from coordinator.service.commands import INTEGER_MAX
from coordinator.service.errors import BrokerUnavailable
from coordinator.transports.rabbitmq import marks
from coordinator.transports.rabbitmq.amqp import AmqpConnection
from coordinator.transports.rabbitmq.marks import KeptMark, read_mark
from coordinator.transports.rabbitmq.publisher import Publisher
from tests.support.loss_contract import NO_MARKS

NO_CONNECTION = cast("AmqpConnection", None)


class Confirming:
    """A publisher whose broker answers when a test says so."""

    def __init__(self) -> None:
        self.sent: list[tuple[Mark, asyncio.Future[None]]] = []

    def publish(self, exchange: str, routing_key: str, properties: Any, body: bytes) -> "asyncio.Future[None]":
        del properties
        assert (exchange, routing_key) == ("", "writes.ledger.mark")
        confirm: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sent.append((decode_mark(body), confirm))
        return confirm

    @property
    def sequences(self) -> list[int]:
        return [mark.sequence for mark, _ in self.sent]

    async def answer(self, error: Exception | None = None) -> None:
        _, confirm = self.sent[-1]
        if error is None:
            confirm.set_result(None)
        else:
            confirm.set_exception(error)
        await asyncio.sleep(0)


@pytest.fixture
async def publisher(monkeypatch: pytest.MonkeyPatch) -> Confirming:
    monkeypatch.setattr(marks, "RETRY_S", 0.0)
    return Confirming()


@pytest.fixture
async def kept(publisher: Confirming) -> KeptMark:
    return KeptMark(cast("Publisher", publisher), "ledger")


async def turns() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_one_that_was_not_taken_is_sent_again(publisher: Confirming, kept: KeptMark) -> None:
    kept.keep(Mark(sequence=1))
    await publisher.answer(BrokerUnavailable("the broker is away"))
    await turns()
    assert publisher.sequences == [1, 1]
    await publisher.answer()
    await turns()
    assert publisher.sequences == [1, 1]


async def test_the_newest_follows_the_one_under_way(publisher: Confirming, kept: KeptMark) -> None:
    for sequence in (1, 2, 3):
        kept.keep(Mark(sequence=sequence))
    assert publisher.sequences == [1]
    await publisher.answer()
    await publisher.answer()
    assert publisher.sequences == [1, 3]


@pytest.mark.parametrize(("found", "sent"), [(None, [4, 4]), (3, [4, 4]), (4, [4]), (9, [4])])
async def test_after_the_channel_it_takes_no_newer_one_s_place(
    publisher: Confirming, kept: KeptMark, monkeypatch: pytest.MonkeyPatch, found: int | None, sent: list[int]
) -> None:
    async def read_mark(*_: object) -> Mark | None:
        return None if found is None else Mark(sequence=found)

    monkeypatch.setattr(marks, "read_mark", read_mark)
    kept.keep(Mark(sequence=4))
    kept.stop()
    await turns()
    assert publisher.sent[-1][1].cancelled()
    await kept.make_good(NO_CONNECTION)
    assert publisher.sequences == sent
    if len(sent) == 1:
        await kept.make_good(NO_CONNECTION)
    else:
        await publisher.answer()
        await kept.make_good(NO_CONNECTION)
    assert publisher.sequences == sent


class Declaring:
    """A connection whose mark queue is empty when a test says so."""

    def __init__(self) -> None:
        self.messages = 1
        self.declared: asyncio.Queue[None] = asyncio.Queue()

    async def channel(self) -> "Declaring":
        return self

    async def declare_mark(self, lane: str) -> int:
        assert lane == "ledger"
        self.declared.put_nowait(None)
        return self.messages

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("is_read", [False, True])
async def test_one_that_is_gone_is_kept_again(
    publisher: Confirming, kept: KeptMark, monkeypatch: pytest.MonkeyPatch, is_read: bool
) -> None:
    """Somebody has deleted its queue, or purged it, and the lane is idle."""
    monkeypatch.setattr(marks, "LOOK_EVERY_S", 0.0)
    if is_read:
        kept.found(Mark(sequence=3))
    else:
        kept.keep(Mark(sequence=3))
        await publisher.answer()
    sent = len(publisher.sent)
    connection = Declaring()
    watching = asyncio.create_task(kept.watch(cast("AmqpConnection", connection)))
    async with asyncio.timeout(10):
        for _ in range(3):
            await connection.declared.get()
        assert len(publisher.sent) == sent
        connection.messages = 0
        for _ in range(3):
            await connection.declared.get()
    assert publisher.sequences[sent:] == [3]
    watching.cancel()


@pytest.mark.parametrize("body", NO_MARKS)
async def test_a_message_that_is_no_mark_is_ignored_and_named(body: bytes) -> None:
    class Peeked:
        async def channel(self) -> "Peeked":
            return self

        async def peek(self, queue: str) -> list[bytes]:
            assert queue == "writes.ledger.mark"
            return [body]

        async def close(self) -> None:
            pass

    with capture_logs() as lines:
        assert await read_mark(cast("AmqpConnection", Peeked()), "ledger") is None
    assert [(line["event"], line["lane"]) for line in lines] == [("mark_unreadable", "ledger")]


def test_the_largest_mark_can_be_read() -> None:
    series = {f"{number:a>64}": INTEGER_MAX for number in range(SERIES_MAX)}
    mark = Mark(sequence=INTEGER_MAX, epoch=INTEGER_MAX, series=series, is_partial=True)
    assert decode_mark(encode_mark(mark)) == mark
