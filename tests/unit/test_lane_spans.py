"""The spans about a lane's batches, and about effects: which there are, of which traces, and what caused each."""

import asyncio
from collections import deque
from collections.abc import Iterator

import pytest

from coordinator.client.publish_spans import TracedWrites, messaging
from coordinator.effects.effect_spans import RETRIED, EffectSpan
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.addresses import parse_address
from coordinator.runtime.recording import Recorder, TraceSpan, use_recorder
from coordinator.runtime.telemetry import measured
from coordinator.service.errors import CommandPending, Overloaded
from coordinator.service.outcome import Outcome
from coordinator.service.outside_calls import EffectRetry
from coordinator.service.trace_context import parsed
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from coordinator.stores.watched import READ, WatchedStore
from coordinator.worker.lane_spans import APPLIED_US, TimedAwaited, TracedObserver, awaited_of_lane, database_attributes
from coordinator.worker.observed import Observed
from tests.support.lane_contract import LaneUnderTest, command_id, delivery
from tests.support.ledger import Deposit, OpenAccount

ONE = f"00-{'1' * 32}-{'a' * 16}-01"
ALSO_ONE = f"00-{'1' * 32}-{'d' * 16}-01"
TWO = f"00-{'2' * 32}-{'b' * 16}-01"
UNSAMPLED = f"00-{'3' * 32}-{'c' * 16}-00"


class Clock:
    """Goes on by a microsecond with each look."""

    def __init__(self) -> None:
        self.now_ns = 1_790_000_000_000_000_000

    def __call__(self) -> int:
        self.now_ns += 1000
        return self.now_ns


@pytest.fixture
def recording() -> Iterator[Recorder]:
    recording = Recorder(Clock(), 10_000, 10_000, lambda: None)
    use_recorder(recording)
    yield recording
    use_recorder(None)


def said(span: TraceSpan) -> dict[str, str | int]:
    return dict((*span.common.attributes, *span.attributes))


class LaneWithSpans:
    """A lane in memory, observed as in its thread."""

    def __init__(self, recording: Recorder) -> None:
        awaited = awaited_of_lane()
        assert isinstance(awaited, TimedAwaited)
        self.lane = LaneUnderTest(WatchedStore(MemoryStore(MemoryDatabase()), awaited))
        self.lane.do(OpenAccount(owner="a"))
        awaited.take()
        self.recording = recording
        self.observer = TracedObserver(
            Observed("ledger", ()), recording, "ledger", awaited, messaging=messaging(is_rabbitmq=True)
        )

    def settle(self, *deliveries: object) -> list[TraceSpan]:
        began_ns = self.recording.clock_ns()
        settlement = self.lane.settle(*deliveries)  # type: ignore[arg-type]
        self.observer.decided((self.recording.clock_ns() - began_ns) / 1e9)
        self.observer.settled(settlement, 0, None)
        return self.recording.take(10_000)


def test_a_batch_of_one_trace_is_in_it(recording: Recorder) -> None:
    spans = LaneWithSpans(recording).settle(
        delivery(1, Deposit(id=1, amount=1), traceparent=ONE),
        delivery(2, Deposit(id=9, amount=1), traceparent=ALSO_ONE),
        delivery(3, Deposit(id=1, amount=1), traceparent=UNSAMPLED),
        delivery(4, Deposit(id=1, amount=1)),
    )
    assert {span.context.trace_id for span in spans} == {"1" * 32}
    assert sorted(span.name for span in spans) == [
        "COMMIT ledger",
        "SELECT ledger",
        "batch ledger",
        "process ledger",
        "process ledger",
        "reply ledger",
    ]
    batch = next(span for span in spans if span.name == "batch ledger")
    assert [link.span_id for link in batch.links] == ["a" * 16, "d" * 16]
    assert said(batch)["messaging.batch.message_count"] == 4
    first, second = (span for span in spans if span.name == "process ledger")
    assert (first.parent_id, second.parent_id, batch.parent_id) == ("a" * 16, "d" * 16, first.context.span_id)
    assert first.links == ()
    statuses = [said(each)["coordinator.command.status"] for each in (first, second)]
    assert statuses == ["applied", "rejected"]
    assert said(first)["messaging.message.id"] == command_id(1)
    # A refusal is an answer.
    assert (first.error, second.error) == (None, None)
    for span in spans:
        assert batch.began_ns <= span.began_ns <= span.ended_ns <= batch.ended_ns + 1000


def test_a_batch_of_several_traces_has_its_own_and_links_both_ways(recording: Recorder) -> None:
    spans = LaneWithSpans(recording).settle(
        delivery(1, Deposit(id=1, amount=1), traceparent=ONE), delivery(2, Deposit(id=1, amount=1), traceparent=TWO)
    )
    batch = next(span for span in spans if span.name == "batch ledger")
    assert batch.context.trace_id not in {"1" * 32, "2" * 32}
    assert batch.parent_id == ""
    assert [link.trace_id for link in batch.links] == ["1" * 32, "2" * 32]
    processed = [span for span in spans if span.name == "process ledger"]
    assert [span.links for span in processed] == [(batch.context,)] * 2
    parts = {span.name for span in spans if span.parent_id == batch.context.span_id}
    assert parts == {"SELECT ledger", "COMMIT ledger", "reply ledger"}


