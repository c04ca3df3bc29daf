"""Stripe's events: checked, and read into the values that the payments lane needs.

Stripe delivers an event at least once and in no order (https://docs.stripe.com/webhooks#event-delivery-behaviors), so
the event's id deduplicates it, and an event reports a state, not a step.
"""

import json
import re
import time
from typing import Any, Final, Literal

import msgspec
import stripe
from msgspec import Struct

from coordinator import ConfigurationError, CoordinatorError, EffectRetry
from shared.payments.settings import StripeSettings
from shared.payments.stripe_answers import NOT_AS_WANTED, amount_of, id_of, known_code, text_of
from shared.payments.stripe_metadata import PAYMENT_METADATA, REFUND_METADATA, TRACE_METADATA, MetadataKey

Kind = Literal["authorized", "captured", "voided", "declined", "refunded", "refund_failed"]

KINDS: Final[dict[str, Kind]] = {
    "payment_intent.amount_capturable_updated": "authorized",
    "payment_intent.succeeded": "captured",
    "payment_intent.canceled": "voided",
    "payment_intent.payment_failed": "declined",
    "charge.refunded": "refunded",
    "refund.failed": "refund_failed",
}
"""The events that we use; an endpoint at Stripe needs no others."""

_NUMBER: Final = re.compile(r"[1-9][0-9]{0,15}")


class WebhookRefused(CoordinatorError):
    """Raised for a request that is no fresh and whole event of Stripe's; answer it with 400. `code` is stable:

    `bad_signature`, `stale` (signed longer ago than STRIPE_WEBHOOK_TOLERANCE_S, or that far ahead), `malformed`.
    `field` names the part at fault: the header, or the body.
    """

    def __init__(self, code: Literal["bad_signature", "stale", "malformed"], message: str) -> None:
        super().__init__(text_of(message))
        self.code = code
        self.field = "body" if code == "malformed" else "Stripe-Signature"


class _Ambiguous(ValueError):
    """Ends the reading of text that two readers would read as two things."""


class ProviderEvent(Struct, frozen=True, kw_only=True):
    """The provider's report about one payment. Amounts are in minor units of ISO 4217.

    `type`, `status` and `error_code` are Stripe's words. `amount` is the payment's, or that of the refund that failed;
    `amount_captured` and `amount_refunded` are the totals so far, and 0 if the event does not have them.
    `refund_id` names the refund that failed; `refund_number` is our number of it, from the metadata, if they have our
    mark. An earlier release sent none.
    `created_s` is when it happened, in seconds since the Unix epoch. `payment_id` is from the metadata. It is None for
    a refund that somebody else made, without metadata of ours: then only `provider_id` shows the payment. `is_signed`:
    the metadata have the digest that only this deployment makes. Without it the event may belong to another system that
    numbers its payments as we do, so it is about our payment only if we know its `provider_id`. `traceparent` is from
    the metadata, if they are signed: the trace to which the event belongs. Nobody has checked its form.
    """

    id: str
    type: str
    kind: Kind
    created_s: int
    payment_id: int | None
    is_signed: bool
    provider_id: str
    status: str
    currency: str
    amount: int
    amount_captured: int = 0
    amount_refunded: int = 0
    refund_id: str | None = None
    refund_number: int | None = None
    error_code: str | None = None
    traceparent: str | None = None


class _EventType(Struct):
    type: str


class _Data(Struct):
    object: Any


class _Event(Struct):
    id: str
    created: int
    data: _Data


class _Error(Struct):
    code: str | None = None
    decline_code: str | None = None


class _Object(Struct):
    """A PaymentIntent, a Charge or a Refund: the fields of each that we read."""

    id: str
    amount: int
    currency: str
    status: str
    metadata: dict[str, str] | None = None
    payment_intent: str | None = None
    amount_received: int = 0
    amount_captured: int = 0
    amount_refunded: int = 0
    last_payment_error: _Error | None = None
    failure_reason: str | None = None


