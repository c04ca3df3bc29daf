"""The payment provider on Stripe's API: PaymentIntents with manual capture, and refunds.

https://docs.stripe.com/payments/place-a-hold-on-a-payment-method. Stripe's package makes the calls; it is large, and
only the workers that call should import this module.

Stripe forgets an idempotency key after a day or more, and remembers a 500 like any other answer
(https://docs.stripe.com/api/idempotent_requests). So a repeated call relies on more than the key: a payment's state at
Stripe shows whether it is captured or voided, and our objects carry the key in their metadata, by which we look for
them (stripe_lookup.py) before we ask for an authorization or a refund again. One case remains: if the effect of a fault
of Stripe's shows only later than STRIPE_SPENT_KEY_S, an amount is held a second time, until Stripe lets go of it, by
default after seven days. It is never taken.
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeVar

import aiohttp
import stripe

from coordinator import ConfigurationError, EffectRetry
from shared.payments.provider import Authorized, Captured, Declined, Refunded, Refused, Voided
from shared.payments.settings import StripeSettings
from shared.payments.stripe_amounts import AmountNotChargeable, to_stripe
from shared.payments.stripe_answers import amount_of, declined, id_of, refused
from shared.payments.stripe_errors import KeySpent, StripeRefused
from shared.payments.stripe_http import BoundedHttp
from shared.payments.stripe_lookup import StripeLookUp, asked
from shared.payments.stripe_metadata import MetadataKey

if TYPE_CHECKING:
    from stripe.params import PaymentIntentCreateParams

_NOT_REFUNDED: Final = frozenset({"failed", "canceled"})
_KEYS_MAX: Final = 30
"""An attempt spends one at most, and what it did is looked up before the next."""

_KEY_LIFETIME_S: Final = 23 * 3600
"""How long Stripe certainly remembers a key."""

T = TypeVar("T")
_Options = stripe.RequestOptions
_Call = Callable[[_Options], Awaitable[T]]


class StripeProvider:
    """A PaymentProvider. Connects at the first call; close() it in the event loop of the calls."""

    def __init__(self, settings: StripeSettings) -> None:
        """Raises ConfigurationError when there is no API key, or no key for the metadata."""
        if settings.api_key is None or not settings.api_key.get_secret_value():
            raise ConfigurationError(
                "STRIPE_API_KEY: payments through Stripe need a key, such as sk_test_…; it is unset"
            )
        self._metadata_key = MetadataKey(settings)
        # It logs every call, as the provider's own log does too.
        logging.getLogger("stripe").setLevel(logging.WARNING)
        self._spent_key_s = settings.spent_key_s
        self._http = BoundedHttp(timeout=aiohttp.ClientTimeout(total=settings.timeout_s))
        client = stripe.StripeClient(
            settings.api_key.get_secret_value(),
            base_addresses={"api": settings.api_base.rstrip("/")},
            max_network_retries=0,  # our caller repeats, and counts
            http_client=self._http,
        )
        self._intents = client.v1.payment_intents
        self._refunds = client.v1.refunds
        self._look_up = StripeLookUp(client, self._metadata_key)

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
        try:
            stripe_amount = to_stripe(amount, currency)
        except AmountNotChargeable as error:
            return Refused(code=error.code, message=str(error))
        params: PaymentIntentCreateParams = {
            "amount": stripe_amount,
            "currency": currency.lower(),
            "payment_method": payment_method,
            "capture_method": "manual",
            "confirm": True,
            # No payer is at a browser here: a payment that asks for a second factor is declined.
            "error_on_requires_action": True,
            "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
            "metadata": self._metadata_key.metadata(payment_id, key, traceparent=traceparent),
        }
        age_s = _age_s(asked_at)

        async def found() -> stripe.PaymentIntent | None:
            try:
                return await self._look_up.intent_with(key, payment_id, stripe_amount, currency, asked_at)
            except StripeRefused as error:  # that decides nothing about the payment
                raise _unknown(error) from None

        try:
            # If Stripe has forgotten the key, this may be a copy of a call that was made long ago.
            intent = await found() if is_repeated or age_s > _KEY_LIFETIME_S else None
            if intent is None:
                # A call that ended in a fault may show its effect a little later; another key could hold it twice.
                keys_max = _KEYS_MAX if age_s >= self._spent_key_s else 1
                intent = await _made_once(
                    lambda options: self._intents.create_async(params, options), key, found, keys_max
                )
            if intent.status == "processing":  # and will be so in every answer to this key
                with _may_have_happened():
                    intent = await self._look_up.intent(id_of(intent.id), payment_id)
        except StripeRefused as error:
            return _declined_or_refused(error)
        return _authorization(intent)

    async def capture(
        self, *, payment_id: int, provider_id: str, amount: int, currency: str, key: str
    ) -> Captured | Refused:
        try:
            stripe_amount = to_stripe(amount, currency)
        except AmountNotChargeable as error:
            return Refused(code=error.code, message=str(error))
        intent = await self._change(
            payment_id,
            provider_id,
            {"succeeded"},
            lambda options: self._intents.capture_async(provider_id, {"amount_to_capture": stripe_amount}, options),
            key,
        )
        return intent if isinstance(intent, Refused) else _captured(intent)

    async def void(self, *, payment_id: int, provider_id: str, key: str) -> Voided | Captured | Refused:
        intent = await self._change(
            payment_id,
            provider_id,
            {"canceled", "succeeded"},
            lambda options: self._intents.cancel_async(provider_id, {}, options),
            key,
        )
        if isinstance(intent, Refused):
            return intent
        return Voided() if intent.status == "canceled" else _captured(intent)

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
        try:
            stripe_amount = to_stripe(amount, currency)
        except AmountNotChargeable as error:
            return Refused(code=error.code, message=str(error))

        async def found() -> stripe.Refund | None:
            return await self._look_up.refund_with(provider_id, key, payment_id, refund_id)

        def make(options: _Options) -> Awaitable[stripe.Refund]:
            # With it, the event of a refund that fails later names its payment.
            metadata = self._metadata_key.metadata(payment_id, key, refund_id, traceparent)
            return self._refunds.create_async(
                {"payment_intent": provider_id, "amount": stripe_amount, "metadata": metadata}, options
            )

        try:
            # A part can be given back many times over: once the key is forgotten, Stripe does not forbid it.
            refund = await found() if is_repeated or _age_s(asked_at) > _KEY_LIFETIME_S else None
            if refund is None:
                refund = await _made_once(make, key, found, _KEYS_MAX)
        except StripeRefused as error:
            return await self._refund_by_others(provider_id, refund_id, amount, error)
        return await self._refunded(provider_id, refund)

    async def look_up_authorization(
        self, *, payment_id: int, amount: int, currency: str, key: str, asked_at: datetime
    ) -> Authorized | Declined | Refused | None:
        try:
            stripe_amount = to_stripe(amount, currency)
            intent = await self._look_up.intent_with(key, payment_id, stripe_amount, currency, asked_at)
        except AmountNotChargeable as error:
            return Refused(code=error.code, message=str(error))
        except StripeRefused as error:
            raise _unknown(error) from None
        return None if intent is None else _authorization(intent)

    async def look_up_capture(self, *, payment_id: int, provider_id: str) -> Captured | Refused | None:
        intent = await self._decided(payment_id, provider_id)
        if isinstance(intent, Refused):
            return intent
        if intent.status == "canceled":
            return refused("payment_intent_unexpected_state", f"{provider_id} is canceled", intent.status)
        return _captured(intent) if intent.status == "succeeded" else None

    async def look_up_void(self, *, payment_id: int, provider_id: str) -> Voided | Captured | Refused | None:
        intent = await self._decided(payment_id, provider_id)
        if isinstance(intent, Refused):
            return intent
        if intent.status == "succeeded":
            return _captured(intent)
        return Voided() if intent.status == "canceled" else None

    async def look_up_refund(
        self, *, payment_id: int, refund_id: int, provider_id: str, key: str
    ) -> Refunded | Refused | None:
        try:
            refund = await self._look_up.refund_with(provider_id, key, payment_id, refund_id)
        except StripeRefused as error:
            raise _unknown(error) from None
        return None if refund is None else await self._refunded(provider_id, refund)

    async def close(self) -> None:
        await self._http.close_async()  # type: ignore[no-untyped-call]

    async def _change(
        self, payment_id: int, provider_id: str, done: Collection[str], call: _Call[stripe.PaymentIntent], key: str
    ) -> stripe.PaymentIntent | Refused:
        """Bring an intent to one of its last states. If the call fails in any way, the intent's state decides."""

        async def found() -> stripe.PaymentIntent | None:
            intent = await self._look_up.intent(provider_id, payment_id)
            return intent if intent.status in done else None

        try:
            return await _made_once(call, key, found, _KEYS_MAX)
        except StripeRefused as error:
            try:
                intent = await self._look_up.intent(provider_id, payment_id)
            except StripeRefused:
                return refused(error.code, error)
            if intent.status in done:
                return intent
            return refused(error.code, error, intent.status)

    async def _decided(self, payment_id: int, provider_id: str) -> stripe.PaymentIntent | Refused:
        """The intent, or that Stripe has none of this id. Raises EffectRetry while Stripe has not decided."""
        try:
            intent = await self._look_up.intent(provider_id, payment_id)
        except StripeRefused as error:
            return refused(error.code, error)
        if intent.status == "processing":
            raise _processing(intent)
        return intent

    async def _refund_by_others(
        self, provider_id: str, refund_id: int, amount: int, error: StripeRefused
    ) -> Refunded | Refused:
        """If somebody gave all of it back already, in the dashboard, nothing is left to give back."""
        if error.code != "charge_already_refunded":
            return refused(error.code, error)
        for refund in await self._look_up.refunds(provider_id):
            is_alike = refund.status not in _NOT_REFUNDED and amount_of(refund.amount, refund.currency) == amount
            if is_alike and self._look_up.may_be(refund, refund_id):
                return await self._refunded(provider_id, refund)
        return Refunded(refund_id=None, amount=amount, total=await self._refunded_in_all(provider_id))

    async def _refunded(self, provider_id: str, refund: stripe.Refund) -> Refunded | Refused:
        """One that is pending is on its way; one that failed later left the money where it was."""
        if refund.status in _NOT_REFUNDED:
            reason = getattr(refund, "failure_reason", None) or refund.status
            return refused(reason, f"refund {refund.id} has {refund.status}", refund.status)
        amount = amount_of(refund.amount, refund.currency)
        # A charge may be shown as it was a moment ago.
        total = max(amount, await self._refunded_in_all(provider_id))
        return Refunded(refund_id=id_of(refund.id), amount=amount, total=total)

    async def _refunded_in_all(self, provider_id: str) -> int:
        charge = await self._look_up.charge(provider_id)
        return amount_of(charge.amount_refunded, charge.currency)


