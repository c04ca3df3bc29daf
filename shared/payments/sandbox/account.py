"""The operations on payments: the states of a PaymentIntent with manual capture, and of its refunds.

https://docs.stripe.com/payments/paymentintents/lifecycle. Each method makes its changes in the caller's transaction, or
raises ApiError and makes none.
"""

import re
import secrets
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from shared.payments.sandbox import cards
from shared.payments.sandbox.errors import invalid_request, wrong_state
from shared.payments.sandbox.objects import (
    CallForm,
    Intent,
    SandboxRefund,
    missing,
    shown_charge,
    shown_intent,
    shown_list,
    shown_refund,
)
from shared.payments.sandbox.store import SandboxStore
from shared.payments.stripe_amounts import AmountNotChargeable, from_stripe, to_stripe

_AMOUNT_MAX: Final = 99_999_999
_PAGE_MAX: Final = 100
_QUERY: Final = re.compile(r"metadata\['(\w+)'\]:'([^']*)'")

_Thing = TypeVar("_Thing", Intent, SandboxRefund)

Emit = Callable[[str, dict[str, Any]], None]
"""Called with an event's type and its object."""


class Result(Struct, frozen=True):
    """An answer: its HTTP status, and its body."""

    status: int
    body: dict[str, Any]


class SandboxAccount:
    """The one account of the sandbox."""

    def __init__(self, store: SandboxStore, emit: Emit) -> None:
        self._store = store
        self._emit = emit

    def authorize(self, form: CallForm) -> Result:
        """Hold the amount, or decline. It takes only payments that are confirmed at once and captured later."""
        for name, only in (("confirm", "true"), ("capture_method", "manual")):
            if form.values.get(name, "").lower() != only:
                raise invalid_request("sandbox_limit", f"the sandbox takes {name}={only} only", name)
        intent = Intent(
            id=_new_id(Intent.prefix),
            created=int(time.time()),
            amount=_chargeable(form.amount("amount"), form.text("currency")),
            currency=form.text("currency"),
            payment_method=form.text("payment_method"),
            metadata=form.under("metadata"),
        )
        if not cards.known(intent.payment_method):
            raise missing("PaymentMethod", intent.payment_method, "payment_method")
        intent.error = cards.decline(intent.payment_method)
        if intent.error is None:
            intent.charge = _new_id("ch")
            intent.status = "requires_capture"
            self._changed(intent, "payment_intent.amount_capturable_updated")
            return Result(200, shown_intent(intent))
        self._changed(intent, "payment_intent.payment_failed")
        return Result(402, {"error": {**intent.error, "payment_intent": shown_intent(intent)}})

    def capture(self, name: str, form: CallForm) -> Result:
        """Take the held amount or a part of it."""
        intent = self._intent(name)
        amount = form.amount("amount_to_capture", intent.amount)
        if intent.status != "requires_capture":
            raise _unexpected(intent, "captured")
        if amount > intent.amount:
            raise wrong_state("amount_too_large", f"only {intent.amount} can be captured", param="amount_to_capture")
        intent.captured = amount
        intent.status = "succeeded"
        self._changed(intent, "payment_intent.succeeded")
        return Result(200, shown_intent(intent))

    def void(self, name: str, reason: str | None = None) -> Result:
        """Let go of the hold."""
        intent = self._intent(name)
        if intent.status not in {"requires_capture", "requires_payment_method"}:
            raise _unexpected(intent, "canceled")
        intent.status = "canceled"
        intent.cancellation_reason = reason
        self._changed(intent, "payment_intent.canceled")
        return Result(200, shown_intent(intent))

    def refund(self, form: CallForm) -> Result:
        """Give back what was captured or a part of it."""
        intent = self._intent(form.text("payment_intent"), "payment_intent")
        left = intent.captured - intent.refunded
        amount = form.amount("amount", max(left, 1))
        if intent.charge is None or intent.status != "succeeded":
            raise _unexpected(intent, "refunded")
        if left == 0:
            raise wrong_state("charge_already_refunded", f"Charge {intent.charge} has already been refunded.")
        if amount > left:
            raise wrong_state("amount_too_large", f"{amount} is greater than unrefunded amount {left}", param="amount")
        refund = SandboxRefund(
            id=_new_id(SandboxRefund.prefix),
            created=int(time.time()),
            amount=amount,
            currency=intent.currency,
            payment_intent=intent.id,
            charge=intent.charge,
            metadata=form.under("metadata"),
        )
        intent.refunded += amount
        self._store.put(refund)
        self._store.put(intent)
        self._emit("charge.refunded", shown_charge(intent))
        return Result(200, shown_refund(refund))

    def retrieve(self, name: str, form: CallForm) -> Result:
        intent = self._intent(name)
        expanded = form.under("expand").values()
        if intent.charge is None or not any(path.startswith("latest_charge") for path in expanded):
            return Result(200, shown_intent(intent))
        refunds = self._store.refunds(name)[:10] if "latest_charge.refunds" in expanded else None
        return Result(200, shown_intent(intent, shown_charge(intent, refunds)))

    def list_intents(self, form: CallForm) -> Result:
        """The payments created since a time, the latest first. Without a lag, as Stripe's."""
        since = form.under("created").get("gte", "0")
        intents = [intent for intent in reversed(self._store.intents()) if intent.created >= int(since)]
        return Result(200, _page(intents, form, shown_intent, "/v1/payment_intents"))

    def search(self, form: CallForm, search_lag_s: float) -> Result:
        """Search by one pair of the metadata, all that the sandbox can. It misses payments younger than the lag."""
        query = _QUERY.fullmatch(form.text("query"))
        if query is None:
            raise invalid_request("sandbox_limit", "the sandbox searches by metadata['name']:'value' only", "query")
        name, value = query.groups()
        until_s = time.time() - search_lag_s
        found = [
            shown_intent(intent)
            for intent in self._store.intents()
            if intent.metadata.get(name) == value and intent.created <= until_s
        ]
        return Result(200, {**shown_list(found, "/v1/payment_intents/search"), "object": "search_result"})

    def list_refunds(self, form: CallForm) -> Result:
        refunds = self._store.refunds(form.text("payment_intent"))
        return Result(200, _page(refunds, form, shown_refund, "/v1/refunds"))

    def retrieve_refund(self, name: str) -> Result:
        refund = self._store.get(SandboxRefund, name)
        if refund is None:
            raise missing("refund", name, "id")
        return Result(200, shown_refund(refund))

    def fail_refund(self, name: str) -> None:
        """Let a refund fail, as when the payer's account is closed: the money comes back to us some days later."""
        refund = self._store.get(SandboxRefund, name)
        if refund is None:
            raise missing("refund", name, "id")
        if refund.status != "succeeded":
            raise wrong_state("refund_unexpected_state", f"refund {name} has {refund.status}")
        intent = self._intent(refund.payment_intent)
        refund.status = "failed"
        intent.refunded -= refund.amount
        self._store.put(refund)
        self._store.put(intent)
        self._emit("refund.failed", {**shown_refund(refund), "failure_reason": "expired_or_canceled_card"})

    def _changed(self, intent: Intent, event: str) -> None:
        self._store.put(intent)
        self._emit(event, shown_intent(intent))

    def _intent(self, name: str, param: str = "intent") -> Intent:
        intent = self._store.get(Intent, name)
        if intent is None:
            raise missing("payment_intent", name, param)
        return intent


