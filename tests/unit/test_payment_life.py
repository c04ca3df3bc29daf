"""What the payments lane does with what is asked of it, what it asks of the provider, and who is told of the end."""

from typing import Any

import pytest

from coordinator.service.commands import Command
from shared.payments.commands import CapturePayment, OpenPayment, RefundPayment, ReversePayment
from shared.payments.effects import AuthorizeAtProvider, CaptureAtProvider, RefundAtProvider, VoidAtProvider
from shared.payments.model import ReversalWaiter
from shared.payments.results import AuthorizeResult, CaptureResult, RefundResult, VoidResult
from tests.support.payment_lane import AMOUNT, PROVIDER_ID, PaymentLane, event

AUTHORIZED = AuthorizeResult(id=1, verdict="authorized", provider_id=PROVIDER_ID)
LOST = AuthorizeResult(id=1, verdict="answer_lost", code="answer_lost", message="no answer")
CAPTURED = CaptureResult(id=1, verdict="captured", amount=AMOUNT)
CAPTURE, REVERSE = CapturePayment(id=1), ReversePayment(id=1)
REFUNDED = RefundResult(id=1, refund_id=1, verdict="refunded", provider_id="re_1")


@pytest.fixture
def lane() -> PaymentLane:
    return PaymentLane()


class TestOpening:
    def test_without_a_payment_method_nobody_is_asked(self, lane: PaymentLane) -> None:
        lane.applied(OpenPayment(user_id=1, amount=5, currency="JPY"), waits=True)
        assert (lane.payment.status, lane.payment.pending_action, lane.calls) == ("pending", None, [])
        assert lane.codes_replied == [("open", "applied")]

    @pytest.mark.parametrize("currency", ["EUR", "JPY", "KWD"])
    def test_the_provider_is_asked_for_minor_units_as_they_are(self, lane: PaymentLane, currency: str) -> None:
        lane.applied(OpenPayment(user_id=1, amount=1230, currency=currency, payment_method="pm_x"))
        assert lane.calls == [AuthorizeAtProvider(id=1, amount=1230, currency=currency, payment_method="pm_x")]

    @pytest.mark.parametrize("currency", ["ZZZ", "XAU"])
    def test_a_currency_that_is_none_is_named(self, lane: PaymentLane, currency: str) -> None:
        code, text = lane.refusal(OpenPayment(user_id=1, amount=5, currency=currency, payment_method="pm_x"))
        assert (code, currency in text, lane.calls) == ("unknown_currency", True, [])

    def test_the_arguments_without_a_payment_method_are_those_of_the_release_before(self) -> None:
        command = OpenPayment(user_id=1, amount=5, currency="EUR")
        assert command.arguments() == b'{"user_id":1,"amount":5,"currency":"EUR"}'

    @pytest.mark.parametrize(
        ("result", "status", "told"),
        [
            (AUTHORIZED, "authorized", "applied"),
            (
                AuthorizeResult(id=1, verdict="declined", code="card_declined", message="no"),
                "declined",
                "card_declined",
            ),
            (
                AuthorizeResult(id=1, verdict="authorize_failed", code="provider_unavailable"),
                "failed",
                "payment_failed",
            ),
            (LOST, "needs_review", "payment_needs_review"),
            (event("captured", captured=AMOUNT), "captured", "applied"),
            (event("voided"), "voided", "payment_voided"),
        ],
    )
    def test_who_opened_it_hears_when_it_is_known(
        self, lane: PaymentLane, result: Command, status: str, told: str
    ) -> None:
        lane.opened()
        assert (lane.payment.pending_action, lane.replies) == ("authorize", [])
        lane.applied(result)
        assert (lane.payment.status, lane.payment.pending_action) == (status, None)
        assert lane.codes_replied == [("open", told)]
        assert lane.waiters == []

    def test_who_waits_is_told_of_the_payment_as_it_is_stored(self, lane: PaymentLane) -> None:
        lane.opened()
        lane.applied(AUTHORIZED)
        told = lane.replies[0].result
        assert (told["version"], told["status"]) == (lane.payment.version, "authorized")
        assert told["provider_id"] == PROVIDER_ID

    def test_the_reason_says_what_happened(self, lane: PaymentLane) -> None:
        lane.opened(waits=False)
        lane.applied(AuthorizeResult(id=1, verdict="declined", code="weird\u2028 code" + "x" * 100, message="y" * 900))
        assert lane.payment.reason_code is not None
        assert lane.payment.reason_code.startswith("weirdcodexxx")
        assert (len(lane.payment.reason_code), len(lane.payment.reason or "")) == (64, 500)


