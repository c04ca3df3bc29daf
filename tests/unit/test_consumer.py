"""How settlements are carried out: in what order, and what becomes of them after an unforeseen error."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace
from typing import Any, cast

import pika
import pytest
from structlog.testing import capture_logs

from coordinator.lane.delivery import Reply, Settlement
from coordinator.protocol.outcomes import decode_outcomes
from coordinator.runtime.settings import BrokerSettings, LaneSettings
from coordinator.service.errors import BrokerUnavailable
from coordinator.service.outcome import Outcome, OutcomeError
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.transports import not_sent
from coordinator.transports.inbox import Inbox
from coordinator.transports.outcome_packs import REPLY_BYTES_MAX, bodies_of
from coordinator.transports.rabbitmq import acknowledgements, replies
from coordinator.transports.rabbitmq.acknowledgements import Acknowledgements
from coordinator.transports.rabbitmq.consumer import LaneConsumer
from tests.support.store_contract import NOW

WITHIN_S = 10.0
CHANNEL_NUMBER = 2
PREFETCH = 100
NAMED = LaneSettings(reply_queues="billing=billing.told")


class FakeBroker:
    """The publisher, the channel and the connection of a consumer. Notes in order what is done with them."""

    def __init__(self) -> None:
        self.did: list[tuple[str, object]] = []
        self.error: Exception | None = None
        """What publishing raises."""
        self.takes_outcomes = True
        self.is_ready, self.is_blocked = True, False
        self.is_back = asyncio.Event()
        self._happened = asyncio.Event()
        self.unconfirmed: list[asyncio.Future[None]] = []
        self.raw: Any = SimpleNamespace(is_open=True, basic_ack=self._acknowledge, queue_declare=None)

    def start(self) -> "asyncio.Task[Any]":
        self._publishing = asyncio.create_task(asyncio.Event().wait())
        return self._publishing

    async def wait_ready(self) -> None:
        await self.is_back.wait()

    async def close(self) -> None:
        self._publishing.cancel()

    def send(self, routing_key: str, properties: pika.BasicProperties, body: bytes) -> bool:
        self._note("outcome", routing_key)
        return self.takes_outcomes

    def publish(
        self, exchange: str, routing_key: str, properties: pika.BasicProperties, body: bytes
    ) -> "asyncio.Future[None]":
        self._note("emitted", properties.message_id)
        confirm: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.unconfirmed.append(confirm)
        return confirm

    def confirm(self) -> None:
        """Everything that was published."""
        for confirm in self.unconfirmed:
            if not confirm.cancelled():
                confirm.set_result(None)
        self.unconfirmed.clear()

    async def call(self, *_: object, **__: object) -> None:
        self._note("asked", None)

    def abort(self) -> None:
        self._note("aborted", None)

    async def until_done(self, *what: tuple[str, object]) -> None:
        """Return once this has been done, in this order, and nothing else. Fails at anything else."""
        async with asyncio.timeout(WITHIN_S):
            while self.did != list(what):
                assert self.did == list(what)[: len(self.did)]
                self._happened.clear()
                await self._happened.wait()

    def _acknowledge(self, tag: int, *, multiple: bool) -> None:
        self._note("acknowledged up to" if multiple else "acknowledged", tag)

    def _note(self, what: str, which: object) -> None:
        if self.error is not None and what in {"outcome", "emitted"}:
            raise self.error
        self.did.append((what, which))
        self._happened.set()


class Consumer(LaneConsumer):
    """Consumes on a fake broker, in the test's loop; as many deliveries as it may have are there."""

    def __init__(self, broker: Any, prefetch: int = PREFETCH) -> None:
        self.inbox = Inbox()
        super().__init__("ledger", BrokerSettings(), self.inbox, settings=NAMED, holder="test")
        self._loop.close()
        self._loop = asyncio.get_running_loop()
        self._publisher = self._outcomes = self._replies._publisher = self._connection = self._channel = broker
        self._channel_number = CHANNEL_NUMBER
        self._begin_emitting()
        self._acknowledgements = Acknowledgements(broker.raw, prefetch)
        for tag in range(1, prefetch + 1):
            self._acknowledgements.delivered(tag, 0.0)
        self.serving = asyncio.create_task(self._serve())

    async def _keep_consuming(self) -> None:
        await asyncio.Event().wait()

    def carry_out(self, settlement: Settlement, channel_number: int = CHANNEL_NUMBER) -> None:
        """As the lane's thread has it done."""
        self._carry_out(channel_number, settlement)

    def lose_channel(self) -> None:
        self._end_emitting()

    def begin_to_stop(self) -> None:
        self._stop.set()

    async def until_ended(self) -> None:
        async with asyncio.timeout(WITHIN_S):
            await self.serving


