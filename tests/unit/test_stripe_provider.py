"""What no server can be made to do at will: an answer that is unknown stays so until one clears it up."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import stripe
from pydantic import SecretStr

from coordinator.service.errors import ConfigurationError
from coordinator.service.outside_calls import EffectRetry
from shared.payments.provider import Authorized
from shared.payments.settings import StripeSettings
from shared.payments.stripe_provider import StripeProvider

SPENT = stripe.APIError("a fault", http_status=500, headers={"Idempotent-Replayed": "true"})
NO_PARAMETER = stripe.InvalidRequestError("no such parameter", None)  # type: ignore[no-untyped-call]  # of Stripe's
BUSY = stripe.RateLimitError("too many", http_status=429, headers={"Retry-After": "3"})
INTENT = stripe.PaymentIntent.construct_from({"id": "pi_1", "metadata": {}, "latest_charge": None}, "sk_test")
HELD = stripe.PaymentIntent.construct_from({"id": "pi_1", "status": "requires_capture"}, "sk_test")
NONE: stripe.ListObject[Any] = stripe.ListObject.construct_from({"data": [], "has_more": False}, "sk_test")
SETTINGS = StripeSettings(api_key=SecretStr("sk_test"), metadata_key=SecretStr("k" * 32))


def asked(**changed: Any) -> dict[str, Any]:
    """The arguments of an authorization."""
    given = {"payment_id": 1, "amount": 1, "currency": "EUR", "payment_method": "pm_card_visa", "key": "k"}
    return given | {"asked_at": datetime.now(UTC), "is_repeated": False} | changed


def answers(*given: object) -> Callable[..., Awaitable[object]]:
    """A method of Stripe's client that answers so, one after another."""
    left = list(given)

    async def method(*_: object) -> object:
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return method


@pytest.fixture
def provider() -> StripeProvider:
    return StripeProvider(SETTINGS)


async def undecided(call: Awaitable[object]) -> tuple[bool, float | None]:
    with pytest.raises(EffectRetry) as retry:
        await call
    return retry.value.may_have_happened, retry.value.after_s


async def test_a_capture_of_unknown_result_stays_unknown_while_stripe_is_busy(
    provider: StripeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider._intents, "capture_async", answers(SPENT, BUSY))
    monkeypatch.setattr(provider._intents, "retrieve_async", answers(HELD))
    call = provider.capture(payment_id=1, provider_id="pi_1", amount=1, currency="EUR", key="k")
    assert await undecided(call) == (True, 3.0)


async def test_an_authorization_of_unknown_result_stays_unknown_while_stripe_is_busy(
    provider: StripeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider._intents, "create_async", answers(SPENT))
    monkeypatch.setattr(provider._intents, "search_async", answers(BUSY))
    call = provider.authorize(**asked())
    assert await undecided(call) == (True, 3.0)


async def test_a_refund_of_unknown_result_stays_unknown_while_stripe_is_busy(
    provider: StripeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider._refunds, "create_async", answers(SPENT))
    monkeypatch.setattr(provider._refunds, "list_async", answers(NONE, BUSY))
    call = provider.refund(
        payment_id=1,
        refund_id=2,
        provider_id="pi_1",
        amount=1,
        currency="EUR",
        key="k",
        asked_at=datetime.now(UTC),
        is_repeated=True,
    )
    assert await undecided(call) == (True, 3.0)


async def test_what_is_still_being_processed_is_asked_for_again(
    provider: StripeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    processing = stripe.PaymentIntent.construct_from({"id": "pi_1", "status": "processing"}, "sk_test")
    monkeypatch.setattr(provider._intents, "create_async", answers(processing, processing))
    monkeypatch.setattr(provider._intents, "retrieve_async", answers(processing, HELD))
    assert await undecided(provider.authorize(**asked())) == (True, None)
    assert await provider.authorize(**asked()) == Authorized(provider_id="pi_1")


@pytest.mark.parametrize("refusal", [NO_PARAMETER, SPENT])
async def test_a_look_up_that_is_refused_refuses_no_payment(
    provider: StripeProvider, monkeypatch: pytest.MonkeyPatch, refusal: stripe.StripeError
) -> None:
    monkeypatch.setattr(provider._intents, "search_async", answers(refusal))
    monkeypatch.setattr(provider._intents, "list_async", answers(refusal))
    assert (await undecided(provider.authorize(**asked(is_repeated=True))))[1] is None
    monkeypatch.setattr(provider._intents, "search_async", answers(refusal))
    monkeypatch.setattr(provider._intents, "list_async", answers(refusal))
    look_up = provider.look_up_authorization(
        payment_id=1, amount=1, currency="EUR", key="k", asked_at=datetime.now(UTC)
    )
    await undecided(look_up)
    monkeypatch.setattr(provider._refunds, "list_async", answers(refusal))
    await undecided(provider.look_up_refund(payment_id=1, refund_id=2, provider_id="pi_1", key="k"))


def test_without_a_key_nothing_starts() -> None:
    with pytest.raises(ConfigurationError, match="STRIPE_API_KEY"):
        StripeProvider(StripeSettings())
    with pytest.raises(ConfigurationError, match="STRIPE_METADATA_KEY"):
        StripeProvider(StripeSettings(api_key=SecretStr("sk_test")))