class TestCapturing:
    def test_it_is_captured_once_and_whole(self, lane: PaymentLane) -> None:
        lane.authorized()
        lane.applied(CAPTURE, waits=True)
        assert lane.calls[-1] == CaptureAtProvider(id=1, provider_id=PROVIDER_ID, amount=AMOUNT, currency="EUR")
        code, text = lane.refusal(CAPTURE)
        assert (code, "capture" in text) == ("action_under_way", True)
        lane.applied(CAPTURED)
        assert lane.codes_replied == [("capture", "applied")]
        assert lane.refusal(CAPTURE)[0] == "impossible_transition"

    def test_a_capture_that_had_no_effect_fails_the_payment_and_lets_go_of_the_hold(self, lane: PaymentLane) -> None:
        lane.authorized()
        lane.applied(CAPTURE, waits=True)
        lane.applied(CaptureResult(id=1, verdict="capture_failed", code="provider_unavailable", message="429"))
        assert lane.codes_replied == [("capture", "payment_failed")]
        assert lane.calls[-1] == VoidAtProvider(id=1, provider_id=PROVIDER_ID)
        assert (lane.payment.status, lane.payment.pending_action) == ("failed", "void")
        lane.applied(REVERSE, waits=True)
        lane.applied(VoidResult(id=1, verdict="voided"))
        assert (lane.payment.status, lane.payment.pending_action) == ("failed", None)
        assert lane.codes_replied[1:] == [("reverse", "applied")]

    def test_a_hold_that_could_not_be_let_go_needs_a_review(self, lane: PaymentLane) -> None:
        lane.authorized()
        lane.applied(CAPTURE)
        lane.applied(CaptureResult(id=1, verdict="capture_failed"))
        lane.applied(VoidResult(id=1, verdict="void_failed"))
        assert lane.payment.status == "needs_review"

    def test_money_that_was_taken_after_all_overrules_a_failure(self, lane: PaymentLane) -> None:
        lane.opened(waits=False)
        lane.applied(AuthorizeResult(id=1, verdict="authorize_failed"))
        lane.applied(event("captured", captured=AMOUNT))
        assert (lane.payment.status, lane.payment.reason_code) == ("captured", None)

    def test_a_hold_that_appears_on_a_failed_payment_is_let_go(self, lane: PaymentLane) -> None:
        lane.opened(waits=False)
        lane.applied(AuthorizeResult(id=1, verdict="authorize_failed"))
        lane.applied(event("authorized"))
        assert lane.payment.status == "failed"
        assert lane.calls[-1] == VoidAtProvider(id=1, provider_id=PROVIDER_ID)

    def test_more_than_was_held_needs_a_review(self, lane: PaymentLane) -> None:
        lane.authorized()
        lane.applied(CAPTURE, waits=True)
        lane.applied(CaptureResult(id=1, verdict="captured", amount=AMOUNT + 1))
        assert (lane.payment.status, lane.payment.reason_code) == ("needs_review", "amount_mismatch")
        assert lane.codes_replied == [("capture", "payment_needs_review")]

    @pytest.mark.parametrize("request_", [CAPTURE, RefundPayment(id=1), REVERSE])
    def test_what_needs_a_review_takes_nothing(self, lane: PaymentLane, request_: Command) -> None:
        lane.opened(waits=False)
        lane.applied(LOST)
        assert lane.refusal(request_)[0] == "payment_needs_review"


