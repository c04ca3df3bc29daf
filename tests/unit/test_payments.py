"""The life of a payment: whatever is told, in whatever order and however often, money is where the payment says."""

import itertools
import random
from collections.abc import Callable
from typing import Any, get_args

import msgspec
import pytest

from coordinator.lane.delivery import Delivery, Settlement
from coordinator.lane.lane import Lane
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from shared.commands import Command
from shared.errors import Rejected
from shared.lane_tables import OutboxEntry
from shared.messaging.outcome import Outcome
from shared.messaging.wire import CommandMessage
from shared.payments import SERVICE
from shared.payments.commands import (
    CapturePayment,
    OpenPayment,
    ProviderEvent,
    RefundPayment,
    ReversePayment,
    SettleAction,
)
from shared.payments.model import Payment, PaymentAction, Refund
from shared.payments.states import OLD_NEWS, OVER, TRANSITIONS, Event, State, after
from shared.settings import LaneSettings
from tests.support.store_contract import NOW

CARD = OpenPayment(user_id=1, amount=1000, currency="EUR", payment_method="pm_card_visa")
WAITS = "saga.continue"


class Payments:
    """The payments lane in memory."""

    def __init__(self) -> None:
        self._store = MemoryStore(MemoryDatabase())
        self._lane = Lane(SERVICE, self._store, lambda: NOW, "test", LaneSettings(), lambda: 0.0)
        self._numbers = itertools.count(1)
        self.told: list[dict[str, Any]] = []
        """What those who wait were told."""
        self.calls: list[tuple[str, dict[str, Any]]] = []
        """What the provider is asked for."""

    def do(self, command: Command, continuation: str | None = None) -> Outcome:
        message = CommandMessage(
            command_id=f"00000000-0000-7000-8000-{next(self._numbers):012d}",
            type=command.type,
            arguments=command.arguments(),
            continuation=continuation,
        )
        decision = self._lane.apply([Delivery(tag=1, commands=(message,), reply_to="q")], 0)
        assert isinstance(decision, Settlement), decision
        for entry in decision.emitted:
            self._sort(entry)
        (outcome,) = decision.outcomes
        assert outcome.status != "failed", outcome
        return outcome

    def _sort(self, entry: OutboxEntry) -> None:
        arguments = msgspec.json.decode(entry.arguments)
        if entry.lane == "effects.payments":
            self.calls.append((entry.type.rpartition(".")[2], arguments))
        else:
            assert entry.type == WAITS
            self.told.append(arguments)

    def rows(self, model: Any) -> list[Any]:
        transaction = self._store.begin()
        found = transaction.scan(model, 1000)
        transaction.rollback()
        return found

    @property
    def payment(self) -> Payment:
        (payment,) = self.rows(Payment)
        return payment

    def answers(self, action: str, result: str = "done", **fields: Any) -> SettleAction:
        """What an effect worker tells of the last call."""
        names = {"authorize": "pi_1", "refund": "re_1"}
        if result == "done":
            fields.setdefault("provider_id", names.get(action))
        if action == "refund":
            fields.setdefault("refund_id", self.calls[-1][1]["refund_id"])
        if result != "done":
            fields.setdefault("code", "card_declined")
            fields.setdefault("message", "no")
        return SettleAction(id=1, action=action, result=result, **fields)  # type: ignore[arg-type]

    def authorized(self) -> "Payments":
        self.do(CARD)
        self.do(self.answers("authorize"))
        return self

    def captured(self) -> "Payments":
        self.authorized().do(CapturePayment(id=1))
        self.do(self.answers("capture", amount=1000))
        return self


def code_of(outcome: Outcome) -> str:
    return outcome.status if outcome.error is None else outcome.error.code


def event(name: str, **totals: int) -> ProviderEvent:
    return ProviderEvent(id=1, event=name, provider_id="pi_1", **totals)  # type: ignore[arg-type]


