"""What a lane promises of a command's trace, on every store: it goes with the command, and with all that comes of it.
Each store's tests inherit this class."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from coordinator.lane.control import DeadEffect, ReplayLetter
from coordinator.lane.delivery import Delivery, Settlement
from coordinator.lane.outbox import message_of
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.recording import Recorder, use_recorder
from coordinator.service.options import Options
from coordinator.service.trace_context import TraceContext, child_span_id, parsed
from coordinator.stores.lane_tables import DeadLetter, OutboxEntry, Timer
from tests.support.actor_contract import ASKED, WhoAsks
from tests.support.lane_contract import LaneUnderTest, command_id, delivery
from tests.support.ledger import Deposit, Fragile, OpenAccount, Postpone, Remark, Resume
from tests.support.store_contract import OpenStore

ONE = f"00-{'1' * 32}-{'a' * 16}-01"
TWO = f"00-{'2' * 32}-{'b' * 16}-01"
UNSAMPLED = f"00-{'3' * 32}-{'c' * 16}-00"
STATE = "vendor=1,other=x y"


def trace_of(message: CommandMessage) -> tuple[str | None, str | None]:
    return message.traceparent, message.tracestate


class TraceContract:
    @pytest.fixture
    def recording(self) -> Iterator[None]:
        """As in a process that records spans."""
        use_recorder(Recorder(lambda: 0, 1, 1, lambda: None))
        yield
        use_recorder(None)

    @pytest.fixture
    def traced(self, open_store: OpenStore) -> LaneUnderTest:
        lane = LaneUnderTest(open_store(), service=ASKED)
        lane.do(OpenAccount(owner="a"))
        return lane

    def test_what_a_command_leads_to_belongs_to_its_trace(self, traced: LaneUnderTest) -> None:
        settlement = traced.settle(
            delivery(1, WhoAsks(), traceparent=ONE, tracestate=STATE, continuation="journal.note", origin="public"),
            delivery(2, WhoAsks()),
            delivery(3, WhoAsks(), traceparent="00-nonsense", tracestate=STATE),
            delivery(4, WhoAsks(), traceparent=UNSAMPLED),
        )
        none = (None, None)
        emitted = [trace_of(message_of(entry)) for entry in settlement.emitted]
        # The last one is the continuation, for another target.
        assert emitted == [(ONE, STATE), none, none, (UNSAMPLED, None), (ONE, STATE)]
        # A timer, and the limit of its answer, of each.
        timers = {
            (Options.decode(row.options).traceparent, Options.decode(row.options).tracestate)
            for row in traced.rows(Timer)
        }
        assert timers == {(ONE, STATE), none, (UNSAMPLED, None)}
        assert traced.rows(OutboxEntry)[2].options is None
        traced.now += timedelta(days=1)
        fired = traced.lane.sweep(traced.channel_number)
        assert isinstance(fired, Settlement), fired
        assert [trace_of(message_of(entry)) for entry in fired.emitted].count((ONE, STATE)) == 2

    def test_where_spans_are_recorded_its_own_is_the_cause(self, traced: LaneUnderTest, recording: None) -> None:
        del recording
        emitted = traced.settle(
            delivery(1, WhoAsks(), traceparent=ONE, tracestate=STATE), delivery(2, WhoAsks(), traceparent=UNSAMPLED)
        ).emitted
        cause = parsed(ONE)
        assert cause is not None
        span = TraceContext(cause.trace_id, child_span_id("process", command_id(1), cause), "01")
        assert [trace_of(message_of(entry)) for entry in emitted] == [(span.traceparent, STATE), (UNSAMPLED, None)]

    def test_what_was_put_off_goes_on_in_the_trace_of_who_resumes_it(self, traced: LaneUnderTest) -> None:
        traced.settle(delivery(1, Postpone(id=1), traceparent=ONE, continuation="journal.note"))
        (entry,) = traced.settle(delivery(2, Resume(id=1), traceparent=TWO, tracestate=STATE)).emitted
        assert trace_of(message_of(entry)) == (TWO, STATE)

    def test_the_trace_survives_a_dead_letter_and_its_replay(self, open_store: OpenStore) -> None:
        lane = LaneUnderTest(open_store())
        lane.do(OpenAccount(owner="a"), Remark(id=1, note="broken"))
        lane.settle(delivery(10, Fragile(id=1, amount=1), traceparent=ONE, tracestate=STATE))
        lane.settle(delivery(11, Deposit(id=1, amount=1), traceparent=TWO, continuation="journal.note"))
        successor = LaneUnderTest(open_store())
        (letter,) = successor.rows(DeadLetter)
        successor.do(Remark(id=1, note="mended"))
        replayed = successor.settle(delivery(20, ReplayLetter(letter=letter.id))).emitted
        assert [trace_of(message_of(entry)) for entry in replayed] == [(ONE, STATE)]
        # What was parked behind it belongs to its own.
        released = successor.settle(*(Delivery(tag=3, commands=(message_of(entry),)) for entry in replayed)).emitted
        assert [trace_of(message_of(entry)) for entry in released] == [(TWO, None)]

    def test_an_effect_that_is_replayed_keeps_its_trace(self, traced: LaneUnderTest) -> None:
        dead = DeadEffect(command_id=command_id(7), effect_type="t.t", body="{}", code="c", reason="r")
        traced.settle(delivery(1, dead, traceparent=ONE, tracestate=STATE))
        (letter,) = traced.rows(DeadLetter)
        replay = traced.settle(delivery(2, ReplayLetter(letter=letter.id), traceparent=TWO))
        assert [trace_of(message_of(entry)) for entry in replay.emitted] == [(ONE, STATE)]
