"""The state machine of payments: every state with every event, and random histories."""

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.commands import Command
from shared.errors import Rejected
from shared.payments.commands import CapturePayment, RefundPayment, ResolvePayment, ReversePayment
from shared.payments.results import AuthorizeResult, CaptureResult, Kind, RefundResult, VoidResult
from shared.payments.states import EVENTS, STATUSES, Event, Status, after
from tests.support.payment_lane import AMOUNT, PROVIDER_ID, PaymentLane, Told, event

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
refund_returned  -           -           needs_review needs_review -       -       -           .
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
)
REQUESTS = st.one_of(
    st.just(CapturePayment(id=1)),
    st.just(ReversePayment(id=1)),
    st.builds(RefundPayment, id=st.just(1), amount=st.none() | st.integers(1, AMOUNT + 1)),
)
HAPPENINGS = st.builds(
    lambda kind, captured, refunded, refund_id: event(kind, captured=captured, refunded=refunded, refund_id=refund_id),
    st.sampled_from(get_args(Kind)),
    st.sampled_from([0, 1, AMOUNT, AMOUNT, AMOUNT + 1]),
    st.integers(0, AMOUNT + 1),
    st.sampled_from([None, "re_1", "re_2"]),
)
RESOLUTIONS = st.builds(
    ResolvePayment,
    id=st.just(1),
    status=st.sampled_from(["authorized", "voided", "declined", "captured"]),
    reason=st.just("seen in the dashboard"),
    provider_id=st.sampled_from([None, PROVIDER_ID]),
    captured=st.sampled_from([0, 1, AMOUNT, AMOUNT + 1]),
    refunded=st.sampled_from([0, 0, 1, 300, AMOUNT, AMOUNT + 1]),
)
AFTER = {"declined": {"declined"}, "voided": {"voided", "captured", "needs_review"}}
"""What little may come after: money that was taken after all, a late hold that cannot be let go."""


def is_true(told: Told) -> bool:
    """Who is told that it went well has what he asked for."""
    if told.code != "applied":
        return True
    if told.command == CapturePayment.type:
        return bool(told.result["captured"] == told.result["amount"])
    if told.command == ReversePayment.type:
        return bool(told.result["captured"] == told.result["refunded"] and told.result["status"] != "needs_review")
    return told.command != RefundPayment.type or told.result["status"] == "succeeded"


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["opened", "authorized", "captured"]),
    st.lists(st.tuples(REQUESTS | VERDICTS | REFUND_RESULTS | HAPPENINGS | RESOLUTIONS, st.booleans()), max_size=14),
)
def test_whatever_happens_the_money_adds_up(begun: str, history: list[tuple[Command, bool]]) -> None:
    lane = PaymentLane()
    getattr(lane, begun)()
    waiting = int(begun == "opened")
    before = lane.payment
    for command, waits in history:
        outcome = lane.do(command, waits=waits)
        assert outcome.status in {"applied", "rejected"}, outcome
        payment = lane.payment
        assert payment.captured <= payment.amount
        assert payment.refunded <= payment.captured
        assert payment.captured >= before.captured
        assert payment.refunded >= before.refunded or before.reason_code == "refund_returned"
        if isinstance(command, ResolvePayment) and outcome.status == "applied":
            assert before.status == "needs_review"
        assert (payment.status == "refunded") <= (0 < payment.captured == payment.refunded)
        assert payment.status in AFTER.get(before.status, STATUSES)
        assert (payment.status in {"declined", "voided", "pending", "failed", "authorized"}) <= (payment.captured == 0)
        assert payment.version - before.version in {0, 1}
        assert all(is_true(told) for told in lane.told)
        before = payment
        waiting += waits
    # Nobody waits in vain: who has not been told is still in the row, and nobody is told twice.
    still = [text for row in lane.waiters for text in (row.action, row.reversal) if text is not None]
    assert len(lane.told) + len(still) == waiting
