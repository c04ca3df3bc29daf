"""A lane's mark is sent until the broker has it: an idle lane has no next one."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from coordinator.lane.high_water import SERIES_MAX, Mark, decode_mark, encode_mark
from coordinator.service.commands import INTEGER_MAX
from coordinator.service.errors import BrokerUnavailable
from coordinator.transports.rabbitmq import marks
from coordinator.transports.rabbitmq.amqp import AmqpConnection
from coordinator.transports.rabbitmq.marks import KeptMark, MarkHeld, read_mark
from coordinator.transports.rabbitmq.publisher import Publisher
from tests.support.loss_contract import NO_MARKS


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


class Connection:
    """A consumer's, on which the broker answers unless a test holds that up; it has the queue of the mark."""

    def __init__(self) -> None:
        self.queue: list[Mark] = []
        self.declared: asyncio.Queue[None] = asyncio.Queue()
        self.answers = asyncio.Event()
        self.answers.set()
        self.raw = SimpleNamespace(queue_declare=None)
        self.holders = 0
        """So many others are reading."""
        self.looked = asyncio.Event()

    async def channel(self) -> "Connection":
        await self.answers.wait()
        return self

    async def declare_mark(self, lane: str) -> int:
        assert lane == "ledger"
        self.declared.put_nowait(None)
        return len(self.queue)

    async def peek(self, queue: str) -> list[bytes]:
        assert queue == "writes.ledger.mark"
        return [] if self.holders else [encode_mark(mark) for mark in self.queue]

    async def call(self, _method: Any, *, queue: str, passive: bool) -> Any:
        assert (queue, passive) == ("writes.ledger.mark", True)
        ready = 0 if self.holders else len(self.queue)
        self.looked.set()
        return SimpleNamespace(method=SimpleNamespace(message_count=ready, consumer_count=self.holders))

    async def close(self) -> None:
        pass


@pytest.fixture
async def publisher(monkeypatch: pytest.MonkeyPatch) -> Confirming:
    monkeypatch.setattr(marks, "RETRY_S", 0.0)
    return Confirming()


@pytest.fixture
async def connection() -> Connection:
    return Connection()


@pytest.fixture
async def kept(publisher: Confirming, connection: Connection) -> KeptMark:
    kept = KeptMark(cast("Publisher", publisher), "ledger")
    await kept.make_good(cast("AmqpConnection", connection))
    return kept


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_that_was_not_taken_is_sent_again(publisher: Confirming, kept: KeptMark) -> None:
    kept.keep(Mark(sequence=1))
    await turns()
    await publisher.answer(BrokerUnavailable("the broker is away"))
    await turns()
    assert publisher.sequences == [1, 1]
    await publisher.answer()
    await turns()
    assert publisher.sequences == [1, 1]


async def test_the_newest_follows_the_one_under_way(publisher: Confirming, kept: KeptMark) -> None:
    for sequence in (1, 2, 3):
        kept.keep(Mark(sequence=sequence))
    await turns()
    assert publisher.sequences == [1]
    await publisher.answer()
    await turns()
    assert publisher.sequences == [1, 3]
    await publisher.answer()
    await turns()
    assert publisher.sequences == [1, 3]


async def test_who_stops_waits_for_the_newest(publisher: Confirming, kept: KeptMark) -> None:
    for sequence in (1, 2):
        kept.keep(Mark(sequence=sequence))
    waiting = asyncio.create_task(kept.sent(10.0))
    for _ in range(2):
        await turns()
        assert not waiting.done()
        await publisher.answer()
    await waiting
    assert publisher.sequences == [1, 2]
    kept.keep(Mark(sequence=3))
    await kept.sent(0.0)


async def test_who_hands_the_lane_over_waits_until_the_newest_is_kept(
    publisher: Confirming, connection: Connection, kept: KeptMark
) -> None:
    """However long that takes: whoever is next must not know less."""
    await kept.kept()
    for sequence in (1, 2):
        kept.keep(Mark(sequence=sequence))
    waiting = asyncio.create_task(kept.kept())
    await turns()
    await publisher.answer(BrokerUnavailable("the broker is away"))
    for _ in range(2):
        await turns()
        assert not waiting.done()
        # Another connection, of which nobody knows yet whether it takes what the one before did not.
        kept.stop()
        await kept.make_good(cast("AmqpConnection", connection))
        await turns()
    await publisher.answer()
    await waiting
    assert publisher.sequences[-1] == 2


