"""Events that are older than what an operator has recorded: what he saw has them in it, so they change nothing."""

import itertools
from datetime import timedelta

import pytest

from coordinator.service.commands import Command
from shared.payments.commands import RefundPayment, ResolvePayment, ReversePayment
from shared.payments.results import RefundResult, TakeProviderEvent, VoidResult
from tests.support.payment_lane import AMOUNT, PaymentLane, event
from tests.support.store_contract import NOW

WHY = "nothing is given back: AL"
MADE = RefundResult(id=1, refund_id=1, verdict="refunded", provider_id="re_1", total=500)
RESOLVED_AT_S = 60


def at(second: int) -> int:
    return int(NOW.timestamp()) + second


def refunded(total: int, second: int | None) -> TakeProviderEvent:
    return event("refunded", captured=AMOUNT, refunded=total, created_s=None if second is None else at(second))


def returned(second: int, refund_id: str = "re_1", refund_number: int | None = None) -> TakeProviderEvent:
    return event(
        "refund_failed",
        amount=500,
        refund_id=refund_id,
        refund_number=refund_number,
        is_signed=refund_number is not None,
        code="closed",
        created_s=at(second),
    )


def resolve(lane: PaymentLane, refunded: int = 0, second: int = RESOLVED_AT_S) -> None:
    lane.lane.now = NOW + timedelta(seconds=second)
    lane.applied(ResolvePayment(id=1, status="captured", reason=WHY, captured=AMOUNT, refunded=refunded))


@pytest.fixture
def lane() -> PaymentLane:
    lane = PaymentLane()
    lane.captured()
    lane.applied(RefundPayment(id=1, amount=500))
    return lane


MESSAGES: tuple[Command, ...] = (MADE, refunded(500, 1), returned(3), refunded(200, 4))
"""A refund that comes back, and one that somebody made in the dashboard after that."""


@pytest.mark.parametrize("order", list(itertools.permutations(MESSAGES)))
def test_a_late_total_does_not_overrule_what_an_operator_has_recorded(order: tuple[Command, ...]) -> None:
    first = max(order.index(MADE), order.index(MESSAGES[2])) + 1
    for known in range(first, len(order) + 1):
        lane = PaymentLane()
        lane.captured()
        lane.applied(RefundPayment(id=1, amount=500))
        for message in order[:known]:
            lane.applied(message)
        assert (lane.payment.status, lane.payment.reason_code) == ("needs_review", "refund_returned")
        resolve(lane, refunded=200)
        before = lane.payment
        for message in order[known:]:
            lane.applied(message)
        assert lane.payment == before
        assert (lane.payment.status, lane.payment.refunded, lane.payment.reason) == ("captured", 200, WHY)


def test_all_that_is_the_payer_s_can_be_given_back_after_a_late_total(lane: PaymentLane) -> None:
    for message in (MADE, returned(3)):
        lane.applied(message)
    resolve(lane)
    lane.applied(refunded(500, 1))
    lane.applied(RefundPayment(id=1))
    assert lane.refunds[-1].amount == AMOUNT


def test_a_late_total_does_not_make_a_refund_that_is_under_way(lane: PaymentLane) -> None:
    """It was of another refund, which came back."""
    lane.applied(RefundResult(id=1, refund_id=1, verdict="refund_failed"))
    lane.applied(RefundPayment(id=1))
    lane.applied(RefundResult(id=1, refund_id=2, verdict="refunded", provider_id="re_1", total=AMOUNT))
    lane.applied(returned(3))
    resolve(lane)
    lane.applied(ReversePayment(id=1), waits=True)
    lane.applied(refunded(AMOUNT, 1))
    assert (lane.refunds[-1].status, lane.payment.pending_action, lane.replies) == ("pending", "refund", [])


def test_what_is_given_back_later_counts(lane: PaymentLane) -> None:
    for message in (MADE, returned(3)):
        lane.applied(message)
    resolve(lane)
    lane.applied(refunded(300, RESOLVED_AT_S + 1))
    assert (lane.payment.status, lane.payment.refunded) == ("captured", 300)
    assert lane.payment.reason == WHY, "it is captured as before, and he said why"
    lane.applied(refunded(AMOUNT, RESOLVED_AT_S + 2))
    assert lane.payment.status == "refunded"


