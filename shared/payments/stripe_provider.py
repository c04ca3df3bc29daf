"""The payment provider on Stripe's API: PaymentIntents with manual capture, and refunds.

https://docs.stripe.com/payments/place-a-hold-on-a-payment-method. Stripe's package makes the calls; it is large, and
only the workers that call should import this module.

Stripe forgets an idempotency key after a day or more, and remembers a 500 like any other answer
(https://docs.stripe.com/api/idempotent_requests). So the key is not all that a repeated call relies on: a payment's
state at Stripe tells whether it is captured or voided, and what we make carries the key in its metadata, by which it
is found again. One thing is left to time: an authorization that is asked for again when its key is forgotten holds the
amount a second time, until Stripe lets go of it, by default after seven days.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

import aiohttp
import stripe
import structlog

from shared.effects import EffectRetry
from shared.errors import ConfigurationError
from shared.payments.provider import Authorized, Captured, Declined, Refunded, Refused, Voided
from shared.payments.stripe_amounts import AmountNotChargeable, from_stripe, to_stripe
from shared.payments.stripe_errors import TRANSPORT_ERRORS, KeySpent, StripeRefused, translated
from shared.settings import StripeSettings

if TYPE_CHECKING:
    from stripe.params import PaymentIntentCreateParams

log = structlog.get_logger("stripe")

KEY_METADATA: Final = "idempotency_key"
PAYMENT_METADATA: Final = "payment_id"

T = TypeVar("T")
_Options = stripe.RequestOptions
_Call = Callable[[_Options], Awaitable[T]]


class StripeProvider:
    """A PaymentProvider. Connects at the first call; close() it in the event loop of the calls."""

    def __init__(self, settings: StripeSettings) -> None:
        """Raises ConfigurationError when there is no API key."""
        if settings.api_key is None or not settings.api_key.get_secret_value():
            raise ConfigurationError(
                "STRIPE_API_KEY: payments through Stripe need a key, such as sk_test_…; it is unset"
            )
        self._http = stripe.AIOHTTPClient(timeout=aiohttp.ClientTimeout(total=settings.timeout_s))
        client = stripe.StripeClient(
            settings.api_key.get_secret_value(),
            base_addresses={"api": settings.api_base.rstrip("/")},
            max_network_retries=0,  # whoever calls us repeats, and counts
            http_client=self._http,
        )
        self._intents = client.v1.payment_intents
        self._refunds = client.v1.refunds

    async def authorize(
        self, *, payment_id: int, amount: int, currency: str, payment_method: str, key: str
    ) -> Authorized | Declined | Refused:
        try:
            asked = to_stripe(amount, currency)
        except AmountNotChargeable as error:
            return Refused(code=error.code, message=str(error))
        params: PaymentIntentCreateParams = {
            "amount": asked,
            "currency": currency.lower(),
            "payment_method": payment_method,
            "capture_method": "manual",
            "confirm": True,
            # Nobody sits before a browser here: a payment that asks for a second factor is a declined one.
            "error_on_requires_action": True,
            "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
            "metadata": {PAYMENT_METADATA: str(payment_id), KEY_METADATA: key},
        }
        try:
            intent = await _made(lambda options: self._intents.create_async(params, options), key)
        except KeySpent:
            with _may_have_happened():
                found = await self._find_intent(key)
            if found is None:  # the search lags; a new key could hold the amount twice
                raise
            intent = found
        except StripeRefused as refused:
            return _declined_or_refused(refused)
        if intent.status == "processing":  # and will be so in every answer to this key
            intent = await self._intent(intent.id)
        return _authorization(intent)

    async def capture(self, *, provider_id: str, amount: int, currency: str, key: str) -> Captured | Refused:
        try:
            asked = to_stripe(amount, currency)
        except AmountNotChargeable as error:
            return Refused(code=error.code, message=str(error))
        intent = await self._change(
            provider_id,
            "succeeded",
            lambda options: self._intents.capture_async(provider_id, {"amount_to_capture": asked}, options),
            key,
        )
        if isinstance(intent, Refused):
            return intent
        return Captured(amount=from_stripe(intent.amount_received, intent.currency))

    async def void(self, *, provider_id: str, key: str) -> Voided | Refused:
        intent = await self._change(
            provider_id,
            "canceled",
            lambda options: self._intents.cancel_async(provider_id, {}, options),
            key,
        )
        return intent if isinstance(intent, Refused) else Voided()

    async def refund(self, *, provider_id: str, amount: int, currency: str, key: str) -> Refunded | Refused:
        try:
            asked = to_stripe(amount, currency)
        except AmountNotChargeable as error:
            return Refused(code=error.code, message=str(error))
        try:
            payment, refunds = await self._intent_and_refunds(provider_id)
            # A part can be given back many times over: where the key is forgotten, nothing at Stripe forbids it.
            refund = _with_key(refunds, key) or await self._make_refund(payment, asked, key)
        except StripeRefused as refused:
            return await self._refund_by_others(provider_id, refused)
        return _refunded(refund)

    async def close(self) -> None:
        await self._http.close_async()  # type: ignore[no-untyped-call]

    async def _change(
        self, provider_id: str, done: str, call: _Call[stripe.PaymentIntent], key: str
    ) -> stripe.PaymentIntent | Refused:
        """Bring an intent to a state that it reaches once. Whatever goes wrong, its state then tells what to do."""
        try:
            try:
                return await _made(call, key)
            except KeySpent:  # if it was done all the same, it is refused now
                with _may_have_happened():
                    return await _made(call, _second(key))
        except StripeRefused as refused:
            try:
                intent = await self._intent(provider_id)
            except StripeRefused:
                return Refused(code=refused.code, message=str(refused))
            if intent.status == done:
                return intent
            return Refused(code=refused.code, message=str(refused), status=intent.status)

    async def _intent(self, provider_id: str) -> stripe.PaymentIntent:
        return await _asked(self._intents.retrieve_async(provider_id))

    async def _find_intent(self, key: str) -> stripe.PaymentIntent | None:
        """What was made with this key; the search knows it within a minute."""
        query = f"metadata['{KEY_METADATA}']:'{key}'"
        try:
            found = await _asked(self._intents.search_async({"query": query, "limit": 1}))
        except StripeRefused as refused:  # accounts of some countries have no search
            raise EffectRetry(f"Stripe does not search: {refused}", may_have_happened=True) from None
        return next(iter(found.data), None)

    async def _intent_and_refunds(self, provider_id: str) -> tuple[stripe.PaymentIntent, list[stripe.Refund]]:
        """The ten latest refunds."""
        intent = await _asked(self._intents.retrieve_async(provider_id, {"expand": ["latest_charge.refunds"]}))
        charge = intent.latest_charge
        return intent, list(charge.refunds.data) if isinstance(charge, stripe.Charge) and charge.refunds else []

    async def _make_refund(self, payment: stripe.PaymentIntent, asked: int, key: str) -> stripe.Refund:
        # So that the event of a refund that fails later tells which payment it is.
        metadata = {**_metadata(payment), KEY_METADATA: key}

        def make(options: _Options) -> Awaitable[stripe.Refund]:
            return self._refunds.create_async(
                {"payment_intent": payment.id, "amount": asked, "metadata": metadata}, options
            )

        try:
            return await _made(make, key)
        except KeySpent:
            with _may_have_happened():
                _, refunds = await self._intent_and_refunds(payment.id)
                made = _with_key(refunds, key)
                return made if made is not None else await _made(make, _second(key))

    async def _refund_by_others(self, provider_id: str, refused: StripeRefused) -> Refunded | Refused:
        """Where all of it went back already, by somebody's hand in the dashboard, that is the refund."""
        if refused.code == "charge_already_refunded":
            _, refunds = await self._intent_and_refunds(provider_id)
            for refund in refunds:
                return _refunded(refund)
        return Refused(code=refused.code, message=str(refused))


