"""A denial may be followed by a doubt, from another copy of the same call: the payment needs a review then."""

from typing import Any

import pytest

from coordinator.service.commands import Command
from shared.payments.commands import CapturePayment, RefundPayment, ResolvePayment, ReversePayment
from shared.payments.effects import PROVIDER_UNAVAILABLE, VoidAtProvider
from shared.payments.results import AuthorizeResult, CaptureResult, RefundResult, VoidResult
from tests.support.payment_lane import AMOUNT, PROVIDER_ID, PaymentLane, event

DENIED: dict[str, Any] = {"code": PROVIDER_UNAVAILABLE, "message": "it had no effect"}
DOUBTED: dict[str, Any] = {"verdict": "answer_lost", "code": "answer_lost", "message": "it may have had its effect"}
HOLD_DENIED = AuthorizeResult(id=1, verdict="authorize_failed", **DENIED)
HOLD_DOUBTED = AuthorizeResult(id=1, **DOUBTED)
HELD = AuthorizeResult(id=1, verdict="authorized", provider_id=PROVIDER_ID)


def denied(refund_id: int = 1) -> RefundResult:
    return RefundResult(id=1, refund_id=refund_id, verdict="refund_failed", **DENIED)


def doubted(refund_id: int = 1) -> RefundResult:
    return RefundResult(id=1, refund_id=refund_id, **DOUBTED)


def made(refund_id: int, total: int) -> RefundResult:
    name = f"re_{refund_id}"
    return RefundResult(id=1, refund_id=refund_id, verdict="refunded", provider_id=name, total=total)


def seen(status: Any, refunded: int = 0, **changed: Any) -> ResolvePayment:
    captured = AMOUNT if status == "captured" else 0
    return ResolvePayment(id=1, status=status, reason="seen: AL", captured=captured, refunded=refunded, **changed)


@pytest.fixture
def lane() -> PaymentLane:
    return PaymentLane()


@pytest.fixture
def refused(lane: PaymentLane) -> PaymentLane:
    """Somebody was told that a refund of 300 failed."""
    lane.captured()
    lane.applied(RefundPayment(id=1, amount=300), waits=True)
    lane.applied(denied())
    assert lane.codes_replied == [("refund", "refund_failed")]
    assert (lane.payment.status, lane.refunds[0].status) == ("captured", "failed")
    return lane


def statuses(lane: PaymentLane) -> list[str]:
    return [refund.status for refund in lane.refunds]


@pytest.mark.parametrize("order", [(HOLD_DENIED, HOLD_DOUBTED), (HOLD_DOUBTED, HOLD_DENIED)])
def test_a_hold_that_one_copy_denies_and_another_doubts_needs_a_review(
    lane: PaymentLane, order: tuple[Command, Command]
) -> None:
    lane.opened()
    for result in order:
        lane.applied(result)
    assert (lane.payment.status, lane.payment.reason_code) == ("needs_review", "answer_lost")
    assert len(lane.replies) == 1, "who waits is told once"
    assert lane.reviews == [lane.payment], "and somebody who can look, too"


@pytest.mark.parametrize("comes", [HELD, event("authorized"), seen("authorized", provider_id=PROVIDER_ID)])
def test_a_hold_that_was_denied_and_shows_after_the_doubt_is_let_go(lane: PaymentLane, comes: Command) -> None:
    lane.opened()
    for result in (HOLD_DENIED, HOLD_DOUBTED, comes):
        lane.applied(result)
    assert lane.calls[1:] == [VoidAtProvider(id=1, provider_id=PROVIDER_ID)]
    lane.applied(VoidResult(id=1, verdict="voided"))
    assert (lane.payment.status, lane.payment.pending_action, lane.payment.wanted) == ("voided", None, None)


def test_an_operator_who_sees_no_hold_ends_it(lane: PaymentLane) -> None:
    lane.opened()
    for result in (HOLD_DENIED, HOLD_DOUBTED, seen("voided")):
        lane.applied(result)
    assert (lane.payment.status, lane.payment.wanted, len(lane.calls)) == ("voided", None, 1)


@pytest.mark.parametrize(
    "known",
    [
        AuthorizeResult(id=1, verdict="authorize_failed", code="amount_too_small"),
        AuthorizeResult(id=1, verdict="declined", code="card_declined"),
        HELD,
    ],
)
def test_a_doubt_of_a_hold_counts_for_nothing_after_a_fact(lane: PaymentLane, known: Command) -> None:
    lane.opened()
    lane.applied(known)
    before = lane.payment
    lane.applied(HOLD_DOUBTED)
    assert lane.payment == before


def test_a_doubt_after_a_hold_was_let_go_that_came_late_counts_for_nothing(lane: PaymentLane) -> None:
    lane.opened()
    for result in (HOLD_DENIED, HELD, VoidResult(id=1, verdict="voided"), HOLD_DOUBTED):
        lane.applied(result)
    assert lane.payment.status == "failed"


