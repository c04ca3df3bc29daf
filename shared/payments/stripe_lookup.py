"""Looks up our calls at Stripe: by an id, or by the idempotency key in the metadata.

Stripe's search lags by up to a minute, and by more during an outage (https://docs.stripe.com/search#data-freshness). So
an object that it finds exists, and an object that it does not find may exist too. Retrieving and listing show the
latest writes: a "no" rests on them alone.

A key alone proves nothing: the log may forget a command, and a client that repeats it then asks for another payment
with the same key. We believe an object if its metadata name the very payment that we ask about, with the mark that only
this deployment makes; and a refund if it is not the refund of another. An object that names another payment does not
count. An object that names this payment without the mark leaves the result in doubt.
"""

from collections.abc import AsyncIterator, Awaitable
from datetime import datetime
from typing import TYPE_CHECKING, Final, TypeVar

import stripe
import structlog

from coordinator import EffectRetry
from shared.payments.stripe_errors import TRANSPORT_ERRORS, StripeRefused, translated
from shared.payments.stripe_metadata import KEY_METADATA, PAYMENT_METADATA, REFUND_METADATA, MetadataKey

if TYPE_CHECKING:
    from stripe.params import PaymentIntentListParams, RefundListParams

log = structlog.get_logger("stripe")

_PAGE: Final = 100
_PAGES_MAX: Final = 100
_CLOCKS_DIFFER_S: Final = 300
"""How far Stripe's clock may be behind ours."""

T = TypeVar("T")
_Marked = TypeVar("_Marked", stripe.PaymentIntent, stripe.Refund)

_LIVE: Final = ("requires_capture", "succeeded", "processing")


