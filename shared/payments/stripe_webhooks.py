"""Events as Stripe sends them: signed, at least once, in any order.

https://docs.stripe.com/webhooks#verify-manually. Stripe's package checks the signature; the time is checked here, since
the package lets an event of the future pass.
"""

from typing import Final

import msgspec
import stripe
from msgspec import Struct

from shared.errors import CoordinatorError
from shared.payments.stripe_amounts import AmountNotChargeable, from_stripe

_SHOWN_CHARS_MAX: Final = 200


class WebhookRefused(CoordinatorError):
    """Raised for a delivery that is not to be believed, or not to be understood. `code` is stable:

    bad_signature      none of its signatures is that of the secret, or there is none
    outside_tolerance  signed at a time too far from ours: a replay, or a clock that is wrong
    malformed          it is from Stripe, and is not as Stripe's events are
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ProviderEvent(Struct, frozen=True, kw_only=True):
    """What an event says of a payment. Stripe's `event_id` is the same at every delivery.

    `provider_id` is the payment's (`pi_…`), or None where the event is of none. `payment_id` is ours, where the payment
    was made by us and the event carries it: those of refunds do not. `status` is that of the payment or, in
    `refund.…`, of the refund. `amount` is in minor units of `currency`: of `payment_intent.…` what is held or was
    taken, of `charge.refunded` all that went back so far, of `refund.…` that refund. `error_code` is the bank's reason,
    in `payment_intent.payment_failed`.
    """

    event_id: str
    type: str
    created_s: int
    provider_id: str | None
    payment_id: int | None
    status: str | None
    amount: int | None
    currency: str | None
    refund_id: str | None = None
    error_code: str | None = None
    error_message: str | None = None


class _Failure(Struct, frozen=True):
    code: str | None = None
    decline_code: str | None = None
    message: str | None = None


class _Object(Struct, frozen=True):
    """A PaymentIntent, a Charge or a Refund: the fields of them that matter here."""

    object: str
    id: str
    status: str | None = None
    currency: str | None = None
    amount: int | None = None
    amount_received: int | None = None
    amount_refunded: int | None = None
    payment_intent: str | None = None
    metadata: dict[str, str] | None = None
    last_payment_error: _Failure | None = None


class _Data(Struct, frozen=True):
    object: msgspec.Raw


class _Event(Struct, frozen=True):
    id: str
    type: str
    created: int
    data: _Data


def verify_webhook(
    payload: bytes, signature: str | None, *, secret: str, tolerance_s: int, now_s: float
) -> ProviderEvent:
    """The event of a delivery whose header `Stripe-Signature` is genuine and of this time. Raises WebhookRefused.

    `payload` is the body as received, byte for byte. While a secret is being replaced the header holds a signature
    for each; one that is right suffices. `now_s` is the Unix time; the signature's may be `tolerance_s` before or
    after it.
    """
    if not signature or not signature.isascii():
        raise WebhookRefused("bad_signature", f"the header Stripe-Signature is {_shown(signature)}")
    try:
        stripe.WebhookSignature.verify_header(payload, signature, secret, None)
    except stripe.SignatureVerificationError as error:
        raise WebhookRefused("bad_signature", f"{error}: {_shown(signature)}") from None
    except UnicodeDecodeError:
        raise WebhookRefused("bad_signature", "the body is no UTF-8, so Stripe did not sign it") from None
    signed_s = _signed_at(signature)
    if abs(now_s - signed_s) > tolerance_s:
        raise WebhookRefused(
            "outside_tolerance",
            f"signed at t={signed_s}, {now_s - signed_s:.0f} s ago; STRIPE_WEBHOOK_TOLERANCE_S is {tolerance_s}",
        )
    return decode_event(payload)


def decode_event(payload: bytes) -> ProviderEvent:
    """An event whose signature is not in question. Raises WebhookRefused (malformed)."""
    try:
        event = msgspec.json.decode(payload, type=_Event)
        kind = msgspec.json.decode(event.data.object, type=_Kind).object
        thing = msgspec.json.decode(event.data.object, type=_Object) if kind in _AMOUNTS else None
    except (msgspec.MsgspecError, RecursionError) as error:
        raise WebhookRefused("malformed", f"no event of Stripe's: {error}") from None
    if thing is None:
        return ProviderEvent(
            event_id=event.id,
            type=event.type,
            created_s=event.created,
            provider_id=None,
            payment_id=None,
            status=None,
            amount=None,
            currency=None,
        )
    failure = thing.last_payment_error or _Failure()
    return ProviderEvent(
        event_id=event.id,
        type=event.type,
        created_s=event.created,
        provider_id=thing.id if kind == "payment_intent" else thing.payment_intent,
        payment_id=_payment_id(thing),
        status=thing.status,
        amount=_amount(thing),
        currency=thing.currency.upper() if thing.currency else None,
        refund_id=thing.id if kind == "refund" else None,
        error_code=failure.decline_code or failure.code,
        error_message=failure.message,
    )


class _Kind(Struct, frozen=True):
    object: str


_AMOUNTS: Final = {"payment_intent": "amount", "charge": "amount_refunded", "refund": "amount"}
"""The kinds of objects that are read, and which of their amounts."""


def _amount(thing: _Object) -> int | None:
    taken = thing.amount_received if thing.status == "succeeded" else None
    amount = taken or getattr(thing, _AMOUNTS[thing.object])
    if amount is None or thing.currency is None:
        return None
    try:
        return from_stripe(amount, thing.currency)
    except AmountNotChargeable as error:
        raise WebhookRefused("malformed", f"{thing.id}: {error}") from None


def _payment_id(thing: _Object) -> int | None:
    """None for what is no number: anybody with a key to the account may write metadata."""
    text = (thing.metadata or {}).get("payment_id", "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= len(str(2**63)) else None


def _signed_at(signature: str) -> int:
    """Of a header that was verified, where the first `t` was signed."""
    parts = (part.split("=", 2) for part in signature.split(","))  # as Stripe's package splits them
    return next(int(part[1]) for part in parts if part[0] == "t")


def _shown(header: str | None) -> str:
    return "missing" if not header else repr(header[:_SHOWN_CHARS_MAX])