@pytest.fixture
async def broker(monkeypatch: pytest.MonkeyPatch) -> FakeBroker:
    # What may wait to be acknowledged with others does so for longer than any test.
    monkeypatch.setattr(acknowledgements, "WITHIN_S", 10 * WITHIN_S)
    return FakeBroker()


@asynccontextmanager
async def consuming(broker: FakeBroker, prefetch: int = PREFETCH) -> AsyncIterator[Consumer]:
    consumer = Consumer(broker, prefetch)
    yield consumer
    broker.confirm()
    consumer.begin_to_stop()
    await consumer.until_ended()


def settlement(*tags: int, emitted: Sequence[str] = ()) -> Settlement:
    """The outcome of delivery 7 goes to `replies.7`."""
    outcome = Outcome(command_id="c", type="t", status="applied", sequence=1)
    entries = enumerate(emitted, 1)
    return Settlement(
        tags=list(tags),
        outcomes=[outcome for _ in tags],
        replies=[Reply(f"replies.{tag}", None, packed=False, outcomes=[outcome]) for tag in tags],
        emitted=[
            OutboxEntry(id=number, lane="ledger", command_id=command_id, type="t", arguments=b"{}", created_at=NOW)
            for number, command_id in entries
        ],
    )


async def test_an_outcome_is_sent_and_what_is_emitted_published_before_the_delivery_is_acknowledged(
    broker: FakeBroker,
) -> None:
    async with consuming(broker, prefetch=1) as consumer:
        consumer.carry_out(settlement(1, emitted=["e"]))
        assert broker.did == [("outcome", "replies.1"), ("emitted", "e"), ("acknowledged up to", 1)]


async def test_of_an_old_channel_outcomes_are_sent_and_nothing_is_acknowledged(broker: FakeBroker) -> None:
    async with consuming(broker, prefetch=1) as consumer:
        consumer.carry_out(settlement(1), CHANNEL_NUMBER - 1)
        assert broker.did == [("outcome", "replies.1")]


async def test_what_an_old_channel_has_emitted_is_asked_for_on_the_one_that_is_there_already(
    broker: FakeBroker,
) -> None:
    """What a timer has emitted comes with no delivery again."""
    async with consuming(broker) as consumer:
        consumer.carry_out(settlement(emitted=["e"]), CHANNEL_NUMBER - 1)
        ((what, marker),) = broker.did
        assert (what, marker == "e") == ("emitted", False)


async def test_what_a_lane_without_a_channel_emits_is_published_whatever_becomes_of_the_channel(
    broker: FakeBroker,
) -> None:
    async with consuming(broker) as consumer:
        first, second = settlement(emitted=["a", "b"]).emitted
        consumer.publish_emitted([first])
        await asyncio.sleep(0)
        consumer.lose_channel()
        consumer.publish_emitted([second])
        await asyncio.sleep(0)
        broker.confirm()
        await broker.until_done(("emitted", "a"), ("emitted", "b"))
        # Of channel 0, as a bridge has it.
        consumer.carry_out(Settlement(withdrawn=[second.id]), 0)
        assert [confirm.cancelled() for confirm in broker.unconfirmed] == [True]