def test_what_failed_says_why_and_what_comes_again_is_another_span(recording: Recorder) -> None:
    lane = LaneWithSpans(recording)
    failed = lane.settle(delivery(1, b"{}", command_type=Deposit.type, traceparent=ONE))
    (first,) = (span for span in failed if span.name == "process ledger")
    assert first.error == "invalid_arguments"
    again = lane.settle(delivery(1, b"{}", command_type=Deposit.type, traceparent=ONE, redelivered=True))
    (second,) = (span for span in again if span.name == "process ledger")
    assert second.context.span_id != first.context.span_id
    assert [APPLIED_US in said(span) for span in (first, second)] == [True, False], "it was answered from the log"


def test_nobody_asks_for_the_spans_of_what_is_not_sampled(recording: Recorder) -> None:
    lane = LaneWithSpans(recording)
    for traceparent in (None, UNSAMPLED, "00-nonsense"):
        assert lane.settle(delivery(None, Deposit(id=1, amount=1), traceparent=traceparent)) == []


def test_a_lane_that_only_looks_keeps_no_endless_list(recording: Recorder) -> None:
    awaited = TimedAwaited(recording)
    for _ in range(2500):
        awaited.end(awaited.begin(READ))
    calls = awaited.take()
    assert 0 < len(calls) <= 1000
    assert all(began_ns < ended_ns for _, began_ns, ended_ns in calls)


@pytest.mark.parametrize(
    ("address", "attributes"),
    [
        (
            "postgresql://me:secret@db:5433/shop",
            {"db.system.name": "postgresql", "db.namespace": "shop", "server.address": "db", "server.port": 5433},
        ),
        ("mysql://db/shop", {"db.system.name": "mysql", "db.namespace": "shop", "server.address": "db"}),
        (
            "mysql://me:secret@a:3307,b/shop",
            {"db.system.name": "mysql", "db.namespace": "shop", "server.address": "a:3307, b"},
        ),
        ("sqlite:////home/ada/shop.db", {"db.system.name": "sqlite"}),
    ],
)
def test_no_account_and_no_path_is_said_of_a_database(address: str, attributes: dict[str, object]) -> None:
    assert dict(database_attributes(parse_address(address))) == attributes


class FakeWrites:
    def __init__(self, answer: Outcome | Exception) -> None:
        self.answer = answer
        self.issued: deque[CommandMessage] = deque()

    async def issue(self, lane: str, message: CommandMessage, wait_s: float | None) -> Outcome:
        del lane, wait_s
        self.issued.append(message)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


APPLIED = Outcome(command_id=command_id(1), type="t.t", status="applied", sequence=7)


@pytest.mark.parametrize(
    ("answer", "is_confirmed", "found"),
    [
        (APPLIED, True, [("publish t", None), ("wait t", None)]),
        (APPLIED, False, [("publish t", None)]),
        (CommandPending(command_id(1)), True, [("publish t", None), ("wait t", None)]),
        (Overloaded("full"), False, [("publish t", "Overloaded")]),
    ],
)
async def test_a_command_that_is_issued_has_spans(
    recording: Recorder, answer: Outcome | Exception, is_confirmed: bool, found: list[tuple[str, str | None]]
) -> None:
    writes = FakeWrites(answer)
    traced = TracedWrites(writes, messaging(is_rabbitmq=True))
    message = CommandMessage(command_id(1), "t.t", b"{}", traceparent=ONE)
    with measured() as stages:
        if is_confirmed:
            stages.spent_ms["publish"] = 0.0
        results = await asyncio.gather(traced.issue("t", message, None), return_exceptions=True)
    assert list(results) == [answer]
    spans = recording.take(9)
    assert [(span.name, span.error) for span in spans] == found
    assert [span.parent_id for span in spans] == ["a" * 16] * len(spans)
    assert writes.issued[0].traceparent == spans[0].context.traceparent
    status = "pending" if isinstance(answer, Exception) else "applied"
    assert len(spans) == 1 or said(spans[1])["coordinator.command.status"] == status


@pytest.mark.parametrize("traceparent", [None, UNSAMPLED, "00-nonsense"])
async def test_what_is_issued_unsampled_goes_as_it_came(recording: Recorder, traceparent: str | None) -> None:
    writes = FakeWrites(APPLIED)
    message = CommandMessage(command_id(1), "t.t", b"{}", traceparent=traceparent)
    assert await TracedWrites(writes, ()).issue("t", message, None) is APPLIED
    assert list(writes.issued) == [message]
    assert recording.take(9) == []


def test_an_effect_has_a_span_and_one_for_each_call(recording: Recorder) -> None:
    span = EffectSpan("shop", CommandMessage(command_id(1), "shop.effects.ring", b"{}", traceparent=ONE))
    with pytest.raises(EffectRetry), span.calling(1):
        raise EffectRetry("no answer")
    with pytest.raises(KeyError), span.calling(2):
        raise KeyError
    with span.calling(3):
        pass
    span.end()
    *calls, whole = recording.take(9)
    assert [(each.name, each.kind, each.error) for each in calls] == [
        ("call shop.effects.ring", "client", RETRIED),
        ("call shop.effects.ring", "client", "KeyError"),
        ("call shop.effects.ring", "client", None),
    ]
    assert {each.parent_id for each in calls} == {whole.context.span_id}
    assert (whole.name, whole.parent_id) == ("process effects.shop", "a" * 16)
    assert span.trace == whole.context
    assert span.cause == ONE


@pytest.mark.parametrize("traceparent", [None, UNSAMPLED, "00-nonsense"])
def test_an_effect_that_is_not_sampled_only_passes_its_trace_on(recording: Recorder, traceparent: str | None) -> None:
    span = EffectSpan("shop", CommandMessage(command_id(1), "shop.effects.ring", b"{}", traceparent=traceparent))
    with span.calling(1):
        pass
    span.end()
    assert recording.take(9) == []
    assert span.trace == parsed(traceparent)
