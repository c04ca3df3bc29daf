"""A payment whose call has an answer that never comes, as after a restored backup: an operator ends it."""

from collections.abc import Callable
from typing import Any

import pytest

from shared.payments.commands import CapturePayment, RefundPayment, ResolvePayment, ReversePayment
from shared.payments.effects import RefundAtProvider
from shared.payments.results import AuthorizeResult, CaptureResult, RefundResult, VoidResult
from tests.support.payment_lane import AMOUNT, PROVIDER_ID, PaymentLane

Asked = Callable[[PaymentLane], None]


@pytest.fixture
def lane() -> PaymentLane:
    return PaymentLane()


def opened(lane: PaymentLane) -> None:
    lane.opened()


def capture_asked(lane: PaymentLane) -> None:
    lane.authorized()
    lane.applied(CapturePayment(id=1), waits=True)


def void_asked(lane: PaymentLane) -> None:
    lane.authorized()
    lane.applied(ReversePayment(id=1), waits=True)


def refund_asked(lane: PaymentLane) -> None:
    lane.captured()
    lane.applied(RefundPayment(id=1, amount=300), waits=True)


def seen(status: Any, captured: int = 0, refunded: int = 0, **changed: Any) -> ResolvePayment:
    parts: dict[str, Any] = {"id": 1, "status": status, "reason": "seen: AL", "captured": captured}
    return ResolvePayment(**parts, refunded=refunded, even_if_under_way=True, **changed)


HELD: dict[str, Any] = {"provider_id": PROVIDER_ID}


@pytest.mark.parametrize(
    ("asked", "resolution", "end", "told"),
    [
        (opened, seen("authorized", **HELD), ("authorized", 0, 0), ("open", "applied")),
        (opened, seen("captured", AMOUNT, **HELD), ("captured", AMOUNT, 0), ("open", "applied")),
        (opened, seen("voided"), ("voided", 0, 0), ("open", "payment_voided")),
        (opened, seen("declined"), ("declined", 0, 0), ("open", "resolved")),
        (capture_asked, seen("captured", AMOUNT), ("captured", AMOUNT, 0), ("capture", "applied")),
        (capture_asked, seen("authorized"), ("authorized", 0, 0), ("capture", "payment_authorized")),
        (capture_asked, seen("voided"), ("voided", 0, 0), ("capture", "payment_voided")),
        (void_asked, seen("voided"), ("voided", 0, 0), ("reverse", "applied")),
        (void_asked, seen("authorized"), ("authorized", 0, 0), ("reverse", "payment_authorized")),
        (refund_asked, seen("captured", AMOUNT, 300), ("captured", AMOUNT, 300), ("refund", "applied")),
        (refund_asked, seen("captured", AMOUNT), ("captured", AMOUNT, 0), ("refund", "refund_failed")),
        (refund_asked, seen("captured", AMOUNT, AMOUNT), ("refunded", AMOUNT, AMOUNT), ("refund", "applied")),
    ],
)
def test_an_operator_says_what_came_of_it_and_who_waits_is_told(
    lane: PaymentLane, asked: Asked, resolution: ResolvePayment, end: tuple[str, int, int], told: tuple[str, str]
) -> None:
    asked(lane)
    lane.applied(resolution)
    payment = lane.payment
    assert (payment.status, payment.captured, payment.refunded) == end
    assert (payment.pending_action, payment.refund_id, payment.reason) == (None, None, "seen: AL")
    assert lane.codes_replied == [told]
    assert lane.waiters == []
    # What is wanted next can be asked for.
    if payment.status in {"authorized", "captured"}:
        lane.applied(ReversePayment(id=1))


def test_what_was_taken_before_the_hold_was_let_go_is_given_back(lane: PaymentLane) -> None:
    void_asked(lane)
    lane.applied(seen("captured", AMOUNT))
    assert (lane.payment.status, lane.payment.pending_action) == ("captured", "refund")
    assert isinstance(lane.calls[-1], RefundAtProvider)
    assert lane.codes_replied == []
    lane.applied(RefundResult(id=1, refund_id=1, verdict="refunded", provider_id="re_1"))
    assert lane.codes_replied == [("reverse", "applied")]


def test_a_reversal_that_is_wanted_meanwhile_is_done(lane: PaymentLane) -> None:
    lane.opened(waits=False)
    lane.applied(ReversePayment(id=1), waits=True)
    lane.applied(seen("authorized", **HELD))
    assert lane.payment.pending_action == "void"
    lane.applied(VoidResult(id=1, verdict="voided"))
    assert lane.codes_replied == [("reverse", "applied")]


@pytest.mark.parametrize(
    ("asked", "resolution", "late"),
    [
        (opened, seen("authorized", **HELD), AuthorizeResult(id=1, verdict="authorized", provider_id=PROVIDER_ID)),
        (capture_asked, seen("captured", AMOUNT), CaptureResult(id=1, verdict="captured", amount=AMOUNT)),
        (void_asked, seen("voided"), VoidResult(id=1, verdict="voided")),
        (
            refund_asked,
            seen("captured", AMOUNT, 300),
            RefundResult(id=1, refund_id=1, verdict="refunded", provider_id="re_1", total=300),
        ),
    ],
)
def test_its_answer_changes_nothing_more_if_it_comes_after_all(
    lane: PaymentLane, asked: Asked, resolution: ResolvePayment, late: Any
) -> None:
    asked(lane)
    lane.applied(resolution)
    before = lane.payment
    lane.applied(late)
    assert lane.payment == before
    assert len(lane.replies) == 1


def test_an_order_without_that_word_is_refused_and_says_it(lane: PaymentLane) -> None:
    lane.opened()
    code, text = lane.refusal(ResolvePayment(id=1, status="voided", reason="seen: AL"))
    assert code == "action_under_way"
    assert "even_if_under_way" in text
    assert lane.payment.pending_action == "authorize"


def test_the_word_is_for_calls_and_takes_no_payment_up_that_waits_for_none(lane: PaymentLane) -> None:
    lane.authorized()
    assert lane.refusal(seen("voided"))[0] == "not_in_review"
