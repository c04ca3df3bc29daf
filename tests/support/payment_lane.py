"""The payments lane on a store in memory, and what it emits: calls to the provider, and continuations."""

import itertools
from typing import Any

import msgspec
from msgspec import Struct

from coordinator.service.commands import Command
from coordinator.service.continuation import Continuation
from coordinator.service.outcome import Outcome
from coordinator.service.outside_calls import Effect
from coordinator.service.rows import Row
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from shared.payments import SERVICE
from shared.payments.commands import CapturePayment, OpenPayment
from shared.payments.effects import AuthorizeAtProvider, CaptureAtProvider, RefundAtProvider, VoidAtProvider
from shared.payments.model import Payment, Refund, Waiters
from shared.payments.results import AuthorizeResult, CaptureResult, Kind, TakeProviderEvent
from tests.support.lane_contract import LaneUnderTest, delivery

AMOUNT = 1000
PROVIDER_ID = "pi_1"
EFFECTS: dict[str, type[Effect]] = {
    effect.type: effect for effect in (AuthorizeAtProvider, CaptureAtProvider, VoidAtProvider, RefundAtProvider)
}
REPLIED = "shop.replied"


class Reply(Struct, frozen=True):
    """What came to whoever waited for a command: `code` is `applied`, or why not; `message` says more of that."""

    command: str
    code: str
    result: Any
    message: str = ""
    command_id: str = ""


class PaymentLane:
    """One payment, the first, unless told otherwise."""

    def __init__(self) -> None:
        self.database = MemoryDatabase()
        self.lane = LaneUnderTest(MemoryStore(self.database), service=SERVICE)
        self.calls: list[Effect] = []
        self.replies: list[Reply] = []
        self.reviews: list[Row] = []
        """What settlements say that a person has to look at."""
        self._numbers = itertools.count(1)

    def do(self, command: Command, *, number: int | None = None, waits: bool = False) -> Outcome:
        """Apply one; `number` is its id's, to have it applied again."""
        number = next(self._numbers) if number is None else number
        settlement = self.lane.settle(delivery(number, command, continuation=REPLIED if waits else None))
        self.reviews += settlement.reviews
        for entry in settlement.emitted:
            if entry.lane == "effects.payments":
                self.calls.append(msgspec.json.decode(entry.arguments, type=EFFECTS[entry.type]))
            else:
                told = msgspec.json.decode(entry.arguments, type=Continuation)
                code = told.status if told.error is None else told.error.code
                message = "" if told.error is None else told.error.message
                result = msgspec.json.decode(told.result)
                self.replies.append(Reply(told.command_type, code, result, message, told.command_id))
        return settlement.outcomes[0]

    def applied(self, command: Command, *, waits: bool = False) -> None:
        outcome = self.do(command, waits=waits)
        assert outcome.status == "applied", outcome.error

    def refusal(self, command: Command) -> tuple[str, str]:
        """The code and the text with which it is rejected."""
        outcome = self.do(command)
        assert outcome.status == "rejected", outcome
        assert outcome.error is not None
        return outcome.error.code, outcome.error.message

    @property
    def payment(self) -> Payment:
        payment: Payment = self.lane.rows(Payment)[0]
        return payment

    @property
    def refunds(self) -> list[Refund]:
        return self.lane.rows(Refund)

    @property
    def waiters(self) -> list[Waiters]:
        return self.lane.rows(Waiters)

    @property
    def codes_replied(self) -> list[tuple[str, str]]:
        """Of which command, and what came of it."""
        return [(told.command.removeprefix("payments."), told.code) for told in self.replies]

    def opened(self, *, waits: bool = True) -> None:
        self.applied(OpenPayment(user_id=1, amount=AMOUNT, currency="EUR", payment_method="pm_card_visa"), waits=waits)

    def authorized(self) -> None:
        self.opened(waits=False)
        self.applied(AuthorizeResult(id=1, verdict="authorized", provider_id=PROVIDER_ID))

    def captured(self) -> None:
        self.authorized()
        self.applied(CapturePayment(id=1))
        self.applied(CaptureResult(id=1, verdict="captured", amount=AMOUNT))


def event(kind: Kind, *, captured: int = 0, refunded: int = 0, **changed: Any) -> TakeProviderEvent:
    """An event of the first payment's."""
    parts: dict[str, Any] = {
        "event_id": "evt_1",
        "kind": kind,
        "id": 1,
        "provider_id": PROVIDER_ID,
        "is_signed": True,
        "currency": "EUR",
        "amount": AMOUNT,
        "amount_captured": captured,
        "amount_refunded": refunded,
    }
    return TakeProviderEvent(**(parts | changed))