async def test_outcomes_that_cannot_be_sent_are_counted_and_logged_once_a_minute(
    broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(not_sent, "monotonic", lambda: now[0])
    before = not_sent.NOT_SENT.labels("ledger")._value.get()
    async with consuming(broker) as consumer:
        with capture_logs() as logs:
            broker.takes_outcomes = False
            for tag in range(1, 11):
                consumer.carry_out(settlement(tag))
            broker.takes_outcomes = True
            consumer.carry_out(settlement(11))
            broker.takes_outcomes = False
            now[0] += not_sent.WARNED_EVERY_S
            consumer.carry_out(settlement(12))
    told = [(line["reply_to"], line["times"]) for line in logs if line["event"] == "outcome_not_sent"]
    assert told == [("replies.1", 1), ("replies.12", 10)]
    assert not_sent.NOT_SENT.labels("ledger")._value.get() - before == 11


async def test_outcomes_wait_for_the_next_connection_in_their_order(
    broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = not_sent.NOT_SENT.labels("ledger")._value.get()
    async with consuming(broker) as consumer:
        broker.is_ready = False
        for tag in (1, 2):
            consumer.carry_out(settlement(tag))
        monkeypatch.setattr(replies, "KEPT_BYTES_MAX", consumer._replies._kept_bytes)
        consumer.carry_out(settlement(3))
        assert not_sent.NOT_SENT.labels("ledger")._value.get() - before == 1, "there was no room for it"
        assert broker.did == []
        broker.is_ready = True
        broker.is_back.set()
        await broker.until_done(("outcome", "replies.1"), ("outcome", "replies.2"))
        assert consumer._replies._kept_bytes == 0


async def test_under_an_alarm_outcomes_are_counted_and_none_is_kept(broker: FakeBroker) -> None:
    before = not_sent.NOT_SENT.labels("ledger")._value.get()
    async with consuming(broker) as consumer:
        broker.is_ready, broker.is_blocked, broker.takes_outcomes = False, True, False
        consumer.carry_out(settlement(1))
        assert not_sent.NOT_SENT.labels("ledger")._value.get() - before == 1


async def test_outcomes_go_only_to_queues_that_nobody_else_can_name(broker: FakeBroker) -> None:
    """The lane's rights reach every queue of the vhost, and a sender chooses the name."""
    refused = ("writes.users", "effects.payments", "amq.rabbitmq.trace", "amq.rabbitmq.reply-to", "orders", "", "other")
    taken = ["replies.gateway.users.1", "amq.gen-JzTY20BRgKO-HjmUJj0wLg", "amq.rabbitmq.reply-to.a.b", "billing.told"]
    async with consuming(broker) as consumer:
        with capture_logs() as logs:
            for reply_to in (*refused, *taken):
                outcome = Outcome(command_id="c", type="t", status="applied", sequence=1)
                consumer._replies.send([Reply(reply_to, None, packed=False, outcomes=[outcome])])
    assert broker.did[: len(taken)] == [("outcome", reply_to) for reply_to in taken]
    assert [line["times"] for line in logs if line["event"] == "outcome_not_sent"] == [1]


async def test_a_stop_acknowledges_what_was_settled_before_the_connection_is_dropped(broker: FakeBroker) -> None:
    consumer = Consumer(broker)
    consumer.carry_out(settlement(1))
    consumer.carry_out(settlement(2))
    consumer.begin_to_stop()
    await consumer.until_ended()
    assert broker.did == [
        ("outcome", "replies.1"),
        ("outcome", "replies.2"),
        ("acknowledged up to", 2),
        ("asked", None),
        ("aborted", None),
    ]
    assert consumer.inbox.is_closed


async def test_an_unforeseen_error_ends_the_consumer_with_the_delivery_unacknowledged(broker: FakeBroker) -> None:
    """Another process must have it: here it is neither settled nor delivered again."""
    consumer = Consumer(broker)
    consumer.carry_out(settlement(1))
    broker.error = TypeError("a defect of ours")
    consumer.carry_out(settlement(2))
    await consumer.until_ended()
    assert [tag for what, tag in broker.did if what.startswith("acknowledged")] in ([], [1])
    assert broker.did[-1] == ("aborted", None)
    assert consumer.inbox.is_closed


class Watch:
    """In place of a watch: it goes on through as many cancellations as a driver may lose, or meets a defect."""

    def __init__(self, did: list[str], name: str, error: Exception | None = None) -> None:
        self._did, self._name, self._error = did, name, error
        self.has_begun = asyncio.Event()

    async def watch(self, _: object) -> None:
        self.has_begun.set()
        if self._error is not None:
            raise self._error
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        try:
            await asyncio.Event().wait()
        finally:
            self._did.append(f"{self._name} ended")

    async def make_good(self, _: object) -> None: ...

    def found(self, _: object) -> None: ...

    async def sent(self, _: float) -> None: ...

    def stop(self) -> None:
        self._did.append("mark stopped")


class FakeConnection:
    """A connection on which the consumer is at once the active one."""

    def __init__(self, consumer: LaneConsumer, did: list[str]) -> None:
        self.lost: asyncio.Future[BrokerUnavailable] = asyncio.get_running_loop().create_future()
        self.raw: Any = SimpleNamespace(basic_qos=None, is_open=False)
        self._consumer, self._did = consumer, did

    async def channel(self) -> Any:
        return self

    async def declare_lane(self, *_: object) -> None: ...

    async def call(self, *_: object, **__: object) -> None: ...

    async def consume(self, *_: object) -> None:
        self._consumer._is_active.set()

    async def end(self) -> None:
        self._did.append("connection ended")


async def consume_with(
    monkeypatch: pytest.MonkeyPatch, did: list[str], mark: Watch, queue: Watch
) -> tuple["asyncio.Task[BrokerUnavailable]", FakeConnection]:
    """A consumer that consumes, with these watches."""
    consumer, connection = consumer_with(monkeypatch, did, mark, queue)
    return asyncio.create_task(consumer._consume()), connection


def consumer_with(
    monkeypatch: pytest.MonkeyPatch, did: list[str], mark: Watch, queue: Watch
) -> tuple[LaneConsumer, FakeConnection]:
    """A consumer with these watches, and the connection that it gets."""
    consumer = LaneConsumer("ledger", BrokerSettings(), Inbox(), settings=NAMED, holder="test")
    consumer._loop.close()
    connection = FakeConnection(consumer, did)

    async def opened(*_: object) -> FakeConnection:
        return connection

    async def nothing(*_: object) -> None: ...

    monkeypatch.setattr("coordinator.runtime.ending.AGAIN_S", 0.01)
    monkeypatch.setattr("coordinator.transports.rabbitmq.consumer.AmqpConnection.open", opened)
    monkeypatch.setattr("coordinator.transports.rabbitmq.consumer.read_mark", nothing)
    consumer._mark, consumer._queue = cast("Any", mark), cast("Any", queue)
    monkeypatch.setattr(consumer, "_wait_for_outcomes", nothing)
    return consumer, connection


async def test_what_watches_a_connection_has_ended_before_it_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next connection has watches of its own: an old one that lost its cancellation would keep an old mark."""
    did: list[str] = []
    mark, queue = Watch(did, "mark"), Watch(did, "queue")
    consuming, connection = await consume_with(monkeypatch, did, mark, queue)
    async with asyncio.timeout(WITHIN_S):
        await asyncio.gather(mark.has_begun.wait(), queue.has_begun.wait())
        connection.lost.set_result(BrokerUnavailable("lost"))
        assert str(await consuming) == "lost"
    assert sorted(did[:2]) == ["mark ended", "queue ended"]
    assert did[2:] == ["mark stopped", "connection ended"]


@pytest.mark.parametrize("whose", ["mark", "queue"])
async def test_a_defect_of_a_watch_ends_the_consumer(monkeypatch: pytest.MonkeyPatch, whose: str) -> None:
    did: list[str] = []
    watches = {name: Watch(did, name, KeyError("a defect") if name == whose else None) for name in ("mark", "queue")}
    consuming, _ = await consume_with(monkeypatch, did, watches["mark"], watches["queue"])
    async with asyncio.timeout(WITHIN_S):
        with pytest.raises(KeyError, match="a defect"):
            await consuming
    assert did[-1] == "connection ended"


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not is_so():  # noqa: ASYNC110  # a turn of the loop at a time
            await asyncio.sleep(0)


async def test_what_is_emitted_is_sent_no_more_once_its_channel_is_gone_and_is_asked_for_on_the_next_one(
    monkeypatch: pytest.MonkeyPatch, broker: FakeBroker
) -> None:
    """The lane may be another process's by then, whose operators withdraw what is not sent yet."""
    did: list[str] = []
    consumer, connection = consumer_with(monkeypatch, did, Watch(did, "mark"), Watch(did, "queue"))
    publisher: Any = broker
    consumer._publisher = publisher
    confirmed: list[OutboxEntry] = []
    consumer._on_emitted_confirmed = confirmed.extend
    consumed = asyncio.create_task(consumer._consume())
    await until(lambda: consumer._emitted is not None)
    consumer._carry_out(consumer._channel_number, settlement(emitted=["a"]))
    # The second one waits behind the first.
    consumer._carry_out(consumer._channel_number, settlement(emitted=["a", "b"]))
    connection.lost.set_result(BrokerUnavailable("closed"))
    await consumed
    broker.confirm()
    consumer._carry_out(consumer._channel_number, settlement(emitted=["c"]))
    await asyncio.sleep(0)
    assert (broker.did, confirmed) == ([("emitted", "a")], [])
    connection.lost = asyncio.get_running_loop().create_future()
    consumed = asyncio.create_task(consumer._consume())
    await until(lambda: len(broker.did) > 1)
    # A marker, with which whoever has the lane reads in the outbox what is left there.
    (_, (what, marker)) = broker.did
    assert (what, marker in {"a", "b", "c"}) == ("emitted", False)
    connection.lost.set_result(BrokerUnavailable("closed"))
    await consumed


def test_packed_outcomes_are_no_larger_than_a_broker_takes() -> None:
    """What is too large has it end the connection, and with it everybody's outcomes."""

    def outcome(number: int, characters: int) -> Outcome:
        error = OutcomeError(code="c", message="\U0001f600" * characters)
        return Outcome(command_id=str(number), type="t.t", status="failed", sequence=number, error=error)

    outcomes = [outcome(number, 2000) for number in range(480)]
    bodies = list(bodies_of(outcomes))
    assert [each for body in bodies for each in decode_outcomes(body)] == outcomes
    assert max(map(len, bodies)) <= REPLY_BYTES_MAX
    assert len(list(bodies_of([outcome(number, 1) for number in range(500)]))) == 1
    assert len(list(bodies_of([outcome(1, 1), outcome(2, REPLY_BYTES_MAX)]))) == 2


def test_a_consumer_that_is_ending_by_itself_is_stopped_without_an_error() -> None:
    """Its loop is closed a moment before its thread ends."""
    broker = BrokerSettings(url="amqp://guest:guest@127.0.0.1/%2F")
    consumer = LaneConsumer("users", broker, Inbox(), settings=LaneSettings(), holder="test")
    is_over = threading.Event()
    consumer._thread = threading.Thread(target=is_over.wait, daemon=True)
    consumer._loop.close()
    consumer._thread.start()
    consumer.wake("a command")
    assert not consumer.stop(0.01)
    is_over.set()
    assert consumer.stop(WITHIN_S)