def test_in_the_second_of_the_operator_s_word_his_word_counts(lane: PaymentLane) -> None:
    """Stripe tells whole seconds. Too little refunded is refused by Stripe; too much stays with us."""
    for message in (MADE, returned(3)):
        lane.applied(message)
    resolve(lane)
    lane.applied(refunded(500, RESOLVED_AT_S))
    assert lane.payment.refunded == 0


def test_an_event_of_an_older_gateway_has_no_time_and_counts_as_ever(lane: PaymentLane) -> None:
    for message in (MADE, returned(3)):
        lane.applied(message)
    resolve(lane)
    assert b"created_s" not in refunded(500, None).arguments()
    lane.applied(refunded(500, None))
    assert lane.payment.refunded == 500


def test_a_refund_comes_back_once(lane: PaymentLane) -> None:
    """Told again, or made by a late answer, it does not bring the review back."""
    for message in (MADE, returned(3)):
        lane.applied(message)
    resolve(lane)
    before = lane.payment
    for message in (returned(3), MADE, returned(4)):
        lane.applied(message)
    assert lane.payment == before
    assert (lane.refunds[0].status, lane.refunds[0].reason_code) == ("failed", "closed")


def test_another_refund_that_came_back_before_is_in_the_operator_s_word_too(lane: PaymentLane) -> None:
    for message in (MADE, returned(3)):
        lane.applied(message)
    resolve(lane)
    before = lane.payment
    lane.applied(returned(2, "re_of_the_dashboard"))
    assert lane.payment == before
    lane.applied(returned(RESOLVED_AT_S + 1, "re_of_the_dashboard_since"))
    assert (lane.payment.status, lane.payment.reason_code) == ("needs_review", "refund_returned")


def test_what_came_back_before_is_not_taken_out_of_what_is_given_back_beside_a_refund_since(lane: PaymentLane) -> None:
    for message in (MADE, returned(3)):
        lane.applied(message)
    resolve(lane, refunded=300)
    lane.applied(RefundPayment(id=1, amount=100))
    lane.applied(RefundResult(id=1, refund_id=2, verdict="answer_lost", code="answer_lost"))
    before = (lane.payment, lane.refunds)
    lane.applied(returned(4, "re_of_the_dashboard"))
    assert (lane.payment, lane.refunds) == before
    resolve(lane, refunded=300, second=RESOLVED_AT_S + 60)
    assert lane.refunds[1].status == "failed"


def test_a_refund_that_came_back_before_failed_whenever_that_is_told(lane: PaymentLane) -> None:
    """The operator has said how much is given back, and not which refund it was."""
    lane.applied(RefundResult(id=1, refund_id=1, verdict="answer_lost", code="answer_lost"))
    resolve(lane, refunded=500)
    assert lane.refunds[0].status == "succeeded"
    before = lane.payment
    lane.applied(returned(3, refund_number=1))
    assert (lane.refunds[0].status, lane.refunds[0].provider_id) == ("failed", "re_1")
    assert lane.payment == before


def test_a_refund_that_was_asked_for_since_came_back_since_whatever_the_clocks_say(lane: PaymentLane) -> None:
    for message in (MADE, returned(3)):
        lane.applied(message)
    resolve(lane)
    lane.applied(RefundPayment(id=1, amount=500))
    lane.applied(RefundResult(id=1, refund_id=2, verdict="refunded", provider_id="re_2", total=500))
    lane.applied(returned(RESOLVED_AT_S - 1, "re_2"))
    assert (lane.payment.status, lane.payment.reason_code) == ("needs_review", "refund_returned")


def test_money_that_was_taken_counts_however_late_it_is_told() -> None:
    """What was held when the operator looked may have been taken since; and taken money cannot be not taken."""
    ends = set()
    events = (
        event("captured", captured=300, created_s=at(1)),
        event("refunded", captured=300, refunded=100, created_s=at(2)),
    )
    for order in itertools.permutations(events):
        lane = PaymentLane()
        lane.authorized()
        lane.applied(ReversePayment(id=1))
        lane.applied(VoidResult(id=1, verdict="answer_lost", code="answer_lost"))
        lane.lane.now = NOW + timedelta(seconds=RESOLVED_AT_S)
        lane.applied(ResolvePayment(id=1, status="authorized", reason=WHY))
        for message in order:
            lane.applied(message)
        ends.add((lane.payment.status, lane.payment.captured, lane.payment.refunded))
    assert ends == {("captured", 300, 100)}