def verify_webhook(payload: bytes, signature_header: str | None, settings: StripeSettings) -> ProviderEvent | None:
    """The event, or None if we have no use for it: it is of another kind, or of a payment that is not ours.

    Raises WebhookRefused; ConfigurationError if there is no STRIPE_WEBHOOK_SECRET or STRIPE_METADATA_KEY.
    """
    secret = settings.webhook_secret.get_secret_value() if settings.webhook_secret else ""
    if not secret:
        raise ConfigurationError("STRIPE_WEBHOOK_SECRET: events cannot be checked without it; it is unset")
    metadata_key = MetadataKey(settings)
    _check_signature(payload, signature_header or "", secret, settings.webhook_tolerance_s)
    try:
        body = json.loads(payload.decode(), object_pairs_hook=_members, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        why = str(error) if isinstance(error, _Ambiguous) else "the event is not valid JSON"
        raise WebhookRefused("malformed", why) from None
    return _event(body, metadata_key)


def _members(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, if it has each name once: of two values readers take one or the other."""
    found = dict(members)
    if len(found) < len(members):
        raise _Ambiguous("the event has an object with one name twice")
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


def _check_signature(payload: bytes, header: str, secret: str, tolerance_s: int) -> None:
    """https://docs.stripe.com/webhooks#verify-manually. While a secret is being rolled there are two signatures."""
    if not header.isascii():  # Stripe's package compares nothing else
        raise WebhookRefused("bad_signature", "Stripe-Signature: it has letters that no signature has")
    try:
        stripe.WebhookSignature.verify_header(payload, header, secret)
    except UnicodeDecodeError:
        raise WebhookRefused("malformed", "the event is not UTF-8") from None
    except stripe.SignatureVerificationError:
        raise WebhookRefused("bad_signature", "Stripe-Signature: it is no signature of this event") from None
    signed_s = int(next(part.split("=")[1] for part in header.split(",") if part.startswith("t=")))
    age_s = int(time.time()) - signed_s
    if abs(age_s) > tolerance_s:
        raise WebhookRefused(
            "stale", f"Stripe-Signature: it is {age_s} s old; STRIPE_WEBHOOK_TOLERANCE_S allows {tolerance_s}"
        )


def _event(body: Any, metadata_key: MetadataKey) -> ProviderEvent | None:
    try:
        type_ = msgspec.convert(body, _EventType).type
        kind = KINDS.get(type_)
        return None if kind is None else _read(type_, kind, msgspec.convert(body, _Event), metadata_key)
    except (EffectRetry, *NOT_AS_WANTED) as error:  # EffectRetry: of an id or an amount that is none
        raise WebhookRefused("malformed", f"the event is not as Stripe's are: {error}") from None


def _read(type_: str, kind: Kind, event: _Event, metadata_key: MetadataKey) -> ProviderEvent | None:
    thing = msgspec.convert(event.data.object, _Object)
    metadata = thing.metadata or {}
    payment_id = metadata.get(PAYMENT_METADATA, "")
    provider_id = thing.payment_intent if kind in {"refunded", "refund_failed"} else thing.id
    is_numbered = _NUMBER.fullmatch(payment_id) is not None
    # A refund has the metadata that its maker gave it: in the provider's dashboard that is none.
    if provider_id is None or not (is_numbered or kind == "refund_failed"):
        return None
    is_signed = is_numbered and metadata_key.is_ours(metadata)
    refund_number = metadata.get(REFUND_METADATA, "") if kind == "refund_failed" and is_signed else ""
    error = thing.last_payment_error
    reason = (error.decline_code or error.code) if error else thing.failure_reason
    return ProviderEvent(
        id=id_of(event.id),
        type=type_,
        kind=kind,
        created_s=event.created,
        payment_id=int(payment_id) if is_numbered else None,
        is_signed=is_signed,
        provider_id=id_of(provider_id),
        status=text_of(thing.status),
        currency=thing.currency.upper(),
        amount=amount_of(thing.amount, thing.currency),
        amount_captured=amount_of(thing.amount_received or thing.amount_captured, thing.currency),
        amount_refunded=amount_of(thing.amount_refunded, thing.currency),
        refund_id=id_of(thing.id) if kind == "refund_failed" else None,
        refund_number=int(refund_number) if _NUMBER.fullmatch(refund_number) else None,
        error_code=None if reason is None else known_code(reason),
        traceparent=metadata.get(TRACE_METADATA) if is_signed else None,
    )