def test_what_a_denied_capture_took_shows_when_its_hold_is_let_go(lane: PaymentLane) -> None:
    lane.authorized()
    lane.applied(CapturePayment(id=1))
    lane.applied(CaptureResult(id=1, verdict="capture_failed", **DENIED))
    lane.applied(CaptureResult(id=1, **DOUBTED))
    assert (lane.payment.status, lane.payment.pending_action) == ("failed", "void")
    lane.applied(VoidResult(id=1, verdict="captured", amount=AMOUNT))
    assert (lane.payment.status, lane.payment.pending_action) == ("captured", "refund")


@pytest.mark.parametrize(("total", "status"), [(0, "failed"), (299, "failed"), (300, "succeeded")])
def test_a_refund_that_was_denied_and_then_doubted_is_in_question(
    refused: PaymentLane, total: int, status: str
) -> None:
    refused.applied(doubted())
    payment = refused.payment
    assert (payment.status, payment.reason_code, payment.refund_id) == ("needs_review", "answer_lost", 1)
    assert statuses(refused) == ["needs_review"]
    assert refused.refusal(RefundPayment(id=1))[0] == "payment_needs_review"
    assert refused.refusal(ReversePayment(id=1))[0] == "payment_needs_review"
    refused.applied(seen("captured", total))
    assert (refused.payment.status, refused.payment.refunded, refused.payment.refund_id) == ("captured", total, None)
    assert statuses(refused) == [status]


def test_the_fact_ends_the_doubt(refused: PaymentLane) -> None:
    refused.applied(doubted())
    refused.applied(made(1, 300))
    payment = refused.payment
    assert (payment.status, payment.refunded, payment.refund_id) == ("captured", 300, None)
    assert statuses(refused) == ["succeeded"]


def test_a_denial_after_the_doubt_counts_for_nothing(lane: PaymentLane) -> None:
    lane.captured()
    lane.applied(RefundPayment(id=1, amount=300))
    lane.applied(doubted())
    lane.applied(denied())
    assert (lane.payment.status, statuses(lane)) == ("needs_review", ["needs_review"])


@pytest.mark.parametrize("is_late", [True, False])
def test_the_result_of_a_second_refund_does_not_end_the_review_of_the_first(
    refused: PaymentLane, *, is_late: bool
) -> None:
    refused.applied(RefundPayment(id=1, amount=200), waits=True)
    if is_late:
        refused.applied(made(2, 200))
    refused.applied(doubted())
    assert refused.payment.status == "needs_review"
    if not is_late:
        assert (refused.payment.reason_code, refused.payment.pending_action) == ("refund_in_doubt", "refund")
        assert refused.refusal(seen("captured", 200))[0] == "action_under_way"
        refused.applied(made(2, 200))
    assert (refused.payment.status, refused.payment.refunded) == ("needs_review", 200)
    assert refused.codes_replied[1:] == [("refund", "applied")]
    assert statuses(refused) == ["needs_review", "succeeded"]


@pytest.mark.parametrize(
    ("second", "total", "ends"),
    [
        (made(2, 200), 200, ["failed", "succeeded"]),
        (made(2, 200), 500, ["succeeded", "succeeded"]),
        (denied(2), 0, ["failed", "failed"]),
        (denied(2), 300, ["succeeded", "failed"]),
        (doubted(2), 0, ["failed", "failed"]),
        (doubted(2), 200, ["failed", "succeeded"]),
        (doubted(2), 300, ["succeeded", "failed"]),
        (doubted(2), 500, ["succeeded", "succeeded"]),
    ],
)
def test_an_operator_decides_all_the_refunds_in_question(
    refused: PaymentLane, second: RefundResult, total: int, ends: list[str]
) -> None:
    refused.applied(RefundPayment(id=1, amount=200))
    refused.applied(doubted())
    refused.applied(second)
    refused.applied(seen("captured", total))
    assert (refused.payment.status, refused.payment.refunded, refused.payment.refund_id) == ("captured", total, None)
    assert statuses(refused) == ends


def test_a_refund_that_was_made_before_the_doubt_is_not_counted_for_it(refused: PaymentLane) -> None:
    for command in (RefundPayment(id=1, amount=200), made(2, 200), doubted(), seen("captured", 200)):
        refused.applied(command)
    assert statuses(refused) == ["failed", "succeeded"]


@pytest.mark.parametrize(("amount", "status"), [(300, "succeeded"), (301, "failed")])
def test_nothing_is_in_doubt_where_the_total_has_no_room(lane: PaymentLane, amount: int, status: str) -> None:
    """The provider's events tell of all that went back, and never more than was taken."""
    lane.captured()
    lane.applied(RefundPayment(id=1, amount=amount))
    lane.applied(denied())
    lane.applied(event("refunded", captured=AMOUNT, refunded=300 if amount > 300 else AMOUNT))
    before = lane.payment
    if amount > 300:
        lane.applied(RefundPayment(id=1, amount=600))
        lane.applied(made(2, 900))
        before = lane.payment
    lane.applied(doubted())
    assert (lane.payment, lane.refunds[0].status) == (before, status)


def test_a_refund_that_the_provider_refused_is_not_in_doubt(lane: PaymentLane) -> None:
    lane.captured()
    lane.applied(RefundPayment(id=1, amount=300))
    lane.applied(RefundResult(id=1, refund_id=1, verdict="refund_failed", code="charge_disputed"))
    before = lane.payment
    lane.applied(doubted())
    assert (lane.payment, statuses(lane)) == (before, ["failed"])
