"""A payment that needs a review goes on from what an operator has seen at the provider."""

import itertools
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.operate.send import checked
from coordinator.protocol.wire import CommandMessage
from coordinator.service.errors import InvalidCommand
from shared.payments import SERVICE
from shared.payments.commands import CapturePayment, OpenPayment, RefundPayment, ResolvePayment, ReversePayment
from shared.payments.effects import CaptureAtProvider, RefundAtProvider, VoidAtProvider
from shared.payments.results import AuthorizeResult, CaptureResult, RefundResult, TakeProviderEvent, VoidResult
from tests.support.examples import examples
from tests.support.payment_lane import AMOUNT, PROVIDER_ID, PaymentLane, event
from tests.support.store_contract import NOW

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


@pytest.mark.properties
@examples(200)
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


class AtProvider:
    """Refunds as they are at the provider, and what it tells of them."""

    def __init__(self, lane: PaymentLane) -> None:
        self.lane = lane
        self.made: dict[str, tuple[int | None, int]] = {}
        self.returned: set[str] = set()
        self._seconds = itertools.count(1)

    @property
    def total(self) -> int:
        return sum(amount for refund, (_, amount) in self.made.items() if refund not in self.returned)

    def tick(self) -> int:
        second = next(self._seconds)
        self.lane.lane.now = NOW + timedelta(seconds=second)
        return int(NOW.timestamp()) + second

    def make(self, number: int | None, amount: int) -> TakeProviderEvent:
        """`number` is that of ours; None: in the dashboard."""
        self.made[f"re_{len(self.made) + 1}"] = number, amount
        return event("refunded", captured=AMOUNT, refunded=self.total, created_s=self.tick())

    def give_back(self, how: str, amount: int) -> None:
        number = None if how == "by hand" else self.ask(amount)
        told = self.make(number, amount)
        if number is None:
            self.lane.applied(told)
        elif how == "told":
            refund = f"re_{len(self.made)}"
            self.lane.applied(RefundResult(id=1, refund_id=number, verdict="refunded", provider_id=refund, total=0))
        else:
            self.lane.applied(RefundResult(refund_id=number, **LOST))
            self.resolve()

    def send_back(self, refund: str) -> TakeProviderEvent:
        self.returned.add(refund)
        number, amount = self.made[refund]
        return event(
            "refund_failed",
            amount=amount,
            refund_id=refund,
            refund_number=number,
            is_signed=number is not None,
            code="expired_or_canceled_card",
            created_s=self.tick(),
        )

    def ask(self, amount: int) -> int:
        """The number of a refund that is under way."""
        self.tick()
        self.lane.applied(RefundPayment(id=1, amount=amount))
        return len(self.lane.refunds)

    def resolve(self) -> None:
        """As an operator does who looks at the dashboard."""
        self.tick()
        self.lane.applied(resolve("captured", AMOUNT, self.total))

    def assert_rows_say_what_is_there(self) -> None:
        there = {number for refund, (number, _) in self.made.items() if refund not in self.returned}
        for row in self.lane.refunds:
            assert row.status == ("succeeded" if row.id in there else "failed"), row
        assert (self.lane.payment.refunded, self.lane.payment.refund_id) == (self.total, None)


@pytest.mark.properties
@examples(300)
@given(data=st.data())
def test_of_each_refund_its_row_says_what_it_is_at_the_provider_whichever_came_back(data: st.DataObject) -> None:
    """The bank sends back any of them, and that is told at once, after the operator's word, or of the last in question.

    What others have given back is told when it is made, or an equal amount of theirs would be taken for ours.
    """
    lane = PaymentLane()
    lane.captured()
    provider = AtProvider(lane)
    amounts = st.sampled_from([100, 200])
    for how in data.draw(st.lists(st.sampled_from(["told", "lost", "by hand"]), max_size=3), "given back before"):
        provider.give_back(how, data.draw(amounts))
    late = []
    for refund in list(provider.made):
        when = data.draw(st.sampled_from(["never", "at once", "late"]), f"{refund} comes back")
        if when != "never":
            told = provider.send_back(refund)
            late += [told] if when == "late" else []
            if when == "at once":
                lane.applied(told)
    if lane.payment.status == "needs_review":
        provider.resolve()
    amount = data.draw(amounts)
    number = provider.ask(amount)
    told_since = list(late)
    if data.draw(st.booleans(), "the last is made"):
        told_since.append(provider.make(number, amount))
        if data.draw(st.booleans(), "and comes back"):
            told_since.append(provider.send_back(f"re_{len(provider.made)}"))
    given_up = data.draw(st.integers(0, len(told_since)), "is given up after")
    for command in [*told_since[:given_up], RefundResult(refund_id=number, **LOST), *told_since[given_up:]]:
        provider.tick()
        lane.applied(command)
    provider.resolve()
    provider.assert_rows_say_what_is_there()


