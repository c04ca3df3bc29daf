"""What happens to a payment at the provider, by us and by others, told in every order: it ends as it is there.

The histories are those that can be: what was taken was held, what was given back was taken, and what came back was
given back. The answers to our calls are true, or lost.
"""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from coordinator.service.commands import Command
from shared.payments.commands import CapturePayment, RefundPayment, ReversePayment
from shared.payments.effects import PROVIDER_UNAVAILABLE
from shared.payments.results import AuthorizeResult, CaptureResult, RefundResult, TakeProviderEvent, VoidResult
from tests.support.examples import examples
from tests.support.payment_lane import AMOUNT, PROVIDER_ID, PaymentLane, event

PART = 600
OURS = 300
HELD = AuthorizeResult(id=1, verdict="authorized", provider_id=PROVIDER_ID)
CAPTURE, REVERSE, REFUND = CapturePayment(id=1), ReversePayment(id=1), RefundPayment(id=1, amount=OURS)
# In which state the payment is asked for what, and which calls are under way then.
ASKED: dict[str, tuple[str, tuple[Command, ...]]] = {
    "hold": ("opened", ()),
    "hold, then reverse": ("opened", (REVERSE,)),
    "nothing": ("authorized", ()),
    "capture": ("authorized", (CAPTURE,)),
    "void": ("authorized", (REVERSE,)),
    "capture, then reverse": ("authorized", (CAPTURE, REVERSE)),
    "refund": ("captured", (REFUND,)),
}


class Given(Struct):
    """A refund. `number` is ours of it; None: somebody made it in the provider's dashboard."""

    number: int | None
    amount: int
    comes_back: bool


class History(Struct, kw_only=True):
    """What happens at the provider, from the hold on, and what of it our calls are told."""

    asked: str
    captured: int
    is_voided: bool
    refunds: list[Given]
    is_lost: bool

    @property
    def totals(self) -> list[int]:
        """What is given back after each refund; a refund that comes back does so at the end."""
        return [sum(each.amount for each in self.refunds[: number + 1]) for number in range(len(self.refunds))]

    @property
    def end(self) -> tuple[str, int, int, str | None]:
        """The state, what is captured and refunded, and the code of the reason."""
        refunded = max(self.totals, default=0)
        state, code = self._state(refunded), None
        if state == "needs_review":
            code = "refund_returned" if any(each.comes_back for each in self.refunds) else "answer_lost"
        return state, self.captured, refunded, code

    def _state(self, refunded: int) -> str:
        if any(each.comes_back for each in self.refunds):
            return "needs_review"
        if self.is_voided:
            return "voided"
        if 0 < self.captured == refunded:
            return "refunded"
        if self.captured:
            return "needs_review" if self.asked == "refund" and self.is_lost else "captured"
        return "needs_review" if self.asked in {"capture", "void", "capture, then reverse"} else "authorized"

    def told(self) -> Iterator[Command]:
        """All events, and the answer to the call that is under way."""
        yield event("authorized")
        if self.is_voided:
            yield event("voided")
            yield event("refunded", refunded=AMOUNT)
        if self.captured:
            yield event("captured", captured=self.captured)
        for number, (each, total) in enumerate(zip(self.refunds, self.totals, strict=True)):
            yield event("refunded", captured=self.captured, refunded=total)
            if each.comes_back:
                yield event(
                    "refund_failed",
                    amount=each.amount,
                    refund_id=f"re_{number}",
                    refund_number=each.number,
                    is_signed=each.number is not None,
                    code="expired_or_canceled_card",
                )
        yield from self._answer()

    def _answer(self) -> Iterator[Command]:
        match self.asked.partition(",")[0]:
            case "hold":
                yield AuthorizeResult(id=1, verdict="answer_lost", code="answer_lost") if self.is_lost else HELD
            case "capture":
                yield self._capture_result()
            case "void":
                yield self._void_result()
            case "refund":
                yield self._refund_result()

    def _capture_result(self) -> CaptureResult:
        if not self.is_lost and self.captured:
            return CaptureResult(id=1, verdict="captured", amount=self.captured)
        if not self.is_lost and self.is_voided:
            return CaptureResult(id=1, verdict="voided", code="canceled")
        return CaptureResult(id=1, verdict="answer_lost", code="answer_lost")

    def _void_result(self) -> VoidResult:
        if not self.is_lost and self.captured:
            return VoidResult(id=1, verdict="captured", amount=self.captured)
        if not self.is_lost and self.is_voided:
            return VoidResult(id=1, verdict="voided")
        return VoidResult(id=1, verdict="answer_lost", code="answer_lost")

    def _refund_result(self) -> RefundResult:
        if self.is_lost:
            return RefundResult(id=1, refund_id=1, verdict="answer_lost", code="answer_lost")
        for number, (each, total) in enumerate(zip(self.refunds, self.totals, strict=True)):
            if each.number is not None:
                return RefundResult(id=1, refund_id=1, verdict="refunded", provider_id=f"re_{number}", total=total)
        return RefundResult(id=1, refund_id=1, verdict="refund_failed", code=PROVIDER_UNAVAILABLE)


@st.composite
def histories(draw: st.DrawFn) -> History:
    asked = draw(st.sampled_from(sorted(ASKED)))
    captured = AMOUNT if asked == "refund" else draw(st.sampled_from([0, PART, AMOUNT, AMOUNT]))
    amounts = draw(st.lists(st.sampled_from([100, 200, 300, PART, AMOUNT]), max_size=3))
    refunds = [Given(None, amount, draw(st.booleans())) for amount in amounts]
    if asked == "refund" and draw(st.booleans()):
        refunds.insert(draw(st.integers(0, len(refunds))), Given(1, OURS, draw(st.booleans())))
    while sum(each.amount for each in refunds) > captured:
        refunds.pop()
    return History(
        asked=asked,
        captured=captured,
        is_voided=captured == 0 and draw(st.booleans()),
        refunds=refunds,
        is_lost=draw(st.booleans()),
    )


def take(lane: PaymentLane, message: Command) -> bool:
    """False: the gateway has Stripe send it again, since nothing tells yet whose it is."""
    if isinstance(message, TakeProviderEvent) and not message.is_signed and lane.payment.provider_id is None:
        return False
    assert lane.do(message).status == "applied"
    return True


@pytest.mark.properties
@examples(400)
@given(st.data())
def test_in_whatever_order_it_is_told_the_payment_ends_as_it_is_at_the_provider(data: st.DataObject) -> None:
    history = data.draw(histories())
    begun, requests = ASKED[history.asked]
    lane = PaymentLane()
    getattr(lane, begun)()
    for request in requests:
        lane.applied(request, waits=True)
    told = list(history.told())
    order = data.draw(st.permutations(told + data.draw(st.lists(st.sampled_from(told), max_size=2))))
    for message in [message for message in order if not take(lane, message)]:
        assert take(lane, message)
    payment = lane.payment
    assert (payment.status, payment.captured, payment.refunded, payment.reason_code) == history.end
    assert all(waiter.action is None or payment.pending_action for waiter in lane.waiters)
    # Of a void whose answer is lost, whoever asked for it is told so, and asks again after the review.
    is_reversed = "reverse" in history.asked or (history.asked == "void" and not history.is_lost)
    if is_reversed and payment.captured > payment.refunded:
        assert payment.pending_action == "refund" or payment.wanted == "reverse", "it is still to be given back"
