"""Answers and events of the provider, delivered late, again and in any order: the payment ends in the same state."""

import itertools

import pytest

from coordinator.service.commands import Command
from shared.payments.commands import CapturePayment, OpenPayment, RefundPayment, ResolvePayment, ReversePayment
from shared.payments.effects import CaptureAtProvider
from shared.payments.model import Payment
from shared.payments.results import AuthorizeResult, CaptureResult, RefundResult, VoidResult
from tests.support.payment_lane import AMOUNT, PROVIDER_ID, PaymentLane, event

AUTHORIZED = AuthorizeResult(id=1, verdict="authorized", provider_id=PROVIDER_ID)
CAPTURED = CaptureResult(id=1, verdict="captured", amount=AMOUNT)
HELD = event("authorized")
TAKEN = event("captured", captured=AMOUNT)
# At Stripe, to let go of a hold is a refund too, of a charge of which nothing was captured.
LET_GO = event("refunded", refunded=AMOUNT)


# Of a refund that somebody made in the provider's dashboard.
CAME_BACK = event("refund_failed", amount=300, refund_id="re_9", is_signed=False, code="lost_or_stolen_card")


def refunded(total: int, created_s: int | None = None) -> Command:
    return event("refunded", captured=AMOUNT, refunded=total, created_s=created_s)


def asked(*commands: Command, of: str) -> PaymentLane:
    lane = PaymentLane()
    getattr(lane, of)()
    for command in commands:
        lane.applied(command, waits=True)
    return lane


