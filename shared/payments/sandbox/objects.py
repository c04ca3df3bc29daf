"""Payments and refunds as the sandbox keeps them, and as Stripe shows them. Amounts are as Stripe counts them."""

from typing import Any, ClassVar

from msgspec import Struct

from shared.payments.sandbox.errors import ApiError, invalid_request


class Intent(Struct, kw_only=True):
    """A PaymentIntent and, if an amount was held, its one charge."""

    prefix: ClassVar[str] = "pi"

    id: str
    created: int
    amount: int
    currency: str
    payment_method: str
    metadata: dict[str, str]
    status: str = "requires_payment_method"
    charge: str | None = None
    captured: int = 0
    refunded: int = 0
    cancellation_reason: str | None = None
    error: dict[str, Any] | None = None

    @property
    def held(self) -> int:
        return self.amount if self.status == "requires_capture" else 0


class SandboxRefund(Struct, kw_only=True):
    prefix: ClassVar[str] = "re"

    id: str
    created: int
    amount: int
    currency: str
    payment_intent: str
    charge: str
    metadata: dict[str, str]
    status: str = "succeeded"


def shown_intent(intent: Intent, charge: dict[str, Any] | None = None) -> dict[str, Any]:
    """https://docs.stripe.com/api/payment_intents/object; with `charge` if the caller asked to expand it."""
    return {
        "id": intent.id,
        "object": "payment_intent",
        "amount": intent.amount,
        "amount_capturable": intent.held,
        "amount_received": intent.captured,
        "canceled_at": None,
        "cancellation_reason": intent.cancellation_reason,
        "capture_method": "manual",
        "confirmation_method": "automatic",
        "created": intent.created,
        "currency": intent.currency,
        "last_payment_error": intent.error,
        "latest_charge": charge or intent.charge,
        "livemode": False,
        "metadata": intent.metadata,
        "payment_method": None if intent.error else intent.payment_method,
        "payment_method_types": ["card"],
        "status": intent.status,
    }


def shown_charge(intent: Intent, refunds: list[SandboxRefund] | None = None) -> dict[str, Any]:
    """https://docs.stripe.com/api/charges/object; with `refunds`, the latest first, if the caller asked for them."""
    shown = {
        "id": intent.charge,
        "object": "charge",
        "amount": intent.amount,
        "amount_captured": intent.captured,
        "amount_refunded": intent.refunded,
        "captured": intent.captured > 0,
        "created": intent.created,
        "currency": intent.currency,
        "livemode": False,
        "metadata": intent.metadata,
        "paid": True,
        "payment_intent": intent.id,
        "payment_method": intent.payment_method,
        # At Stripe a hold that is let go, or the rest of it after a part was taken, is a refund of the charge.
        "refunded": intent.refunded >= intent.captured,
        "status": "succeeded",
    }
    if refunds is not None:
        shown["refunds"] = shown_list(
            [shown_refund(refund) for refund in refunds], f"/v1/charges/{intent.charge}/refunds"
        )
    return shown


def shown_refund(refund: SandboxRefund) -> dict[str, Any]:
    """https://docs.stripe.com/api/refunds/object."""
    return {
        "id": refund.id,
        "object": "refund",
        "amount": refund.amount,
        "charge": refund.charge,
        "created": refund.created,
        "currency": refund.currency,
        "metadata": refund.metadata,
        "payment_intent": refund.payment_intent,
        "reason": None,
        "status": refund.status,
    }


def shown_list(shown: list[dict[str, Any]], url: str, *, has_more: bool = False) -> dict[str, Any]:
    """https://docs.stripe.com/api/pagination."""
    return {"object": "list", "data": shown, "has_more": has_more, "url": url}


class CallForm:
    """The parameters of a call: `amount`, `metadata[payment_id]`, `expand[0]`."""

    def __init__(self, values: dict[str, str], allowed: frozenset[str]) -> None:
        """Raises ApiError for a parameter that is not allowed; Stripe refuses those too."""
        self.values = values
        for name in values:
            if name.partition("[")[0] not in allowed:
                raise invalid_request("parameter_unknown", f"Received unknown parameter: {name}", name)

    def text(self, name: str) -> str:
        value = self.values.get(name, "")
        if not value:
            raise invalid_request("parameter_missing", f"Missing required param: {name}.", name)
        return value

    def amount(self, name: str, default: int | None = None) -> int:
        if default is not None and name not in self.values:
            return default
        text = self.text(name)
        if not text.isdecimal():
            raise invalid_request("parameter_invalid_integer", f"Invalid integer: {text}", name)
        if int(text) < 1:
            raise invalid_request("parameter_invalid_integer", "This value must be greater than or equal to 1.", name)
        return int(text)

    def under(self, name: str) -> dict[str, str]:
        """`metadata[a]=1` is {"a": "1"} under `metadata`."""
        start = f"{name}["
        return {key[len(start) : -1]: value for key, value in self.values.items() if key.startswith(start)}


def missing(kind: str, name: str, param: str = "intent") -> ApiError:
    """The error for an object that does not exist."""
    return invalid_request("resource_missing", f"No such {kind}: '{name}'", param, status=404)
