"""A payment that needs a review goes on from what an operator has seen at the provider."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.operate.send import checked
from coordinator.protocol.wire import CommandMessage
from coordinator.service.errors import InvalidCommand
from shared.payments import SERVICE
from shared.payments.commands import CapturePayment, RefundPayment, ResolvePayment, ReversePayment
from shared.payments.effects import CaptureAtProvider, RefundAtProvider, VoidAtProvider
from shared.payments.results import AuthorizeResult, CaptureResult, RefundResult, VoidResult
from tests.support.payment_lane import AMOUNT, PROVIDER_ID, PaymentLane, event

LOST: dict[str, Any] = {"id": 1, "verdict": "answer_lost", "code": "answer_lost", "message": "no answer"}
WHY = "seen in the dashboard"


def hold_lost(lane: PaymentLane) -> None:
    lane.opened(waits=False)
    lane.applied(AuthorizeResult(**LOST))


def capture_lost(lane: PaymentLane) -> None:
    lane.authorized()
    lane.applied(CapturePayment(id=1))
    lane.applied(CaptureResult(**LOST))


def void_lost(lane: PaymentLane) -> None:
    lane.authorized()
    lane.applied(ReversePayment(id=1))
    lane.applied(VoidResult(**LOST))


def refund_lost(lane: PaymentLane) -> None:
    lane.captured()
    lane.applied(RefundPayment(id=1, amount=300))
    lane.applied(RefundResult(refund_id=1, **LOST))


def refund_returned(lane: PaymentLane) -> None:
    lane.captured()
    lane.applied(RefundPayment(id=1))
    lane.applied(RefundResult(id=1, refund_id=1, verdict="refunded", provider_id="re_1"))
    lane.applied(event("refund_failed", refund_id="re_1", code="expired_or_canceled_card"))


Happened = Callable[[PaymentLane], None]


def resolve(status: Any, captured: int = 0, refunded: int = 0, **changed: Any) -> ResolvePayment:
    return ResolvePayment(id=1, status=status, reason=WHY, captured=captured, refunded=refunded, **changed)


@pytest.fixture
def lane() -> PaymentLane:
    return PaymentLane()


@pytest.mark.parametrize(
    ("happened", "resolution", "end"),
    [
        (hold_lost, resolve("voided"), ("voided", 0, 0)),
        (hold_lost, resolve("declined"), ("declined", 0, 0)),
        (hold_lost, resolve("authorized", provider_id=PROVIDER_ID), ("authorized", 0, 0)),
        (hold_lost, resolve("captured", AMOUNT, provider_id=PROVIDER_ID), ("captured", AMOUNT, 0)),
        (capture_lost, resolve("authorized"), ("authorized", 0, 0)),
        (capture_lost, resolve("voided"), ("voided", 0, 0)),
        (capture_lost, resolve("captured", AMOUNT), ("captured", AMOUNT, 0)),
        (capture_lost, resolve("captured", AMOUNT, 300), ("captured", AMOUNT, 300)),
        (capture_lost, resolve("captured", 900, 900), ("refunded", 900, 900)),
        (void_lost, resolve("authorized"), ("authorized", 0, 0)),
        (void_lost, resolve("voided"), ("voided", 0, 0)),
        (refund_lost, resolve("captured", AMOUNT), ("captured", AMOUNT, 0)),
        (refund_lost, resolve("captured", AMOUNT, 300), ("captured", AMOUNT, 300)),
        (refund_lost, resolve("captured", AMOUNT, AMOUNT), ("refunded", AMOUNT, AMOUNT)),
        (refund_returned, resolve("captured", AMOUNT), ("captured", AMOUNT, 0)),
        (refund_returned, resolve("captured", AMOUNT, AMOUNT), ("refunded", AMOUNT, AMOUNT)),
    ],
)
def test_it_becomes_what_the_operator_has_seen_and_says_why(
    lane: PaymentLane, happened: Happened, resolution: ResolvePayment, end: tuple[str, int, int]
) -> None:
    happened(lane)
    assert lane.payment.status == "needs_review"
    calls = len(lane.calls)
    lane.applied(resolution)
    payment = lane.payment
    assert (payment.status, payment.captured, payment.refunded) == end
    assert (payment.reason_code, payment.reason) == ("resolved", WHY)
    assert (payment.pending_action, payment.refund_id, len(lane.calls)) == (None, None, calls)
    assert lane.refusal(resolution)[0] == "not_in_review"


@pytest.mark.parametrize(("refunded", "status"), [(0, "failed"), (299, "failed"), (300, "succeeded")])
def test_the_refund_in_question_was_made_if_as_much_was_given_back(
    lane: PaymentLane, refunded: int, status: str
) -> None:
    refund_lost(lane)
    assert lane.refunds[0].status == "needs_review"
    lane.applied(resolve("captured", AMOUNT, refunded))
    assert (lane.refunds[0].status, lane.payment.refunded) == (status, refunded)
    lane.applied(RefundPayment(id=1))
    assert lane.refunds[1].amount == AMOUNT - refunded


@pytest.mark.parametrize("is_told_first", [True, False])
def test_an_event_of_the_refund_in_question_does_not_make_it_one_that_failed(
    lane: PaymentLane, is_told_first: bool
) -> None:
    lane.captured()
    lane.applied(RefundPayment(id=1, amount=300))
    told = [event("refunded", captured=AMOUNT, refunded=300), RefundResult(refund_id=1, **LOST)]
    for command in told if is_told_first else reversed(told):
        lane.applied(command)
    lane.applied(resolve("captured", AMOUNT, 300))
    assert (lane.refunds[0].status, lane.payment.refunded, lane.payment.refund_id) == ("succeeded", 300, None)


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_whether_the_refund_in_question_was_made_does_not_depend_on_what_was_told_of_it_when(
    data: st.DataObject,
) -> None:
    """Others give back too, though less than it is; the events come in any order, twice, late or never."""
    lane = PaymentLane()
    lane.captured()
    before = data.draw(st.sampled_from([0, 100, 400]), "given back before")
    if before:
        lane.applied(event("refunded", captured=AMOUNT, refunded=before))
    lane.applied(RefundPayment(id=1, amount=300))
    steps = data.draw(st.lists(st.sampled_from([1, 49, 99]), max_size=3), "given back by others")
    is_made = data.draw(st.booleans(), "is made")
    if is_made:
        steps.insert(data.draw(st.integers(0, len(steps))), 300)
    totals = [before + sum(steps[: number + 1]) for number in range(len(steps))]
    told: list[Any] = [
        event("refunded", captured=AMOUNT, refunded=total, event_id=f"evt_{number}")
        for number, total in enumerate(data.draw(st.lists(st.sampled_from(totals), max_size=5)) if totals else [])
    ]
    told.insert(data.draw(st.integers(0, len(told))), RefundResult(refund_id=1, **LOST))
    for command in told:
        lane.applied(command)
    total = before + sum(steps)
    lane.applied(resolve("captured", AMOUNT, total))
    assert lane.refunds[0].status == ("succeeded" if is_made else "failed")
    assert (lane.payment.refunded, lane.payment.refund_id) == (total, None)


def test_what_others_gave_and_a_bank_sent_back_is_no_part_of_what_is_given_back_beside_it(lane: PaymentLane) -> None:
    lane.captured()
    lane.applied(RefundPayment(id=1, amount=500))
    lane.applied(event("refunded", captured=AMOUNT, refunded=300))
    lane.applied(event("refund_failed", refund_id="re_1", amount=300, code="expired_or_canceled_card"))
    lane.applied(RefundResult(refund_id=1, **LOST))
    lane.applied(event("refunded", captured=AMOUNT, refunded=500, event_id="evt_2"))
    lane.applied(resolve("captured", AMOUNT, 500))
    assert lane.refunds[0].status == "succeeded"


def test_what_a_bank_sent_back_meanwhile_makes_room_for_no_refund_and_takes_none(lane: PaymentLane) -> None:
    lane.captured()
    for number, amount in ((1, 500), (2, 300)):
        lane.applied(RefundPayment(id=1, amount=amount))
        if number == 1:
            lane.applied(RefundResult(id=1, refund_id=1, verdict="refunded", provider_id="re_1", total=500))
    lane.applied(event("refund_failed", refund_id="re_1", amount=500, code="expired_or_canceled_card"))
    lane.applied(RefundResult(refund_id=2, **LOST))
    lane.applied(resolve("captured", AMOUNT, 300))
    assert [refund.status for refund in lane.refunds] == ["failed", "succeeded"]


@pytest.mark.parametrize(
    ("happened", "resolution", "asked"),
    [
        (capture_lost, resolve("authorized"), CapturePayment(id=1)),
        (void_lost, resolve("authorized"), ReversePayment(id=1)),
        (hold_lost, resolve("captured", AMOUNT, provider_id=PROVIDER_ID), RefundPayment(id=1)),
    ],
)
def test_what_could_not_be_asked_for_in_review_can_be_now(
    lane: PaymentLane, happened: Happened, resolution: ResolvePayment, asked: Any
) -> None:
    happened(lane)
    assert lane.refusal(asked)[0] == "payment_needs_review"
    lane.applied(resolution)
    lane.applied(asked)
    calls = {CapturePayment: CaptureAtProvider, ReversePayment: VoidAtProvider, RefundPayment: RefundAtProvider}
    assert isinstance(lane.calls[-1], calls[type(asked)])
    assert lane.calls[-1].provider_id == PROVIDER_ID


@pytest.mark.parametrize(
    ("resolution", "status", "call"),
    [
        (resolve("authorized"), "authorized", VoidAtProvider),
        (resolve("captured", AMOUNT), "captured", RefundAtProvider),
        (resolve("voided"), "voided", CaptureAtProvider),
    ],
)
def test_a_reversal_that_is_wanted_since_before_the_review_is_done_then(
    lane: PaymentLane, resolution: ResolvePayment, status: str, call: type
) -> None:
    lane.authorized()
    lane.applied(CapturePayment(id=1))
    lane.applied(ReversePayment(id=1), waits=True)
    lane.applied(CaptureResult(**LOST))
    assert lane.codes_told == [("reverse", "payment_needs_review")]
    lane.applied(resolution)
    assert (lane.payment.status, lane.payment.wanted) == (status, None)
    assert type(lane.calls[-1]) is call
    assert len(lane.codes_told) == 1


@pytest.mark.parametrize(
    ("happened", "resolution", "code"),
    [
        (hold_lost, resolve("authorized"), "provider_id_needed"),
        (hold_lost, resolve("captured", AMOUNT), "provider_id_needed"),
        (hold_lost, resolve("authorized", AMOUNT, provider_id=PROVIDER_ID), "amount_mismatch"),
        (hold_lost, resolve("voided", 0, 1), "amount_mismatch"),
        (capture_lost, resolve("captured"), "amount_mismatch"),
        (capture_lost, resolve("captured", AMOUNT + 1), "amount_mismatch"),
        (capture_lost, resolve("captured", AMOUNT, AMOUNT + 1), "amount_mismatch"),
        (capture_lost, resolve("captured", AMOUNT, provider_id="pi_other"), "other_payment"),
        (capture_lost, resolve("declined"), "impossible_transition"),
        (refund_lost, resolve("voided"), "impossible_transition"),
        (refund_lost, resolve("authorized"), "impossible_transition"),
        (refund_lost, resolve("captured", AMOUNT - 1), "amount_mismatch"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    lane: PaymentLane, happened: Happened, resolution: ResolvePayment, code: str
) -> None:
    happened(lane)
    before = lane.payment
    assert lane.refusal(resolution)[0] == code
    assert lane.payment == before
    assert lane.lane.log()[-1].error_code == code


def test_less_than_is_recorded_was_given_back_only_where_a_refund_came_back(lane: PaymentLane) -> None:
    lane.captured()
    for number in (1, 2):
        lane.applied(RefundPayment(id=1, amount=300))
        verdict = "refunded" if number == 1 else "answer_lost"
        lane.applied(RefundResult(id=1, refund_id=number, verdict=verdict, provider_id=f"re_{number}"))
    assert lane.refusal(resolve("captured", AMOUNT, 299))[0] == "amount_mismatch"
    lane.applied(resolve("captured", AMOUNT, 300))
    assert [refund.status for refund in lane.refunds] == ["succeeded", "failed"]


def test_while_the_provider_is_asked_for_something_nothing_is_resolved(lane: PaymentLane) -> None:
    lane.captured()
    lane.applied(RefundPayment(id=1, amount=300))
    lane.applied(RefundResult(id=1, refund_id=1, verdict="refunded", provider_id="re_1"))
    lane.applied(RefundPayment(id=1, amount=300))
    lane.applied(event("refund_failed", refund_id="re_1", code="expired_or_canceled_card"))
    assert lane.payment.pending_action == "refund"
    assert lane.refusal(resolve("captured", AMOUNT))[0] == "action_under_way"


def test_whoever_resolves_what_waits_for_a_result_is_told_where_that_may_be(lane: PaymentLane) -> None:
    lane.captured()
    lane.applied(RefundPayment(id=1, amount=300))
    code, text = lane.refusal(resolve("captured", AMOUNT))
    assert code == "action_under_way"
    assert "dead letter" in text


def test_operators_may_send_it_and_clients_of_the_gateway_may_not() -> None:
    assert ResolvePayment not in SERVICE.commands
    message = CommandMessage(command_id=None, type=ResolvePayment.type, arguments=resolve("voided").arguments())
    assert checked(message, None) == "payments"
    internal = CommandMessage(command_id=None, type=AuthorizeResult.type, arguments=AuthorizeResult(**LOST).arguments())
    with pytest.raises(InvalidCommand, match="no command type"):
        checked(internal, None)


def test_a_hold_that_comes_to_light_after_an_operator_saw_none_is_let_go(lane: PaymentLane) -> None:
    hold_lost(lane)
    lane.applied(resolve("voided"))
    lane.applied(AuthorizeResult(id=1, verdict="authorized", provider_id=PROVIDER_ID))
    assert (lane.payment.status, lane.payment.pending_action) == ("voided", "void")
    assert lane.calls[-1] == VoidAtProvider(id=1, provider_id=PROVIDER_ID)
    lane.applied(VoidResult(id=1, verdict="voided"))
    assert (lane.payment.status, lane.payment.pending_action) == ("voided", None)


@pytest.mark.parametrize(
    ("told", "end"),
    [
        (VoidResult(**LOST), ("needs_review", 0, None)),
        (VoidResult(id=1, verdict="void_failed"), ("needs_review", 0, None)),
        # It is to be given back, as was wanted.
        (VoidResult(id=1, verdict="captured", amount=AMOUNT), ("captured", AMOUNT, "refund")),
    ],
)
def test_such_a_hold_that_cannot_be_let_go_is_for_a_person_and_what_was_taken_is_given_back(
    lane: PaymentLane, told: VoidResult, end: tuple[str, int, str | None]
) -> None:
    hold_lost(lane)
    lane.applied(resolve("voided"))
    lane.applied(AuthorizeResult(id=1, verdict="authorized", provider_id=PROVIDER_ID))
    lane.applied(told)
    assert (lane.payment.status, lane.payment.captured, lane.payment.pending_action) == end