async def test_who_may_not_have_the_lane_sends_none(
    publisher: Confirming, connection: Connection, kept: KeptMark
) -> None:
    """The broker has taken its connection from it, and it learns of that late: its successor knows more by now."""
    connection.answers.clear()
    kept.keep(Mark(sequence=1))
    await turns()
    assert not publisher.sent
    kept.stop()
    connection.answers.set()
    kept.keep(Mark(sequence=2))
    await turns()
    assert not publisher.sent
    connection.queue.append(Mark(sequence=9))
    await kept.make_good(cast("AmqpConnection", connection))
    await turns()
    assert not publisher.sent


@pytest.mark.parametrize(
    ("found", "sent"),
    [
        (None, [4, 4]),
        (Mark(sequence=3), [4, 4]),
        (Mark(sequence=4), [4]),
        (Mark(sequence=9), [4]),
        (Mark(sequence=3, lineage="other"), [4]),
    ],
)
async def test_after_the_channel_it_takes_no_newer_one_s_place(
    publisher: Confirming, connection: Connection, kept: KeptMark, found: Mark | None, sent: list[int]
) -> None:
    connection.queue += [] if found is None else [found]
    kept.keep(Mark(sequence=4, lineage="own"))
    await turns()
    kept.stop()
    await turns()
    assert publisher.sent[-1][1].cancelled()
    for _ in range(2):
        await kept.make_good(cast("AmqpConnection", connection))
        await turns()
        assert publisher.sequences == sent
        if not publisher.sent[-1][1].done():
            await publisher.answer()
            await turns()


@pytest.mark.parametrize("is_read", [False, True])
@pytest.mark.parametrize(
    "instead",
    [[], [Mark(sequence=2)], [Mark(sequence=9, lineage="other")]],
    ids=["nothing", "an older one", "one of another database"],
)
async def test_one_that_is_gone_is_kept_again(
    publisher: Confirming,
    connection: Connection,
    kept: KeptMark,
    monkeypatch: pytest.MonkeyPatch,
    instead: list[Mark],
    is_read: bool,
) -> None:
    """Somebody has deleted its queue, or purged it, or put an older one there, and the lane is idle."""
    monkeypatch.setattr(marks, "LOOK_EVERY_S", 0.0)
    own = Mark(sequence=3, lineage="own")
    connection.queue = [own]
    if is_read:
        kept.found(own)
    else:
        kept.keep(own)
        await turns()
        await publisher.answer()
        await turns()
    sent = len(publisher.sent)
    watching = asyncio.create_task(kept.watch(cast("AmqpConnection", connection)))
    for queue, expected in (([own], []), (instead, [3])):
        connection.queue = queue
        async with asyncio.timeout(10):
            for _ in range(4):
                await connection.declared.get()
        assert publisher.sequences[sent:] == expected
    watching.cancel()


async def test_one_that_somebody_else_is_reading_is_waited_for(connection: Connection) -> None:
    connection.queue, connection.holders = [Mark(sequence=7)], 1
    reading = asyncio.create_task(read_mark(cast("AmqpConnection", connection), "ledger"))
    await connection.looked.wait()
    connection.holders = 0
    assert await reading == Mark(sequence=7)


async def test_where_he_keeps_it_nobody_says_that_there_is_none(
    connection: Connection, kept: KeptMark, publisher: Confirming, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(marks, "HELD_S", 0.0)
    monkeypatch.setattr(marks, "LOOK_EVERY_S", 0.0)
    connection.queue, connection.holders = [Mark(sequence=7)], 1
    with pytest.raises(MarkHeld, match="somebody else is reading the mark of ledger"):
        await read_mark(cast("AmqpConnection", connection), "ledger")
    # Who has kept it need not do so again, and keeps his lane.
    kept.found(Mark(sequence=7))
    with capture_logs() as lines:
        watching = asyncio.create_task(kept.watch(cast("AmqpConnection", connection)))
        for _ in range(4):
            await connection.declared.get()
        watching.cancel()
    assert (publisher.sent, lines) == ([], [])


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
