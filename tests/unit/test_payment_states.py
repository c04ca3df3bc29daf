"""The state machine of payments: every state with every event, and random histories."""

from datetime import timedelta
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.service.commands import Command
from coordinator.service.errors import Rejected
from shared.payments.commands import CapturePayment, RefundPayment, ResolvePayment, ReversePayment
from shared.payments.effects import PROVIDER_UNAVAILABLE
from shared.payments.model import Payment, Refund
from shared.payments.results import AuthorizeResult, CaptureResult, Kind, RefundResult, TakeProviderEvent, VoidResult
from shared.payments.states import EVENTS, STATUSES, Event, Status, after
from tests.support.examples import examples
from tests.support.payment_lane import AMOUNT, PROVIDER_ID, PaymentLane, Reply, event
from tests.support.store_contract import NOW

# One column a state, in the order of STATUSES: where the event leads; `.` stays; `-` is impossible.
GRID = """
                 pending     authorized  captured    refunded    declined  voided  failed      needs_review
capture          -           .           -           -           -         -       -           -
refund           -           -           .           -           -         -       -           -
reverse          .           .           .           .           .         .       .           -
authorized       authorized  .           .           .           -         .       .           authorized
declined         declined    -           -           -           .         .       .           declined
captured         captured    captured    .           .           -         captured captured   captured
voided           voided      voided      -           -           .         .       .           voided
refunded_in_part -           -           .           -           -         -       -           captured
refunded_in_full -           -           refunded    .           -         -       -           refunded
refund_returned  needs_review needs_review needs_review needs_review - needs_review needs_review .
authorize_failed failed      -           -           -           -         -       -           -
capture_failed   -           failed      -           -           -         -       -           -
void_failed      -           needs_review -          -           -         needs_review needs_review -
refund_failed    -           -           .           -           -         -       -           .
answer_lost      needs_review needs_review needs_review -        -         needs_review needs_review .
"""
ROWS = [line.split() for line in GRID.strip().splitlines()[1:]]
CELLS = [(row[0], status, cell) for row in ROWS for status, cell in zip(STATUSES, row[1:], strict=True)]


def test_the_grid_has_every_event_and_every_state() -> None:
    assert tuple(GRID.split()[: len(STATUSES)]) == STATUSES
    assert tuple(row[0] for row in ROWS) == EVENTS


@pytest.mark.parametrize(("happening", "status", "cell"), CELLS)
def test_an_event_leads_where_the_grid_says(happening: Event, status: Status, cell: str) -> None:
    if cell != "-":
        assert after(7, status, happening) == (status if cell == "." else cell)
        return
    with pytest.raises(Rejected) as caught:
        after(7, status, happening)
    is_asked_in_review = status == "needs_review" and happening in {"capture", "refund", "reverse"}
    assert caught.value.code == ("payment_needs_review" if is_asked_in_review else "impossible_transition")
    assert "payment 7" in str(caught.value)
    assert status in str(caught.value)