def _age_s(asked_at: datetime) -> float:
    """How long ago the lane asked. After `_KEY_LIFETIME_S` this may be a copy of a call that was made then."""
    return (datetime.now(UTC) - asked_at).total_seconds()


async def _made_once(call: _Call[T], key: str, found: Callable[[], Awaitable[T | None]], keys_max: int) -> T:
    """Raises EffectRetry (KeySpent among them) or StripeRefused.

    `found` looks for an object that was made: if a key is spent without an effect, another key serves. Each key can be
    spent on a fault like the first, so two workers try them in the same order.
    """
    try:
        return await asked(call({"idempotency_key": key}))
    except KeySpent as error:
        spent = error
    with _may_have_happened():
        for number in range(2, keys_max + 2):
            made = await found()
            if made is not None:
                return made
            if number > keys_max:
                break
            try:
                return await asked(call({"idempotency_key": f"{key}.{number}"}))
            except KeySpent as error:
                spent = error
        raise spent


@contextmanager
def _may_have_happened() -> Iterator[None]:
    """For a question after a call with an unknown result: if it gets no answer either, the call stays in doubt."""
    try:
        yield
    except EffectRetry as retry:
        raise EffectRetry(
            str(retry), after_s=retry.after_s, may_have_happened=True, is_about_call=retry.is_about_call
        ) from None


