"""Less moved than was asked for, since others act at the provider too: whoever waits is not told that it went well."""

import itertools

import pytest

from coordinator.service.commands import Command
from shared.payments.commands import CapturePayment, RefundPayment, ResolvePayment, ReversePayment
from shared.payments.effects import RefundAtProvider
from shared.payments.results import CaptureResult, RefundResult
from tests.support.payment_lane import AMOUNT, PaymentLane, event

PART = 300
CAPTURE, REVERSE = CapturePayment(id=1), ReversePayment(id=1)
TAKEN_IN_PART = CaptureResult(id=1, verdict="captured", amount=PART)
TOLD_IN_PART = event("captured", captured=PART)


@pytest.fixture
def lane() -> PaymentLane:
    return PaymentLane()


@pytest.mark.parametrize("order", list(itertools.permutations([TAKEN_IN_PART, TOLD_IN_PART])))
def test_a_capture_of_a_part_is_none_and_the_payment_keeps_what_was_taken(
    lane: PaymentLane, order: tuple[Command, ...]
) -> None:
    lane.authorized()
    lane.applied(CAPTURE, waits=True)
    for message in order:
        lane.applied(message)
    assert lane.codes_replied == [("capture", "captured_in_part")]
    assert (lane.payment.status, lane.payment.captured, lane.payment.refunded) == ("captured", PART, 0)


def test_whoever_waits_for_a_capture_hears_how_much_was_taken(lane: PaymentLane) -> None:
    lane.authorized()
    lane.applied(CAPTURE, waits=True)
    lane.applied(TAKEN_IN_PART)
    assert str(PART) in lane.replies[0].message
    assert str(AMOUNT) in lane.replies[0].message


@pytest.mark.parametrize(("refunded", "status"), [(0, "captured"), (100, "captured"), (PART, "refunded")])
def test_what_was_captured_in_part_cannot_be_captured_and_says_how_much_was(
    lane: PaymentLane, refunded: int, status: str
) -> None:
    lane.authorized()
    lane.applied(event("refunded", captured=PART, refunded=refunded) if refunded else TOLD_IN_PART)
    code, text = lane.refusal(CAPTURE)
    assert (code, str(PART) in text, str(AMOUNT) in text) == ("captured_in_part", True, True)
    assert lane.payment.status == status


def test_what_was_captured_in_part_and_given_back_before_the_answer_is_no_capture(lane: PaymentLane) -> None:
    lane.authorized()
    lane.applied(CAPTURE, waits=True)
    lane.applied(event("refunded", captured=PART, refunded=PART))
    assert lane.codes_replied == [("capture", "captured_in_part")]
    assert lane.payment.status == "refunded"


def test_in_review_it_is_the_review_that_forbids_a_capture(lane: PaymentLane) -> None:
    lane.authorized()
    lane.applied(TOLD_IN_PART)
    lane.applied(event("refund_failed", refund_id="re_1", code="x"))
    assert lane.refusal(CAPTURE)[0] == "payment_needs_review"


def test_the_reversal_of_what_was_captured_in_part_gives_back_that_part(lane: PaymentLane) -> None:
    lane.authorized()
    lane.applied(CAPTURE, waits=True)
    lane.applied(TAKEN_IN_PART)
    lane.applied(REVERSE, waits=True)
    call = lane.calls[-1]
    assert isinstance(call, RefundAtProvider)
    assert call.amount == PART
    lane.applied(RefundResult(id=1, refund_id=1, verdict="refunded", provider_id="re_1", total=PART))
    assert lane.codes_replied[1:] == [("reverse", "applied")]
    assert (lane.payment.status, lane.payment.captured, lane.payment.refunded) == ("refunded", PART, PART)


def test_a_reversal_that_is_wanted_meanwhile_gives_back_that_part_at_once(lane: PaymentLane) -> None:
    lane.authorized()
    lane.applied(CAPTURE, waits=True)
    lane.applied(REVERSE, waits=True)
    lane.applied(TAKEN_IN_PART)
    assert lane.codes_replied == [("capture", "captured_in_part")]
    call = lane.calls[-1]
    assert isinstance(call, RefundAtProvider)
    assert call.amount == PART


def test_who_opens_a_payment_of_which_a_part_is_taken_hears_of_the_payment(lane: PaymentLane) -> None:
    """Without its number he could not reverse it."""
    lane.opened()
    lane.applied(TOLD_IN_PART)
    assert lane.codes_replied == [("open", "applied")]
    told = lane.replies[0].result
    assert (told["status"], told["captured"], told["amount"]) == ("captured", PART, AMOUNT)
    assert lane.refusal(CAPTURE)[0] == "captured_in_part"


def test_an_operator_s_part_is_a_part(lane: PaymentLane) -> None:
    lane.authorized()
    lane.applied(CAPTURE, waits=True)
    lane.applied(CaptureResult(id=1, verdict="answer_lost", code="answer_lost", message="?"))
    lane.applied(ResolvePayment(id=1, status="captured", reason="seen", captured=PART))
    assert lane.refusal(CAPTURE)[0] == "captured_in_part"


def given_back_in_part(lane: PaymentLane) -> None:
    """Of an earlier refund the provider counts nothing any more; its event is late."""
    lane.captured()
    lane.applied(RefundPayment(id=1, amount=300))
    lane.applied(RefundResult(id=1, refund_id=1, verdict="refunded", provider_id="re_1", total=300))
    lane.applied(REVERSE, waits=True)


def test_a_reversal_after_which_a_part_is_still_taken_is_none(lane: PaymentLane) -> None:
    given_back_in_part(lane)
    lane.applied(RefundResult(id=1, refund_id=2, verdict="refunded", provider_id="re_2", total=700))
    assert lane.codes_replied == [("reverse", "refunded_in_part")]
    assert "700" in lane.replies[0].message
    assert str(AMOUNT) in lane.replies[0].message
    assert (lane.payment.status, lane.payment.refunded) == ("captured", 700)
    lane.applied(REVERSE)
    call = lane.calls[-1]
    assert isinstance(call, RefundAtProvider)
    assert call.amount == 300


def test_a_reversal_while_an_earlier_refund_comes_back_needs_a_review(lane: PaymentLane) -> None:
    given_back_in_part(lane)
    lane.applied(event("refund_failed", refund_id="re_1", code="x"))
    lane.applied(RefundResult(id=1, refund_id=2, verdict="refunded", provider_id="re_2", total=700))
    assert lane.codes_replied == [("reverse", "payment_needs_review")]


def test_a_refund_that_was_made_was_made_though_another_came_back(lane: PaymentLane) -> None:
    lane.captured()
    lane.applied(RefundPayment(id=1, amount=300))
    lane.applied(RefundResult(id=1, refund_id=1, verdict="refunded", provider_id="re_1", total=300))
    lane.applied(RefundPayment(id=1, amount=200), waits=True)
    lane.applied(event("refund_failed", refund_id="re_1", code="x"))
    lane.applied(RefundResult(id=1, refund_id=2, verdict="refunded", provider_id="re_2", total=200))
    assert lane.codes_replied == [("refund", "applied")]