VERDICTS = st.sampled_from(
    [
        AuthorizeResult(id=1, verdict="authorized", provider_id=PROVIDER_ID),
        AuthorizeResult(id=1, verdict="declined", code="card_declined"),
        AuthorizeResult(id=1, verdict="authorize_failed"),
        AuthorizeResult(id=1, verdict="authorize_failed", code=PROVIDER_UNAVAILABLE),
        AuthorizeResult(id=1, verdict="answer_lost"),
        CaptureResult(id=1, verdict="captured", amount=AMOUNT),
        CaptureResult(id=1, verdict="captured", amount=AMOUNT + 1),
        CaptureResult(id=1, verdict="captured", amount=1),
        CaptureResult(id=1, verdict="voided"),
        CaptureResult(id=1, verdict="capture_failed"),
        CaptureResult(id=1, verdict="answer_lost"),
        VoidResult(id=1, verdict="voided"),
        VoidResult(id=1, verdict="captured", amount=AMOUNT),
        VoidResult(id=1, verdict="captured", amount=1),
        VoidResult(id=1, verdict="captured"),
        VoidResult(id=1, verdict="void_failed"),
        VoidResult(id=1, verdict="answer_lost"),
    ]
)
REFUND_RESULTS = st.builds(
    RefundResult,
    id=st.just(1),
    refund_id=st.integers(1, 4),
    verdict=st.sampled_from(["refunded", "refund_failed", "answer_lost"]),
    provider_id=st.sampled_from([None, "re_1", "re_2"]),
    total=st.sampled_from([0, 0, 1, 300, AMOUNT]),
    code=st.sampled_from([None, PROVIDER_UNAVAILABLE]),
)
REQUESTS = st.one_of(
    st.just(CapturePayment(id=1)),
    st.just(ReversePayment(id=1)),
    st.builds(RefundPayment, id=st.just(1), amount=st.none() | st.integers(1, AMOUNT + 1)),
)
HAPPENINGS = st.builds(
    lambda kind, captured, refunded, refund_id, refund_number, second: event(
        kind,
        captured=captured,
        refunded=refunded,
        refund_id=refund_id,
        refund_number=refund_number,
        created_s=None if second is None else int(NOW.timestamp()) + second,
    ),
    st.sampled_from(get_args(Kind)),
    st.sampled_from([0, 1, AMOUNT, AMOUNT, AMOUNT + 1]),
    st.integers(0, AMOUNT + 1),
    st.sampled_from([None, "re_1", "re_2"]),
    st.none() | st.integers(1, 4),
    st.none() | st.integers(-2, 20),
)
RESOLUTIONS = st.builds(
    ResolvePayment,
    id=st.just(1),
    status=st.sampled_from(["authorized", "voided", "declined", "captured"]),
    reason=st.just("seen in the dashboard"),
    provider_id=st.sampled_from([None, PROVIDER_ID]),
    captured=st.sampled_from([0, 1, AMOUNT, AMOUNT + 1]),
    refunded=st.sampled_from([0, 0, 1, 300, AMOUNT, AMOUNT + 1]),
    even_if_under_way=st.booleans(),
)
AFTER = {"declined": {"declined"}, "voided": {"voided", "captured", "needs_review"}}
"""What little may come after: money that was taken after all, a late hold that cannot be let go."""


def is_true(told: Reply) -> bool:
    """Who is told that it went well has what he asked for."""
    if told.code != "applied":
        return True
    if told.command == CapturePayment.type:
        return bool(told.result["captured"] == told.result["amount"])
    if told.command == ReversePayment.type:
        return bool(told.result["captured"] == told.result["refunded"] and told.result["status"] != "needs_review")
    return told.command != RefundPayment.type or told.result["status"] == "succeeded"


def is_late(command: Command, payment: Payment, refunds: list[Refund]) -> bool:
    """Whether it tells of what was before an operator said what the amounts are."""
    if not isinstance(command, TakeProviderEvent) or payment.amounts_as_of is None:
        return False
    if any(is_of(command, refund) and refund.created_at >= payment.amounts_as_of for refund in refunds):
        return False
    return command.created_s is not None and command.created_s <= payment.amounts_as_of.timestamp()


def is_of(command: TakeProviderEvent, refund: Refund) -> bool:
    """Whether it may tell of this refund: its row alone may change by that, if it is old."""
    if command.kind != "refund_failed":
        return False
    return command.refund_id == refund.provider_id or command.refund_number == refund.id


def assert_nothing_changed(lane: PaymentLane, command: Command, payment: Payment, refunds: list[Refund]) -> None:
    assert isinstance(command, TakeProviderEvent)
    assert lane.payment == payment
    for was, refund in zip(refunds, lane.refunds, strict=True):
        assert refund.refunded_without == was.refunded_without
        assert refund == was or (refund.status == "failed" and is_of(command, refund))