def test_a_refund_that_no_answer_told_of_comes_back(lane: PaymentLane) -> None:
    """An event told that all went back, and so that it was made; its id at the provider nobody told."""
    lane.captured()
    lane.applied(RefundPayment(id=1))
    lane.applied(event("refunded", captured=AMOUNT, refunded=AMOUNT))
    lane.applied(RefundResult(refund_id=1, **LOST))
    lane.applied(event("refund_failed", refund_id="re_1", refund_number=1, code="expired_or_canceled_card"))
    lane.applied(resolve("captured", AMOUNT))
    refund = lane.refunds[0]
    assert (refund.status, refund.provider_id) == ("failed", "re_1")
    assert refund.reason_code == "expired_or_canceled_card"


def test_a_refund_that_comes_back_before_its_answer_is_known_and_told(lane: PaymentLane) -> None:
    lane.captured()
    lane.applied(RefundPayment(id=1, amount=300), waits=True)
    lane.applied(event("refund_failed", amount=300, refund_id="re_1", refund_number=1, code="lost_or_stolen_card"))
    assert lane.codes_replied == [("refund", "refund_failed")]
    before = (lane.payment, lane.refunds)
    assert (lane.payment.status, lane.payment.pending_action, lane.payment.refund_id) == ("needs_review", None, None)
    lane.applied(RefundResult(id=1, refund_id=1, verdict="refunded", provider_id="re_1", total=300))
    assert (lane.payment, lane.refunds) == before


def test_a_refund_that_was_said_to_have_failed_and_came_back_is_looked_at_once(lane: PaymentLane) -> None:
    """It was made all the same, and so the total that events told has it."""
    lane.captured()
    lane.applied(RefundPayment(id=1, amount=300))
    lane.applied(event("refunded", captured=AMOUNT, refunded=300))
    lane.applied(RefundResult(id=1, refund_id=1, verdict="refund_failed", code="lost_or_stolen_card"))
    back = event("refund_failed", amount=300, refund_id="re_1", refund_number=1, code="lost_or_stolen_card")
    lane.applied(back)
    assert (lane.payment.status, lane.payment.reason_code) == ("needs_review", "refund_returned")
    lane.applied(resolve("captured", AMOUNT))
    before = lane.payment
    lane.applied(back)
    assert lane.payment == before


def test_the_number_of_another_payment_s_refund_is_nobody_s(lane: PaymentLane) -> None:
    lane.captured()
    lane.applied(OpenPayment(user_id=1, amount=AMOUNT, currency="EUR", payment_method="pm_card_visa"))
    lane.applied(AuthorizeResult(id=2, verdict="authorized", provider_id="pi_2"))
    lane.applied(CaptureResult(id=2, verdict="captured", amount=AMOUNT))
    lane.applied(RefundPayment(id=2))
    before = lane.refunds
    lane.applied(event("refund_failed", refund_id="re_1", refund_number=1))
    assert lane.payment.reason_code == "refund_returned"
    assert lane.refunds == before


@pytest.mark.parametrize(("is_signed", "end"), [(False, "succeeded"), (True, "failed")])
def test_a_refund_without_our_mark_is_not_the_one_in_question_whatever_its_amount(
    lane: PaymentLane, is_signed: bool, end: str
) -> None:
    """With the mark and without a number it is of an earlier release, and may be that one, if it is of its amount."""
    lane.captured()
    lane.applied(event("refunded", captured=AMOUNT, refunded=300))
    lane.applied(RefundPayment(id=1, amount=300))
    lane.applied(RefundResult(refund_id=1, **LOST))
    lane.applied(event("refund_failed", amount=300, refund_id="re_d", is_signed=is_signed))
    lane.applied(resolve("captured", AMOUNT, 300))
    assert lane.refunds[0].status == end


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
    call = lane.calls[-1]
    assert isinstance(call, CaptureAtProvider | VoidAtProvider | RefundAtProvider)
    assert (type(call), call.provider_id) == (calls[type(asked)], PROVIDER_ID)


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
    assert lane.codes_replied == [("reverse", "payment_needs_review")]
    lane.applied(resolution)
    assert (lane.payment.status, lane.payment.wanted) == (status, None)
    assert type(lane.calls[-1]) is call
    assert len(lane.codes_replied) == 1


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
        verdict: Literal["refunded", "answer_lost"] = "refunded" if number == 1 else "answer_lost"
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
    assert checked(message, None)[0] == "payments"
    internal = CommandMessage(command_id=None, type=AuthorizeResult.type, arguments=AuthorizeResult(**LOST).arguments())
    with pytest.raises(InvalidCommand, match="is internal"):
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