def charged(intent: Intent, refunds: list[SandboxRefund]) -> dict[str, Any]:
    """A line of `GET /sandbox/charges`, with Stripe's amounts: the sums ever held, taken, let go of and given back."""
    return {
        "payment_intent": intent.id,
        "payment_id": intent.metadata.get("payment_id"),
        "status": intent.status,
        "currency": intent.currency,
        "authorized": intent.amount if intent.charge else 0,
        "captured": intent.captured,
        "voided": intent.amount if intent.charge and intent.status == "canceled" else 0,
        "refunded": intent.refunded,
        "refunds": [msgspec.to_builtins(refund) for refund in reversed(refunds)],
    }


def _chargeable(amount: int, currency: str) -> int:
    """Apply the rules of https://docs.stripe.com/currencies to amounts that come from clients other than ours."""
    try:
        if to_stripe(from_stripe(amount, currency), currency.upper()) == amount <= _AMOUNT_MAX:
            return amount
    except AmountNotChargeable as error:
        raise invalid_request("parameter_invalid_integer", f"Invalid amount: {error}", "amount") from None
    raise invalid_request("amount_too_large", f"Amount must be no more than {_AMOUNT_MAX}", "amount")


def _unexpected(intent: Intent, what: str) -> Exception:
    return wrong_state(
        "payment_intent_unexpected_state",
        f"This PaymentIntent could not be {what} because it has a status of {intent.status}.",
        payment_intent=shown_intent(intent),
    )


def _page(things: list[_Thing], form: CallForm, shown: Callable[[_Thing], dict[str, Any]], url: str) -> dict[str, Any]:
    """https://docs.stripe.com/api/pagination"""
    after = form.values.get("starting_after")
    if after is not None:
        ids = [thing.id for thing in things]
        if after not in ids:
            raise missing("object", after, "starting_after")
        things = things[ids.index(after) + 1 :]
    limit = min(form.amount("limit", 10), _PAGE_MAX)
    return shown_list([shown(thing) for thing in things[:limit]], url, has_more=len(things) > limit)


def _new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(12)}"