@pytest.mark.parametrize("state", get_args(State))
@pytest.mark.parametrize("said", get_args(Event))
def test_every_event_in_every_state_moves_on_or_is_old_or_is_impossible(state: State, said: Event) -> None:
    if (state, said) in OLD_NEWS:
        assert (state, said) not in TRANSITIONS
        assert after(state, said, 1) == state
    elif (state, said) in TRANSITIONS:
        assert after(state, said, 1) == TRANSITIONS[state, said]
    else:
        with pytest.raises(Rejected, match=f"payment 1 is {state}"):
            after(state, said, 1)


def test_what_is_over_stays_over_but_for_what_the_provider_says_of_money() -> None:
    assert {state for state, _ in TRANSITIONS} & OVER == {"failed"}


def test_a_payment_with_a_card_is_held_taken_and_given_back() -> None:
    payments = Payments()
    payments.do(CARD, WAITS)
    assert payments.calls == [
        ("authorize", {"id": 1, "amount": 1000, "currency": "EUR", "payment_method": "pm_card_visa"})
    ]
    payments.do(payments.answers("authorize"))
    assert (payments.payment.status, payments.payment.provider_id) == ("authorized", "pi_1")
    payments.do(CapturePayment(id=1), WAITS)
    payments.do(payments.answers("capture", amount=1000))
    assert (payments.payment.status, payments.payment.captured) == ("captured", 1000)
    payments.do(RefundPayment(id=1, amount=300), WAITS)
    payments.do(payments.answers("refund", amount=300))
    assert (payments.payment.status, payments.payment.refunded) == ("captured", 300)
    payments.do(RefundPayment(id=1), WAITS)
    assert payments.calls[-1][1]["amount"] == 700
    payments.do(payments.answers("refund", amount=700))
    assert (payments.payment.status, payments.payment.refunded) == ("refunded", 1000)
    assert [refund.status for refund in payments.rows(Refund)] == ["succeeded", "succeeded"]
    assert [told["status"] for told in payments.told] == ["applied"] * 4
    assert payments.rows(PaymentAction) == []


@pytest.mark.parametrize(
    ("result", "state", "told"),
    [
        ("declined", "declined", "payment_declined"),
        ("refused", "failed", "payment_failed"),
        ("failed", "failed", "payment_failed"),
        ("unsure", "needs_review", "payment_needs_review"),
    ],
)
def test_what_is_not_held_says_why_and_tells_whoever_waits(result: str, state: str, told: str) -> None:
    payments = Payments()
    payments.do(CARD, WAITS)
    payments.do(payments.answers("authorize", result))
    assert (payments.payment.status, payments.payment.reason_code) == (state, "card_declined")
    assert [each["error"]["code"] for each in payments.told] == [told]


def test_a_capture_that_fails_leaves_the_money_held_and_may_be_tried_again() -> None:
    payments = Payments().authorized()
    payments.do(CapturePayment(id=1), WAITS)
    payments.do(payments.answers("capture", "failed"))
    assert (payments.payment.status, payments.told[0]["error"]["code"]) == ("authorized", "capture_failed")
    assert payments.do(CapturePayment(id=1)).status == "applied"


@pytest.mark.parametrize("result", ["unsure"])
def test_a_capture_of_which_nobody_knows_needs_a_person_until_the_provider_tells(result: str) -> None:
    payments = Payments().authorized()
    payments.do(CapturePayment(id=1))
    payments.do(payments.answers("capture", result))
    assert payments.payment.status == "needs_review"
    assert code_of(payments.do(ReversePayment(id=1))) == "payment_needs_review"
    payments.do(event("captured", captured=1000))
    assert (payments.payment.status, payments.payment.captured) == ("captured", 1000)


@pytest.mark.parametrize(
    ("prepare", "command"),
    [
        (lambda payments: payments.do(OpenPayment(user_id=1, amount=5, currency="EUR")), CapturePayment(id=1)),
        (lambda payments: payments.authorized(), RefundPayment(id=1)),
        (lambda payments: payments.captured(), CapturePayment(id=1)),
    ],
)
def test_an_impossible_transition_is_rejected_and_recorded(
    prepare: Callable[[Payments], object], command: Command
) -> None:
    payments = Payments()
    prepare(payments)
    before = payments.payment
    outcome = payments.do(command)
    assert (code_of(outcome), payments.payment) == ("impossible_transition", before)
    assert outcome.sequence is not None