class StripeLookUp:
    """Reads one account. Raises EffectRetry and StripeRefused."""

    def __init__(self, client: stripe.StripeClient, metadata_key: MetadataKey) -> None:
        self._metadata_key = metadata_key
        self._intents = client.v1.payment_intents
        self._refunds = client.v1.refunds

    async def intent(self, provider_id: str, payment_id: int) -> stripe.PaymentIntent:
        """The intent with this id, which is this payment's. Raises EffectRetry if it says that it is another one's."""
        intent = await asked(self._intents.retrieve_async(provider_id))
        named = metadata_of(intent).get(PAYMENT_METADATA, str(payment_id))
        if named != str(payment_id):
            text = f"{provider_id} is payment {named} at Stripe, and not {payment_id}"
            raise EffectRetry(text, may_have_happened=True, is_about_call=True)
        return intent

    async def charge(self, provider_id: str) -> stripe.Charge:
        """The totals taken and given back of a payment. Raises EffectRetry if Stripe shows none."""
        intent = await asked(self._intents.retrieve_async(provider_id, {"expand": ["latest_charge"]}))
        if not isinstance(intent.latest_charge, stripe.Charge):
            raise EffectRetry(f"{provider_id} has no charge", may_have_happened=True, is_about_call=True)
        return intent.latest_charge

    async def intent_with(
        self, key: str, payment_id: int, amount: int, currency: str, asked_at: datetime
    ) -> stripe.PaymentIntent | None:
        """The intent for this payment with this key, not before `asked_at`; of several, one that holds or took.

        Raises EffectRetry also if there are too many payments to look through, and if the payment has another amount
        than we ask for, or does not have our mark, which we put on all our payments.
        """
        intents = self._of(payment_id, key, await self._searched(key))
        intents = intents or self._of(payment_id, key, await self._listed(key, asked_at))
        if not intents:
            return None
        intent = next((intent for intent in intents if intent.status in _LIVE), intents[0])
        if (intent.amount, intent.currency) != (amount, currency.lower()):
            text = f"{intent.id} bears the key {key}, and is of {intent.amount} {intent.currency}"
            raise EffectRetry(text, may_have_happened=True, is_about_call=True)
        return intent

    async def refund_with(self, provider_id: str, key: str, payment_id: int, refund_id: int) -> stripe.Refund | None:
        """The refund of a payment that was made with this key. An earlier release did not mark which refund it was."""
        for refund in self._of(payment_id, key, await self.refunds(provider_id)):
            if self.may_be(refund, refund_id):
                return refund
        return None

    def may_be(self, refund: stripe.Refund, refund_id: int) -> bool:
        """Whether our mark does not say that it is another refund of ours."""
        metadata = metadata_of(refund)
        number = metadata.get(REFUND_METADATA, str(refund_id))
        return number == str(refund_id) or not self._metadata_key.is_ours(metadata)

    async def refunds(self, provider_id: str) -> list[stripe.Refund]:
        """All refunds of a payment, the latest first."""
        params: RefundListParams = {"payment_intent": provider_id, "limit": _PAGE}
        found: list[stripe.Refund] = []
        for _ in range(_PAGES_MAX):
            page = await asked(self._refunds.list_async(params))
            found += page.data
            if not page.has_more:
                return found
            params["starting_after"] = page.data[-1].id
        raise EffectRetry(f"{provider_id} has more than {len(found)} refunds", is_about_call=True)

    def _of(self, payment_id: int, key: str, found: list[_Marked]) -> list[_Marked]:
        """The objects made with this key for this payment. Raises EffectRetry for one that only claims to be."""
        ours: list[_Marked] = []
        for thing in found:
            metadata = metadata_of(thing)
            if (metadata.get(KEY_METADATA), metadata.get(PAYMENT_METADATA)) != (key, str(payment_id)):
                continue
            if not self._metadata_key.is_ours(metadata):
                text = f"{thing.id} bears the key {key} and the number of payment {payment_id}, and no mark of ours"
                raise EffectRetry(text, may_have_happened=True, is_about_call=True)
            ours.append(thing)
        return ours

    async def _searched(self, key: str) -> list[stripe.PaymentIntent]:
        query = f"metadata['{KEY_METADATA}']:'{key}'"
        try:
            return list((await asked(self._intents.search_async({"query": query, "limit": _PAGE}))).data)
        except StripeRefused:  # accounts of some countries have no search
            return []

    async def _listed(self, key: str, asked_at: datetime) -> list[stripe.PaymentIntent]:
        return [intent async for intent in self._since(asked_at) if metadata_of(intent).get(KEY_METADATA) == key]

    async def _since(self, asked_at: datetime) -> AsyncIterator[stripe.PaymentIntent]:
        since_s = int(asked_at.timestamp()) - _CLOCKS_DIFFER_S
        params: PaymentIntentListParams = {"created": {"gte": since_s}, "limit": _PAGE}
        for _ in range(_PAGES_MAX):
            page = await asked(self._intents.list_async(params))
            for intent in page.data:
                yield intent
            if not page.has_more:
                return
            params["starting_after"] = page.data[-1].id
        raise EffectRetry(
            f"Stripe has more than {_PAGES_MAX * _PAGE} payments since {asked_at:%Y-%m-%d %H:%M}", is_about_call=True
        )


def metadata_of(thing: stripe.Refund | stripe.PaymentIntent) -> dict[str, str]:
    """The metadata as a plain dictionary; Stripe's own is not one."""
    metadata = getattr(thing, "metadata", None)
    return metadata.to_dict() if isinstance(metadata, stripe.StripeObject) else {}


async def asked(answer: Awaitable[T]) -> T:
    """Stripe's answer. Raises EffectRetry (KeySpent among them) or StripeRefused."""
    try:
        return await answer
    except (stripe.StripeError, *TRANSPORT_ERRORS) as error:
        meaning = translated(error)
        if isinstance(error, stripe.AuthenticationError | stripe.PermissionError):
            log.error("stripe_refuses_our_key", reason=str(meaning), mend="set STRIPE_API_KEY and restart the workers")
        raise meaning from None