# What is asked, what the provider tells, and: state, captured, refunded, what is under way.
CASES: dict[str, tuple[str, tuple[Command, ...], tuple[Command, ...], tuple[str, int, int, str | None]]] = {
    "a hold": ("opened", (), (AUTHORIZED, HELD), ("authorized", 0, 0, None)),
    "a hold whose answer is lost": (
        "opened",
        (),
        (AuthorizeResult(id=1, verdict="answer_lost"), HELD),
        ("authorized", 0, 0, None),
    ),
    "a decline": (
        "opened",
        (),
        (
            AuthorizeResult(id=1, verdict="declined", code="card_declined", message="no"),
            event("declined", code="card_declined"),
        ),
        ("declined", 0, 0, None),
    ),
    "a decline whose answer is lost": (
        "opened",
        (),
        (AuthorizeResult(id=1, verdict="answer_lost"), event("declined", code="card_declined")),
        ("declined", 0, 0, None),
    ),
    "a whole life that events tell before the first answer": (
        "opened",
        (),
        (AUTHORIZED, HELD, TAKEN, refunded(300), refunded(AMOUNT)),
        ("refunded", AMOUNT, AMOUNT, None),
    ),
    "a capture": ("authorized", (CapturePayment(id=1),), (CAPTURED, TAKEN, HELD), ("captured", AMOUNT, 0, None)),
    "a capture whose answer is lost": (
        "authorized",
        (CapturePayment(id=1),),
        (CaptureResult(id=1, verdict="answer_lost"), TAKEN, HELD),
        ("captured", AMOUNT, 0, None),
    ),
    "a capture of which somebody else took a part": (
        "authorized",
        (CapturePayment(id=1),),
        (CaptureResult(id=1, verdict="captured", amount=300), event("captured", captured=300), HELD),
        ("captured", 300, 0, None),
    ),
    "a capture of a part whose answer is lost": (
        "authorized",
        (CapturePayment(id=1),),
        (
            CaptureResult(id=1, verdict="answer_lost"),
            event("captured", captured=300),
            event("refunded", captured=300, refunded=100),
        ),
        ("captured", 300, 100, None),
    ),
    "a reversal that waits for the capture of a part": (
        "authorized",
        (CapturePayment(id=1), ReversePayment(id=1)),
        (CaptureResult(id=1, verdict="captured", amount=300), event("captured", captured=300)),
        ("captured", 300, 0, "refund"),
    ),
    "a hold that ended before the capture": (
        "authorized",
        (CapturePayment(id=1),),
        (CaptureResult(id=1, verdict="voided"), event("voided"), LET_GO, HELD),
        ("voided", 0, 0, None),
    ),
    "a reversal of what is held": (
        "authorized",
        (ReversePayment(id=1),),
        (VoidResult(id=1, verdict="voided"), event("voided"), LET_GO, HELD),
        ("voided", 0, 0, None),
    ),
    "a reversal of what is held, whose answer is lost": (
        "authorized",
        (ReversePayment(id=1),),
        (VoidResult(id=1, verdict="answer_lost"), event("voided"), LET_GO),
        ("voided", 0, 0, None),
    ),
    "a reversal that waits for the hold": (
        "opened",
        (ReversePayment(id=1),),
        (AUTHORIZED, HELD),
        ("authorized", 0, 0, "void"),
    ),
    "a reversal that waits for a hold whose answer is lost": (
        "opened",
        (ReversePayment(id=1),),
        (AuthorizeResult(id=1, verdict="answer_lost"), HELD),
        ("authorized", 0, 0, "void"),
    ),
    "a capture that was faster than the reversal": (
        "authorized",
        (ReversePayment(id=1),),
        (VoidResult(id=1, verdict="captured", amount=AMOUNT), TAKEN),
        ("captured", AMOUNT, 0, "refund"),
    ),
    "a reversal that waits for the capture": (
        "authorized",
        (CapturePayment(id=1), ReversePayment(id=1)),
        (CAPTURED, TAKEN),
        ("captured", AMOUNT, 0, "refund"),
    ),
    "a refund of a part": (
        "captured",
        (RefundPayment(id=1, amount=300),),
        (RefundResult(id=1, refund_id=1, verdict="refunded", provider_id="re_1", total=300), refunded(300), TAKEN),
        ("captured", AMOUNT, 300, None),
    ),
    "a refund of a part, and one that somebody else made": (
        "captured",
        (RefundPayment(id=1, amount=300),),
        (
            RefundResult(id=1, refund_id=1, verdict="refunded", provider_id="re_1", total=300),
            refunded(200),
            refunded(500),
        ),
        ("captured", AMOUNT, 500, None),
    ),
    "a refund whose answer is lost": (
        "captured",
        (RefundPayment(id=1),),
        (RefundResult(id=1, refund_id=1, verdict="answer_lost"), refunded(AMOUNT), TAKEN),
        ("refunded", AMOUNT, AMOUNT, None),
    ),
    "a refund that comes back": (
        "captured",
        (RefundPayment(id=1),),
        (
            RefundResult(id=1, refund_id=1, verdict="refunded", provider_id="re_1", total=300),
            refunded(AMOUNT),
            event("refund_failed", refund_id="re_1", code="expired_or_canceled_card"),
        ),
        ("needs_review", AMOUNT, AMOUNT, None),
    ),
    "a refund that comes back, with totals of before and after that": (
        "captured",
        (RefundPayment(id=1, amount=500),),
        (
            RefundResult(id=1, refund_id=1, verdict="refunded", provider_id="re_1", total=500),
            refunded(500, created_s=1_700_000_001),
            event("refund_failed", refund_id="re_1", code="expired_or_canceled_card", created_s=1_700_000_003),
            refunded(200, created_s=1_700_000_004),
        ),
        # What is given back in truth an operator says: until then it is the most that it was.
        ("needs_review", AMOUNT, 500, None),
    ),
    "what others took and gave back, and a bank sent back": (
        "authorized",
        (),
        (HELD, TAKEN, refunded(300), CAME_BACK),
        ("needs_review", AMOUNT, 300, None),
    ),
    "all that others took, gave back and got back before the first answer": (
        "opened",
        (),
        (AUTHORIZED, TAKEN, refunded(AMOUNT), event("refund_failed", amount=300, refund_id="re_9")),
        ("needs_review", AMOUNT, AMOUNT, None),
    ),
    "a capture whose answer is lost, of what others gave back and got back": (
        "authorized",
        (CapturePayment(id=1),),
        (CaptureResult(id=1, verdict="answer_lost"), TAKEN, refunded(300), CAME_BACK),
        ("needs_review", AMOUNT, 300, None),
    ),
    "a capture of a part of which others got back a part": (
        "authorized",
        (CapturePayment(id=1),),
        (
            CaptureResult(id=1, verdict="captured", amount=500),
            event("captured", captured=500),
            event("refunded", captured=500, refunded=300),
            CAME_BACK,
        ),
        ("needs_review", 500, 300, None),
    ),
    "a part that is captured and given back before the answer": (
        "authorized",
        (CapturePayment(id=1),),
        (
            event("captured", captured=300, created_s=1_700_000_001),
            event("refunded", captured=300, refunded=300, created_s=1_700_000_002),
            CaptureResult(id=1, verdict="captured", amount=300),
        ),
        ("refunded", 300, 300, None),
    ),
}


def shown(payment: Payment) -> tuple[str, int, int, str | None]:
    return payment.status, payment.captured, payment.refunded, payment.pending_action