class TestReversing:
    def test_nothing_held_and_nothing_taken_is_voided_at_once(self, lane: PaymentLane) -> None:
        lane.applied(OpenPayment(user_id=1, amount=5, currency="EUR"))
        lane.applied(REVERSE, waits=True)
        assert (lane.payment.status, lane.calls, lane.codes_replied) == ("voided", [], [("reverse", "applied")])

    def test_what_is_held_is_let_go(self, lane: PaymentLane) -> None:
        lane.authorized()
        lane.applied(REVERSE, waits=True)
        assert lane.replies == []
        lane.applied(VoidResult(id=1, verdict="voided"))
        assert (lane.payment.status, lane.codes_replied) == ("voided", [("reverse", "applied")])
        lane.applied(REVERSE, waits=True)
        assert lane.codes_replied[1:] == [("reverse", "applied")]

    def test_what_was_taken_and_not_given_back_is_refunded(self, lane: PaymentLane) -> None:
        lane.captured()
        lane.applied(RefundPayment(id=1, amount=300))
        lane.applied(REFUNDED)
        lane.applied(REVERSE, waits=True)
        assert lane.calls[-1] == RefundAtProvider(
            id=1, refund_id=2, provider_id=PROVIDER_ID, amount=700, currency="EUR"
        )
        lane.applied(RefundResult(id=1, refund_id=2, verdict="refunded", provider_id="re_2"))
        assert (lane.payment.status, lane.payment.refunded) == ("refunded", AMOUNT)
        assert lane.replies[0].result["status"] == "refunded"

    def test_while_something_is_under_way_it_is_remembered(self, lane: PaymentLane) -> None:
        lane.opened()
        lane.applied(REVERSE, waits=True)
        assert len(lane.calls) == 1
        lane.applied(AUTHORIZED)
        assert (lane.calls[1:], lane.payment.wanted) == ([VoidAtProvider(id=1, provider_id=PROVIDER_ID)], None)
        assert lane.codes_replied == [("open", "applied")]
        lane.applied(VoidResult(id=1, verdict="voided"))
        assert lane.codes_replied == [("open", "applied"), ("reverse", "applied")]

    @pytest.mark.parametrize("waits", [(False, True), (True, False), (False, False), (False, True, False)])
    def test_what_is_to_be_reversed_already_may_be_wished_again(
        self, lane: PaymentLane, waits: tuple[bool, ...]
    ) -> None:
        """A stranger's reversals, who waits for none, are not in the way of a flow that is taken back."""
        lane.authorized()
        lane.applied(REVERSE)
        for does_wait in waits:
            lane.applied(REVERSE, waits=does_wait)
        assert (lane.payment.pending_action, lane.payment.wanted, lane.replies) == ("void", "reverse", [])
        lane.applied(VoidResult(id=1, verdict="voided"))
        assert (lane.payment.status, lane.payment.wanted, len(lane.calls)) == ("voided", None, 2)
        assert lane.codes_replied == [("reverse", "applied")] * sum(waits)
        assert lane.waiters == []

    def test_all_who_wait_for_a_reversal_that_is_remembered_get_its_answer(self, lane: PaymentLane) -> None:
        lane.opened()
        for _ in range(3):
            lane.applied(REVERSE, waits=True)
        assert (lane.codes_replied, [row.others for row in lane.waiters]) == ([], [2])
        lane.applied(AUTHORIZED)
        assert lane.codes_replied == [("open", "applied")]
        # These wish it while it is done.
        for _ in range(2):
            lane.applied(REVERSE, waits=True)
        lane.applied(VoidResult(id=1, verdict="voided"))
        assert lane.codes_replied == [("open", "applied"), *[("reverse", "applied")] * 5]
        assert len({reply.command_id for reply in lane.replies}) == 6, "each its own"
        assert (lane.waiters, lane.lane.rows(ReversalWaiter)) == ([], [])

    def test_all_who_wait_for_a_reversal_learn_that_it_was_not_made(self, lane: PaymentLane) -> None:
        lane.opened(waits=False)
        for _ in range(3):
            lane.applied(REVERSE, waits=True)
        lane.applied(LOST)
        assert lane.codes_replied == [("reverse", "payment_needs_review")] * 3
        assert (lane.waiters, lane.lane.rows(ReversalWaiter)) == ([], [])

    def test_who_waits_beside_another_gets_what_the_next_reversal_brings(self, lane: PaymentLane) -> None:
        """The refund that the first one waits for fails; then comes that of the next."""
        lane.captured()
        lane.applied(REVERSE, waits=True)
        for _ in range(2):
            lane.applied(REVERSE, waits=True)
        lane.applied(RefundResult(id=1, refund_id=1, verdict="refund_failed", code="x"))
        assert lane.codes_replied == [("reverse", "refund_failed")]
        assert isinstance(lane.calls[-1], RefundAtProvider)
        lane.applied(RefundResult(id=1, refund_id=2, verdict="refunded", provider_id="re_2"))
        assert lane.codes_replied == [("reverse", "refund_failed"), *[("reverse", "applied")] * 2]
        assert (lane.payment.status, lane.waiters, lane.lane.rows(ReversalWaiter)) == ("refunded", [], [])

    def test_so_many_may_wait_for_a_reversal_and_no_more(
        self, lane: PaymentLane, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("shared.payments.progress.OTHERS_MAX", 2)
        lane.opened(waits=False)
        for _ in range(3):
            lane.applied(REVERSE, waits=True)
        outcome = lane.do(REVERSE, waits=True)
        assert outcome.error is not None
        assert outcome.error.code == "action_under_way"
        assert "3 wait for that" in outcome.error.message
        assert lane.codes_replied == [("reverse", "action_under_way")]
        lane.applied(AUTHORIZED)
        lane.applied(VoidResult(id=1, verdict="voided"))
        assert lane.codes_replied[1:] == [("reverse", "applied")] * 3

    @pytest.mark.parametrize("verdict", ["declined", "authorize_failed"])
    def test_where_it_turns_out_that_nothing_was_held_there_is_nothing_to_do(
        self, lane: PaymentLane, verdict: str
    ) -> None:
        lane.opened(waits=False)
        lane.applied(REVERSE, waits=True)
        lane.do(AuthorizeResult(id=1, verdict=verdict, code="x"))  # type: ignore[arg-type]
        assert (lane.codes_replied, len(lane.calls)) == ([("reverse", "applied")], 1)

    def test_where_the_answer_is_lost_it_stays_wanted(self, lane: PaymentLane) -> None:
        lane.opened(waits=False)
        lane.applied(REVERSE, waits=True)
        lane.applied(LOST)
        assert lane.codes_replied == [("reverse", "payment_needs_review")]
        lane.applied(event("authorized"))
        assert lane.calls[-1] == VoidAtProvider(id=1, provider_id=PROVIDER_ID)

    def test_what_was_taken_before_it_was_let_go_is_given_back(self, lane: PaymentLane) -> None:
        lane.authorized()
        lane.applied(REVERSE, waits=True)
        lane.applied(VoidResult(id=1, verdict="captured", amount=AMOUNT))
        assert lane.replies == []
        lane.applied(REFUNDED)
        assert (lane.payment.status, lane.codes_replied) == ("refunded", [("reverse", "applied")])

    def test_of_what_was_taken_before_no_more_is_given_back_than_that(self, lane: PaymentLane) -> None:
        """Somebody took a part of it in the provider's dashboard; his event is late."""
        lane.authorized()
        lane.applied(REVERSE, waits=True)
        lane.applied(VoidResult(id=1, verdict="captured", amount=300))
        assert (lane.payment.captured, lane.refunds[0].amount) == (300, 300)
        lane.applied(event("captured", amount_captured=300))
        lane.applied(REFUNDED)
        assert (lane.payment.status, lane.payment.refunded) == ("refunded", 300)

    @pytest.mark.parametrize("amount", [0, AMOUNT + 1])
    def test_what_was_taken_before_is_not_guessed(self, lane: PaymentLane, amount: int) -> None:
        lane.authorized()
        lane.applied(REVERSE, waits=True)
        lane.applied(VoidResult(id=1, verdict="captured", amount=amount))
        assert (lane.payment.status, lane.payment.reason_code) == ("needs_review", "amount_mismatch")
        lane.applied(event("captured", amount_captured=300))
        assert (lane.payment.captured, lane.payment.status) == (300, "captured")

    def test_a_refund_that_fails_fails_the_reversal_and_leaves_the_payment_captured(self, lane: PaymentLane) -> None:
        lane.captured()
        lane.applied(REVERSE, waits=True)
        lane.applied(RefundResult(id=1, refund_id=1, verdict="refund_failed", code="insufficient_funds", message="no"))
        assert (lane.payment.status, lane.payment.refund_id) == ("captured", None)
        assert (lane.refunds[0].status, lane.refunds[0].reason_code) == ("failed", "insufficient_funds")
        assert lane.codes_replied == [("reverse", "refund_failed")]
        lane.applied(REVERSE)
        assert isinstance(lane.calls[-1], RefundAtProvider)


class TestRefunding:
    def test_parts_are_given_back_until_nothing_is_left(self, lane: PaymentLane) -> None:
        lane.captured()
        code, text = lane.refusal(RefundPayment(id=1, amount=AMOUNT + 1))
        assert (code, str(AMOUNT + 1) in text) == ("refund_too_large", True)
        lane.applied(RefundPayment(id=1, amount=400), waits=True)
        assert lane.refusal(RefundPayment(id=1, amount=400))[0] == "action_under_way"
        lane.applied(REFUNDED)
        assert (lane.payment.status, lane.payment.refunded) == ("captured", 400)
        assert lane.replies[0].result | {"created_at": ""} == {
            "id": 1,
            "payment_id": 1,
            "amount": 400,
            "status": "succeeded",
            "provider_id": "re_1",
            "reason_code": None,
            "reason": None,
            "refunded_without": 0,
            "created_at": "",
        }
        assert lane.refusal(RefundPayment(id=1, amount=601))[0] == "refund_too_large"
        lane.applied(RefundPayment(id=1))
        lane.applied(RefundResult(id=1, refund_id=2, verdict="refunded", provider_id="re_2"))
        assert (lane.payment.status, lane.payment.refunded) == ("refunded", AMOUNT)
        assert lane.refusal(RefundPayment(id=1))[0] == "impossible_transition"
        assert [(refund.id, refund.amount) for refund in lane.refunds] == [(1, 400), (2, 600)]

    def test_a_refund_without_an_answer_is_in_question_until_an_event_tells(self, lane: PaymentLane) -> None:
        lane.captured()
        lane.applied(RefundPayment(id=1, amount=400), waits=True)
        lane.applied(RefundResult(id=1, refund_id=1, verdict="answer_lost", code="answer_lost", message="?"))
        assert (lane.payment.status, lane.payment.refund_id) == ("needs_review", 1)
        assert lane.codes_replied == [("refund", "payment_needs_review")]
        # Whether it is a part of what went back, no amount tells, unless all of it did.
        for total in (100, 400, 500):
            lane.applied(event("refunded", captured=AMOUNT, refunded=total))
            assert (lane.payment.status, lane.payment.refunded) == ("needs_review", total)
        lane.applied(event("refunded", captured=AMOUNT, refunded=AMOUNT))
        assert (lane.payment.status, lane.payment.refunded, lane.payment.refund_id) == ("refunded", AMOUNT, None)
        assert lane.refunds[0].status == "succeeded"

    @pytest.mark.parametrize(
        ("result", "refunded", "status"),
        [
            (RefundResult(id=1, refund_id=1, verdict="refund_failed", code="amount_too_large"), 600, "failed"),
            (RefundResult(id=1, refund_id=1, verdict="refunded", provider_id="re_1", total=900), 900, "succeeded"),
        ],
    )
    def test_somebody_else_s_refund_is_not_taken_for_one_that_has_no_answer_yet(
        self, lane: PaymentLane, result: RefundResult, refunded: int, status: str
    ) -> None:
        lane.captured()
        lane.applied(RefundPayment(id=1, amount=300), waits=True)
        lane.applied(event("refunded", captured=AMOUNT, refunded=600))
        assert (lane.replies, lane.refunds[0].status, lane.payment.refunded) == ([], "pending", 600)
        lane.applied(result)
        assert (lane.refunds[0].status, lane.payment.refunded, lane.payment.status) == (status, refunded, "captured")
        assert len(lane.replies) == 1

    def test_a_refund_that_the_bank_sends_back_needs_a_review_that_no_event_ends(self, lane: PaymentLane) -> None:
        lane.captured()
        lane.applied(RefundPayment(id=1))
        lane.applied(REFUNDED)
        lane.applied(event("refund_failed", refund_id="re_1", code="expired_or_canceled_card"))
        lane.do(event("refunded", captured=AMOUNT, refunded=AMOUNT))
        assert (lane.payment.status, lane.payment.reason_code) == ("needs_review", "refund_returned")
        assert (lane.refunds[0].status, lane.refunds[0].reason_code) == ("failed", "expired_or_canceled_card")

    def test_the_same_refund_at_the_provider_is_that_of_one_row(self, lane: PaymentLane) -> None:
        lane.captured()
        lane.applied(RefundPayment(id=1, amount=400))
        lane.applied(REFUNDED)
        lane.applied(RefundPayment(id=1))
        lane.applied(RefundResult(id=1, refund_id=2, verdict="refunded", provider_id="re_1"))
        assert [refund.provider_id for refund in lane.refunds] == ["re_1", None]


class TestEvents:
    @pytest.mark.parametrize(
        ("changed", "code"),
        [
            ({"id": 2}, "payment_not_found"),
            ({"provider_id": "pi_other"}, "other_payment"),
            ({"currency": "USD"}, "currency_mismatch"),
            ({"amount": AMOUNT + 1}, "amount_mismatch"),
            ({"captured": AMOUNT + 1}, "amount_mismatch"),
        ],
    )
    def test_what_is_of_another_payment_is_refused_and_recorded(
        self, lane: PaymentLane, changed: dict[str, Any], code: str
    ) -> None:
        lane.authorized()
        before = lane.payment
        assert lane.refusal(event("captured", **{"captured": AMOUNT, **changed}))[0] == code
        assert lane.payment == before
        assert lane.lane.log()[-1].error_code == code

    def test_five_deliveries_are_one(self, lane: PaymentLane) -> None:
        lane.authorized()
        outcomes = [lane.do(event("captured", captured=AMOUNT), number=77) for _ in range(5)]
        assert [outcome.replayed for outcome in outcomes] == [False] + [True] * 4
        assert len(lane.lane.log()) == 3

    def test_a_contradiction_is_refused_and_recorded(self, lane: PaymentLane) -> None:
        lane.opened(waits=False)
        lane.applied(AuthorizeResult(id=1, verdict="declined", code="card_declined"))
        assert lane.refusal(event("captured", captured=AMOUNT))[0] == "impossible_transition"
        assert lane.payment.status == "declined"
        assert lane.lane.log()[-1].error_code == "impossible_transition"

    def test_a_result_for_a_refund_that_does_not_exist_is_refused(self, lane: PaymentLane) -> None:
        lane.captured()
        assert lane.refusal(REFUNDED)[0] == "refund_not_found"