def _unknown(error: StripeRefused) -> EffectRetry:
    return EffectRetry(f"Stripe does not say: {error}", is_about_call=True)


def _authorization(intent: stripe.PaymentIntent) -> Authorized | Declined | Refused:
    """Raises EffectRetry while Stripe has not decided."""
    if intent.status in {"requires_capture", "succeeded"}:
        return Authorized(provider_id=id_of(intent.id))
    if intent.status == "processing":
        raise _processing(intent)
    if intent.status == "canceled":
        return refused("canceled", f"{intent.id} was canceled at Stripe", intent.status)
    if intent.status == "requires_action":
        return Declined(code="authentication_required", message="the payer would have to confirm the payment")
    error = intent.last_payment_error
    if error is None:
        return declined(intent.status, f"{intent.id} is {intent.status}")
    return declined(error.decline_code or error.code or intent.status, error.message)


def _captured(intent: stripe.PaymentIntent) -> Captured:
    return Captured(amount=amount_of(intent.amount_received, intent.currency))


def _processing(intent: stripe.PaymentIntent) -> EffectRetry:
    return EffectRetry(f"Stripe is still processing {intent.id}", may_have_happened=True, is_about_call=True)


def _declined_or_refused(error: StripeRefused) -> Declined | Refused:
    return declined(error.code, error) if error.by_issuer else refused(error.code, error)
