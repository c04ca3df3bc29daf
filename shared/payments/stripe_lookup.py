"""What Stripe knows of the calls that we made: by an id, or by the idempotency key in the metadata.

Stripe's search lags by up to a minute, and by more during an outage (https://docs.stripe.com/search#data-freshness), so
what it finds is there, and what it does not find may be there too. Retrieving and listing show what was written a
moment ago: they are what a "no" rests on.
"""

from collections.abc import AsyncIterator, Awaitable
from datetime import datetime
from typing import TYPE_CHECKING, Final, TypeVar

import stripe
import structlog

from shared.effects import EffectRetry
from shared.payments.stripe_errors import TRANSPORT_ERRORS, StripeRefused, translated
from shared.payments.stripe_metadata import KEY_METADATA

if TYPE_CHECKING:
    from stripe.params import PaymentIntentListParams, RefundListParams

log = structlog.get_logger("stripe")

_PAGE: Final = 100
_PAGES_MAX: Final = 100
_CLOCKS_DIFFER_S: Final = 300
"""How much earlier than ours Stripe's clock may be."""

T = TypeVar("T")

_LIVE: Final = ("requires_capture", "succeeded", "processing")


class StripeLookUp:
    """Reads one account. Raises EffectRetry and StripeRefused."""

    def __init__(self, client: stripe.StripeClient) -> None:
        self._intents = client.v1.payment_intents
        self._refunds = client.v1.refunds

    async def intent(self, provider_id: str) -> stripe.PaymentIntent:
        return await asked(self._intents.retrieve_async(provider_id))

    async def charge(self, provider_id: str) -> stripe.Charge:
        """What was taken and given back of a payment, in all. Raises EffectRetry where Stripe shows none."""
        intent = await asked(self._intents.retrieve_async(provider_id, {"expand": ["latest_charge"]}))
        if not isinstance(intent.latest_charge, stripe.Charge):
            raise EffectRetry(f"{provider_id} has no charge", may_have_happened=True, is_about_call=True)
        return intent.latest_charge

    async def intent_with(
        self, key: str, amount: int, currency: str, asked_at: datetime
    ) -> stripe.PaymentIntent | None:
        """The payment that was made with this key, not before `asked_at`; of several, one that holds or took.

        Raises EffectRetry also where there are too many payments to look through, and where the payment is of another
        amount than is asked for, which nothing of ours makes.
        """
        intents = await self._searched(key) or await self._listed(key, asked_at)
        if not intents:
            return None
        intent = next((intent for intent in intents if intent.status in _LIVE), intents[0])
        if (intent.amount, intent.currency) != (amount, currency.lower()):
            text = f"{intent.id} bears the key {key}, and is of {intent.amount} {intent.currency}"
            raise EffectRetry(text, may_have_happened=True, is_about_call=True)
        return intent

    async def refund_with(self, provider_id: str, key: str) -> stripe.Refund | None:
        """The refund of a payment that was made with this key."""
        for refund in await self.refunds(provider_id):
            if metadata_of(refund).get(KEY_METADATA) == key:
                return refund
        return None

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
    """As a plain dictionary, which Stripe's is not."""
    return {} if thing.metadata is None else thing.metadata.to_dict()


async def asked(answer: Awaitable[T]) -> T:
    """What Stripe answers. Raises EffectRetry (KeySpent among them) or StripeRefused."""
    try:
        return await answer
    except (stripe.StripeError, *TRANSPORT_ERRORS) as error:
        meaning = translated(error)
        if isinstance(error, stripe.AuthenticationError | stripe.PermissionError):
            log.error("stripe_refuses_our_key", reason=str(meaning), mend="set STRIPE_API_KEY and restart the workers")
        raise meaning from None