def _with_key(refunds: list[stripe.Refund], key: str) -> stripe.Refund | None:
    return next((refund for refund in refunds if _metadata(refund).get(KEY_METADATA) == key), None)


def _metadata(thing: stripe.Refund | stripe.PaymentIntent) -> dict[str, str]:
    """As a plain dictionary, which Stripe's is not."""
    return {} if thing.metadata is None else thing.metadata.to_dict()


async def _made(call: _Call[T], key: str) -> T:
    """Raises EffectRetry (KeySpent among them) or StripeRefused."""
    return await _asked(call({"idempotency_key": key}))


async def _asked(answer: Awaitable[T]) -> T:
    """As _made()."""
    try:
        return await answer
    except (stripe.StripeError, *TRANSPORT_ERRORS) as error:
        meaning = translated(error)
        if isinstance(error, stripe.AuthenticationError | stripe.PermissionError):
            log.error("stripe_refuses_our_key", reason=str(meaning), mend="set STRIPE_API_KEY and restart the workers")
        raise meaning from None


@contextmanager
def _may_have_happened() -> Iterator[None]:
    """For what is asked after a call of which we know nothing: not hearing of this either clears nothing up."""
    try:
        yield
    except EffectRetry as retry:
        raise EffectRetry(str(retry), after_s=retry.after_s, may_have_happened=True) from None


def _second(key: str) -> str:
    """The key of another attempt, for when Stripe answers the first one with the same fault for ever."""
    return f"{key}.2"


def _authorization(intent: stripe.PaymentIntent) -> Authorized | Declined | Refused:
    """Raises EffectRetry while Stripe has not decided."""
    if intent.status in {"requires_capture", "succeeded"}:
        return Authorized(provider_id=intent.id)
    if intent.status == "processing":
        raise EffectRetry(f"Stripe is still processing {intent.id}", may_have_happened=True)
    if intent.status == "canceled":
        return Refused(code="canceled", message=f"{intent.id} was canceled at Stripe", status=intent.status)
    if intent.status == "requires_action":
        return Declined(code="authentication_required", message="the payer would have to confirm the payment")
    error = intent.last_payment_error
    if error is None:
        return Declined(code=intent.status, message=f"{intent.id} is {intent.status}")
    return Declined(code=error.decline_code or error.code or intent.status, message=error.message or "")


def _declined_or_refused(refused: StripeRefused) -> Declined | Refused:
    kind = Declined if refused.by_issuer else Refused
    return kind(code=refused.code, message=str(refused))


def _refunded(refund: stripe.Refund) -> Refunded | Refused:
    """One that is pending is on its way; one that failed later left the money where it was."""
    if refund.status in {"failed", "canceled"}:
        reason = getattr(refund, "failure_reason", None) or refund.status
        return Refused(code=str(reason), message=f"refund {refund.id} has {refund.status}", status=refund.status)
    return Refunded(refund_id=refund.id, amount=from_stripe(refund.amount, refund.currency))