@pytest.mark.properties
@examples(300)
@given(
    st.sampled_from(["opened", "authorized", "captured"]),
    st.lists(st.tuples(REQUESTS | VERDICTS | REFUND_RESULTS | HAPPENINGS | RESOLUTIONS, st.booleans()), max_size=14),
)
def test_whatever_happens_the_money_adds_up(begun: str, history: list[tuple[Command, bool]]) -> None:
    lane = PaymentLane()
    getattr(lane, begun)()
    waiting = int(begun == "opened")
    before, refunds = lane.payment, lane.refunds
    for second, (command, waits) in enumerate(history):
        lane.lane.now = NOW + timedelta(seconds=second)
        outcome = lane.do(command, waits=waits)
        assert outcome.status in {"applied", "rejected"}, outcome
        payment = lane.payment
        assert payment.captured <= payment.amount
        assert payment.refunded <= payment.captured
        assert payment.captured >= before.captured
        assert payment.refunded >= before.refunded or before.reason_code == "refund_returned"
        is_resolved = isinstance(command, ResolvePayment) and outcome.status == "applied"
        is_lost = is_resolved and before.pending_action is not None
        if isinstance(command, ResolvePayment) and is_resolved:
            assert command.even_if_under_way if is_lost else before.status == "needs_review"
        assert (payment.status == "refunded") <= (0 < payment.captured == payment.refunded)
        assert is_lost or payment.status in AFTER.get(before.status, STATUSES)
        assert (payment.status in {"declined", "voided", "pending", "failed", "authorized"}) <= (payment.captured == 0)
        assert payment.version - before.version in {0, 1}
        if is_late(command, before, refunds):
            assert_nothing_changed(lane, command, before, refunds)
        assert all(is_true(told) for told in lane.replies)
        before, refunds = payment, lane.refunds
        waiting += waits
    # Nobody waits in vain: who has not been told is still in the row or beside it, and nobody is told twice.
    still = [text for row in lane.waiters for text in (row.action, row.reversal) if text is not None]
    assert len(lane.replies) + len(still) + sum(row.others for row in lane.waiters) == waiting


TOTALS = st.builds(
    lambda total, second: event("refunded", captured=AMOUNT, refunded=total, created_s=int(NOW.timestamp()) + second),
    st.integers(0, AMOUNT),
    st.integers(-10, 20),
)
RETURNS = st.builds(
    lambda refund_id, refund_number, amount, second: event(
        "refund_failed",
        refund_id=refund_id,
        refund_number=refund_number,
        amount=amount,
        created_s=int(NOW.timestamp()) + second,
    ),
    st.sampled_from(["re_1", "re_2", "re_3"]),
    st.none() | st.integers(1, 4),
    st.integers(1, AMOUNT),
    st.integers(-10, 20),
)
WORDS = st.builds(
    ResolvePayment,
    id=st.just(1),
    status=st.just("captured"),
    reason=st.sampled_from(["seen: AL", "seen: BK"]),
    captured=st.just(AMOUNT),
    refunded=st.integers(0, AMOUNT),
)
REFUNDS = st.builds(RefundPayment, id=st.just(1), amount=st.none() | st.integers(1, AMOUNT))


@pytest.mark.properties
@examples(200)
@given(st.lists(WORDS | TOTALS | RETURNS | REFUNDS | REFUND_RESULTS, max_size=10))
def test_of_what_an_operator_has_said_no_older_event_takes_anything_away(history: list[Command]) -> None:
    lane = PaymentLane()
    lane.captured()
    lane.applied(RefundPayment(id=1, amount=300))
    lane.applied(RefundResult(id=1, refund_id=1, verdict="refunded", provider_id="re_1", total=300))
    lane.applied(event("refund_failed", refund_id="re_1", created_s=int(NOW.timestamp())))
    for second, command in enumerate(history, 1):
        lane.lane.now = NOW + timedelta(seconds=second)
        before, refunds = lane.payment, lane.refunds
        outcome = lane.do(command)
        assert outcome.status in {"applied", "rejected"}, outcome
        payment = lane.payment
        if isinstance(command, ResolvePayment) and outcome.status == "applied":
            assert (payment.refunded, payment.reason) == (command.refunded, command.reason)
            assert payment.amounts_as_of == lane.lane.now
        elif is_late(command, before, refunds):
            assert_nothing_changed(lane, command, before, refunds)
        else:
            assert payment.refunded >= before.refunded
            assert payment.amounts_as_of == before.amounts_as_of
