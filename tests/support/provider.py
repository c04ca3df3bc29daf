"""A payment provider in memory, for the tests: it keeps account of what it holds, took and gave back."""

import random
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from coordinator.service.outside_calls import EffectRetry
from shared.payments.provider import Authorized, Captured, Declined, Refunded, Refused, Voided

Answer = TypeVar("Answer", bound=Struct)


class Held(Struct):
    """One payment at the provider."""

    payment_id: int
    amount: int
    status: str = "requires_capture"
    captured: int = 0
    refunds: dict[str, Refunded] = {}

    @property
    def refunded(self) -> int:
        """All that was given back."""
        return sum(refund.amount for refund in self.refunds.values())


class FakeProvider:
    """Implements `PaymentProvider`. `fault_rate` of the calls fail, half of them after the deed; 2.0: all before it."""

    def __init__(self, fault_rate: float = 0.0, seed: int = 0) -> None:
        self.payments: dict[str, Held] = {}
        self._answers: dict[str, Any] = {}
        self._made: dict[str, Authorized] = {}
        self.fault_rate = fault_rate
        self.deaf_to: set[str] = set()
        """The actions that get no answer; nor does who asks what became of them."""
        self.failures = 0
        self._chance = random.Random(seed)

    async def authorize(
        self,
        *,
        payment_id: int,
        amount: int,
        currency: str,
        payment_method: str,
        key: str,
        asked_at: datetime,
        is_repeated: bool,
        traceparent: str | None = None,
    ) -> Authorized | Declined | Refused:
        del currency, asked_at
        if is_repeated and key in self._made:
            return msgspec.structs.replace(self._made[key])

        def deed() -> Authorized | Declined:
            if payment_method != "pm_card_visa":
                return Declined(code="card_declined", message="the card was declined")
            provider_id = f"pi_{len(self.payments) + 1}"
            self.payments[provider_id] = Held(payment_id, amount)
            self._made[key] = Authorized(provider_id=provider_id)
            return self._made[key]

        return self._once("authorize", key, deed)

    async def capture(
        self, *, payment_id: int, provider_id: str, amount: int, currency: str, key: str
    ) -> Captured | Refused:
        del payment_id, currency
        held = self.payments[provider_id]

        def deed() -> Captured | Refused:
            if held.status == "succeeded":
                return Captured(amount=held.captured)
            if held.status != "requires_capture":
                return Refused(code="payment_intent_unexpected_state", message=held.status, status=held.status)
            held.status, held.captured = "succeeded", amount
            return Captured(amount=amount)

        return self._once("capture", key, deed)

    async def void(self, *, payment_id: int, provider_id: str, key: str) -> Voided | Captured | Refused:
        del payment_id
        held = self.payments[provider_id]

        def deed() -> Voided | Captured:
            if held.status == "succeeded":
                return Captured(amount=held.captured)
            held.status = "canceled"
            return Voided()

        return self._once("void", key, deed)

    async def refund(
        self,
        *,
        payment_id: int,
        refund_id: int,
        provider_id: str,
        amount: int,
        currency: str,
        key: str,
        asked_at: datetime,
        is_repeated: bool,
        traceparent: str | None = None,
    ) -> Refunded | Refused:
        del currency, payment_id, refund_id, asked_at, is_repeated
        held = self.payments[provider_id]

        def deed() -> Refunded | Refused:
            if key in held.refunds:
                return held.refunds[key]
            if held.refunded + amount > held.captured:
                return Refused(code="amount_too_large", message="more than was taken")
            held.refunds[key] = Refunded(refund_id=f"re_{key}", amount=amount, total=held.refunded + amount)
            return held.refunds[key]

        return self._once("refund", key, deed)

    async def look_up_authorization(
        self, *, payment_id: int, amount: int, currency: str, key: str, asked_at: datetime
    ) -> Authorized | Declined | Refused | None:
        del payment_id, amount, currency, asked_at
        self._fail("authorize")
        return self._made.get(key)

    async def look_up_capture(self, *, payment_id: int, provider_id: str) -> Captured | Refused | None:
        del payment_id
        self._fail("capture")
        held = self.payments[provider_id]
        if held.status == "canceled":
            return Refused(code="payment_intent_unexpected_state", message=held.status, status=held.status)
        return Captured(amount=held.captured) if held.status == "succeeded" else None

    async def look_up_void(self, *, payment_id: int, provider_id: str) -> Voided | Captured | None:
        del payment_id
        self._fail("void")
        held = self.payments[provider_id]
        if held.status == "succeeded":
            return Captured(amount=held.captured)
        return Voided() if held.status == "canceled" else None

    async def look_up_refund(
        self, *, payment_id: int, refund_id: int, provider_id: str, key: str
    ) -> Refunded | Refused | None:
        del payment_id, refund_id
        self._fail("refund")
        return self.payments[provider_id].refunds.get(key)

    def forget(self) -> None:
        """The idempotency keys, as after a day."""
        self._answers.clear()

    async def close(self) -> None:
        return None

    @property
    def kept(self) -> int:
        """What was taken and not given back."""
        return sum(held.captured - held.refunded for held in self.payments.values())

    @property
    def is_holding(self) -> bool:
        return any(held.status == "requires_capture" for held in self.payments.values())

    def _fail(self, action: str) -> None:
        if action in self.deaf_to or self._chance.random() < self.fault_rate / 2:
            self.failures += 1
            raise EffectRetry("503", after_s=0.0, may_have_happened=True)

    def _once(self, action: str, key: str, deed: Callable[[], Answer]) -> Answer:
        self._fail(action)
        if key not in self._answers:
            self._answers[key] = deed()
        answer: Answer = msgspec.structs.replace(self._answers[key])
        if self._chance.random() < self.fault_rate / 2:
            self.failures += 1
            raise EffectRetry("the answer was lost", after_s=0.0, may_have_happened=True)
        return answer