def test_one_action_is_under_way_at_a_time() -> None:
    payments = Payments().authorized()
    payments.do(CapturePayment(id=1))
    assert code_of(payments.do(CapturePayment(id=1))) == "action_under_way"
    assert len(payments.calls) == 2


def test_more_than_was_taken_cannot_be_given_back() -> None:
    payments = Payments().captured()
    assert code_of(payments.do(RefundPayment(id=1, amount=1001))) == "refund_too_large"
    assert payments.rows(Refund) == []


@pytest.mark.parametrize("currency", ["XXX", "ABC", "XAU"])
def test_a_currency_that_is_none_is_rejected_by_its_name(currency: str) -> None:
    outcome = Payments().do(OpenPayment(user_id=1, amount=5, currency=currency))
    assert code_of(outcome) == "unknown_currency"
    assert outcome.error is not None
    assert currency in outcome.error.message


@pytest.mark.parametrize("currency", ["JPY", "KWD", "EUR"])
def test_currencies_with_any_number_of_decimals_are_counted_in_minor_units(currency: str) -> None:
    payments = Payments()
    payments.do(OpenPayment(user_id=1, amount=1, currency=currency))
    assert payments.payment.amount == 1


# Reversal: whatever was done.


def test_a_reversal_lets_go_of_what_is_held() -> None:
    payments = Payments().authorized()
    payments.do(ReversePayment(id=1), WAITS)
    assert payments.calls[-1][0] == "void"
    payments.do(payments.answers("void"))
    assert (payments.payment.status, payments.told[0]["status"]) == ("voided", "applied")


def test_a_reversal_gives_back_what_was_taken_but_for_what_went_back_before() -> None:
    payments = Payments().captured()
    payments.do(RefundPayment(id=1, amount=400))
    payments.do(payments.answers("refund", amount=400))
    payments.do(ReversePayment(id=1), WAITS)
    assert payments.calls[-1][1]["amount"] == 600
    payments.do(payments.answers("refund", amount=600))
    assert (payments.payment.status, payments.told[0]["status"]) == ("refunded", "applied")


def test_a_reversal_waits_for_what_is_under_way() -> None:
    payments = Payments()
    payments.do(CARD)
    payments.do(ReversePayment(id=1), WAITS)
    assert payments.told == []
    payments.do(payments.answers("authorize"))
    assert [name for name, _ in payments.calls] == ["authorize", "void"]
    payments.do(payments.answers("void"))
    assert (payments.payment.status, payments.told[0]["status"]) == ("voided", "applied")


def test_a_reversal_that_waits_has_nothing_to_do_after_a_decline() -> None:
    payments = Payments()
    payments.do(CARD)
    payments.do(ReversePayment(id=1), WAITS)
    payments.do(payments.answers("authorize", "declined"))
    assert (payments.payment.status, payments.told[0]["status"], len(payments.calls)) == ("declined", "applied", 1)


def test_a_reversal_of_what_is_over_is_applied_at_once() -> None:
    payments = Payments()
    payments.do(CARD)
    payments.do(payments.answers("authorize", "declined"))
    assert payments.do(ReversePayment(id=1), WAITS).status == "applied"
    assert [told["status"] for told in payments.told] == ["applied"]


def test_what_was_to_be_let_go_and_is_taken_already_is_given_back() -> None:
    payments = Payments().authorized()
    payments.do(ReversePayment(id=1), WAITS)
    payments.do(payments.answers("void", "refused", provider_status="succeeded"))
    assert (payments.payment.status, payments.calls[-1][0], payments.told) == ("captured", "refund", [])
    payments.do(payments.answers("refund", amount=1000))
    assert (payments.payment.status, payments.told[0]["status"]) == ("refunded", "applied")


# The provider's own word.