@pytest.mark.parametrize("name", CASES)
def test_in_every_order_the_payment_ends_in_the_same_state(name: str) -> None:
    state, requests, messages, expected = CASES[name]
    ends = set()
    for order in itertools.permutations(enumerate(messages)):
        lane = asked(*requests, of=state)
        for number, message in order:
            # Twice as the same command, and once more as another one of the same content.
            for command_number in (100 + number, 100 + number, 200 + number):
                assert lane.do(message, number=command_number).status in {"applied", "rejected"}
        payment = lane.payment
        assert shown(payment) == expected, [type(each).__name__ for _, each in order]
        ends.add((payment.provider_id if payment.status != "declined" else None, payment.reason_code))
        calls = [type(call).__name__ for call in lane.calls]
        assert len(calls) == len(set(calls)), "the provider is asked for everything once"
        assert all(waiter.action is None or payment.pending_action for waiter in lane.waiters)
    assert len(ends) == 1


@pytest.mark.parametrize("name", CASES)
def test_what_is_known_already_changes_nothing(name: str) -> None:
    state, requests, messages, _ = CASES[name]
    lane = asked(*requests, of=state)
    for message in messages:
        lane.do(message)
    before = lane.payment
    for message in messages * 2:
        lane.do(message)
    assert lane.payment == before


@pytest.mark.parametrize(
    ("state", "requests", "told", "denial", "wanted"),
    [
        ("opened", (), "open", AuthorizeResult(id=1, verdict="authorize_failed"), None),
        ("authorized", (CapturePayment(id=1),), "capture", CaptureResult(id=1, verdict="capture_failed"), None),
        ("authorized", (ReversePayment(id=1),), "reverse", VoidResult(id=1, verdict="void_failed"), "reverse"),
    ],
)
def test_a_refund_that_came_back_ends_what_is_under_way_since_the_amount_was_taken(
    state: str, requests: tuple[Command, ...], told: str, denial: Command, wanted: str | None
) -> None:
    """Whoever waits is told of the review, and the call's denial is old news. A reversal is done after the review."""
    lane = asked(*requests, of=state)
    lane.applied(event("refund_failed", amount=300, refund_id="re_9"))
    payment = lane.payment
    assert (payment.status, payment.reason_code, payment.pending_action) == ("needs_review", "refund_returned", None)
    assert (payment.provider_id, payment.wanted, lane.waiters) == (PROVIDER_ID, wanted, [])
    assert lane.codes_replied == [(told, "payment_needs_review")]
    lane.applied(denial)
    assert lane.payment == payment
    lane.applied(ResolvePayment(id=1, status="captured", reason="seen", captured=AMOUNT))
    assert (lane.payment.status, lane.payment.captured, lane.payment.reason) == ("captured", AMOUNT, "seen")
    assert lane.payment.pending_action == ("refund" if wanted else None)


FOREIGN = "pi_of_another_system"


def test_another_system_s_event_with_our_number_and_amount_does_not_bind_our_payment() -> None:
    lane = asked(of="opened")
    for kind in ("authorized", "captured", "voided", "declined"):
        captured = AMOUNT if kind == "captured" else 0
        told = event(kind, captured=captured, provider_id=FOREIGN, is_signed=False)
        assert lane.refusal(told)[0] == "not_ours"
    lane.applied(AUTHORIZED)
    lane.applied(CapturePayment(id=1))
    call = lane.calls[-1]
    assert isinstance(call, CaptureAtProvider)
    assert (lane.payment.provider_id, call.provider_id) == (PROVIDER_ID, PROVIDER_ID)


def test_an_event_without_our_mark_counts_for_a_payment_that_is_known_to_be_this_one() -> None:
    """As of those that an earlier release made."""
    lane = asked(of="authorized")
    assert lane.refusal(event("captured", captured=AMOUNT, provider_id=FOREIGN, is_signed=False))[0] == "other_payment"
    lane.applied(event("captured", captured=AMOUNT, is_signed=False))
    assert lane.payment.captured == AMOUNT


def test_no_event_is_about_a_payment_that_was_never_sent_to_the_provider() -> None:
    lane = PaymentLane()
    lane.applied(OpenPayment(user_id=1, amount=AMOUNT, currency="EUR"))
    for told in (TAKEN, HELD, AUTHORIZED):
        assert lane.refusal(told)[0] == "other_payment"
    assert (lane.payment.status, lane.payment.captured) == ("pending", 0)