@pytest.mark.parametrize("order", list(itertools.permutations(["worker", "event", "event"])))
def test_an_authorization_that_is_told_several_times_in_any_order_is_one(order: tuple[str, ...]) -> None:
    payments = Payments()
    payments.do(CARD, WAITS)
    for who in order:
        payments.do(payments.answers("authorize") if who == "worker" else event("authorized"))
    assert (payments.payment.status, payments.payment.provider_id) == ("authorized", "pi_1")
    assert [told["status"] for told in payments.told] == ["applied"]
    assert payments.rows(PaymentAction) == []


def test_events_that_come_late_change_nothing() -> None:
    payments = Payments().captured()
    before = payments.payment
    for said in (event("authorized"), event("captured", captured=1000)):
        assert payments.do(said).status == "applied"
    assert payments.payment == before


def test_a_capture_is_known_from_whoever_tells_it_first() -> None:
    payments = Payments().authorized()
    payments.do(CapturePayment(id=1), WAITS)
    payments.do(event("captured", captured=1000))
    assert (payments.payment.status, len(payments.told)) == ("captured", 1)
    payments.do(payments.answers("capture", "unsure"))
    assert (payments.payment.status, len(payments.told)) == ("captured", 1)


def test_an_event_of_another_payment_at_the_provider_is_refused() -> None:
    payments = Payments().authorized()
    foreign = ProviderEvent(id=1, event="captured", provider_id="pi_2", captured=1000)
    assert code_of(payments.do(foreign)) == "impossible_transition"
    assert code_of(payments.do(ProviderEvent(id=9, event="captured", provider_id="pi_1"))) == "payment_not_found"


def test_what_is_given_back_by_hand_at_the_provider_is_noted() -> None:
    payments = Payments().captured()
    payments.do(event("refunded", captured=1000, refunded=250))
    payments.do(event("refunded", captured=1000, refunded=250))
    assert (payments.payment.status, payments.payment.refunded) == ("captured", 250)
    assert code_of(payments.do(RefundPayment(id=1, amount=800))) == "refund_too_large"


def test_a_refund_that_the_provider_tells_first_is_counted_once() -> None:
    payments = Payments().captured()
    payments.do(RefundPayment(id=1, amount=400), WAITS)
    answer = payments.answers("refund", amount=400)
    payments.do(event("refunded", captured=1000, refunded=400))
    payments.do(answer)
    assert (payments.payment.refunded, len(payments.told)) == (400, 1)
    assert [refund.status for refund in payments.rows(Refund)] == ["succeeded"]


@pytest.mark.parametrize("seed", range(300))
def test_random_histories_never_take_more_than_is_held_nor_give_back_more_than_was_taken(seed: int) -> None:
    chance = random.Random(seed)
    payments = Payments()
    payments.do(CARD, WAITS)
    asked, waiting = 1, 1
    for _ in range(25):
        kind = chance.random()
        if kind < 0.35:
            command: Command = chance.choice(
                [CapturePayment(id=1), ReversePayment(id=1), RefundPayment(id=1, amount=chance.randint(1, 1200))]
            )
            asked += 1
            waiting += payments.do(command, WAITS) is not None
        elif kind < 0.75:
            name, arguments = chance.choice(payments.calls)
            result = chance.choice(["done", "done", "failed", "refused", "unsure", "declined"])
            if result == "declined" and name != "authorize":
                result = "refused"
            fields = {"refund_id": arguments["refund_id"]} if name == "refund" else {}
            payments.do(payments.answers(name, result, **fields))
        else:
            said = chance.choice(["authorized", "declined", "captured", "voided", "refunded"])
            refunded = chance.randint(0, 1000) if said == "refunded" else 0
            payments.do(event(said, captured=1000 if said in ("captured", "refunded") else 0, refunded=refunded))
        payment = payments.payment
        assert 0 <= payment.refunded <= payment.captured <= payment.amount
        assert (payment.status == "refunded") <= (payment.refunded == payment.captured > 0)
        assert (payment.status in ("captured", "refunded")) <= (payment.captured > 0)
        assert len(payments.rows(PaymentAction)) <= 1
    under_way = payments.rows(PaymentAction)
    still = sum((action.waiting is not None) + (action.waiting_for_reversal is not None) for action in under_way)
    assert len(payments.told) + still == waiting
    assert len({told["command_id"] for told in payments.told}) == len(payments.told)
