"""Whether a call is made again, and whether it may have had its effect, depends on what came back of it."""

import json

import aiohttp
import pytest
import stripe
from aiohttp.client_reqrep import ConnectionKey

from coordinator.service.outside_calls import EffectRetry
from shared.payments.stripe_errors import KeySpent, StripeRefused, translated

DISCONNECTED = aiohttp.ServerDisconnectedError()
STRIPE = ConnectionKey("stripe", 443, is_ssl=True, ssl=True, proxy=None, proxy_auth=None, proxy_headers_hash=None)
REFUSED = aiohttp.ClientConnectorError(STRIPE, ConnectionRefusedError(111, "refused"))


def answered(status: int, error: dict[str, str], headers: dict[str, str] | None = None) -> stripe.StripeError:
    """What Stripe's client raises for an answer."""
    body = json.dumps({"error": error})
    requestor = stripe.StripeClient("sk_test")._requestor
    with pytest.raises(stripe.StripeError) as raised:
        requestor._interpret_response(body, status, headers or {}, "V1")
    return raised.value


def unreached(cause: BaseException) -> stripe.APIConnectionError:
    error = stripe.APIConnectionError("Network error")  # type: ignore[no-untyped-call]  # of Stripe's
    error.__cause__ = cause
    return error


def retry_after(error: Exception) -> EffectRetry:
    """What it means, where that is to try again."""
    meaning = translated(error)
    assert isinstance(meaning, EffectRetry)
    return meaning


@pytest.mark.parametrize(
    ("error", "may_have_happened"),
    [
        (unreached(REFUSED), False),
        (unreached(aiohttp.ConnectionTimeoutError()), False),
        (unreached(DISCONNECTED), True),
        (unreached(TimeoutError()), True),
        (aiohttp.ClientPayloadError("cut short"), True),
        (TimeoutError(), True),
        (ConnectionResetError(), True),
        (answered(429, {"code": "rate_limit"}), False),
        (answered(429, {"code": "lock_timeout"}), False),
        (answered(401, {"message": "Invalid API Key"}), False),
        (answered(403, {"message": "no permission"}), False),
        (answered(409, {"type": "idempotency_error", "code": "idempotency_key_in_use"}), True),
        (answered(500, {"type": "api_error"}), True),
        (answered(503, {"type": "api_error"}), True),
    ],
)
def test_what_decides_nothing_is_tried_again(error: Exception, may_have_happened: bool) -> None:
    meaning = retry_after(error)
    assert not isinstance(meaning, KeySpent)
    assert meaning.may_have_happened is may_have_happened
    assert str(meaning)


def test_a_page_of_a_proxy_is_tried_again() -> None:
    requestor = stripe.StripeClient("sk_test")._requestor
    with pytest.raises(stripe.APIError) as raised:
        requestor._interpret_response("<html>Bad Gateway", 502, {}, "V1")
    assert retry_after(raised.value).may_have_happened


@pytest.mark.parametrize(
    ("header", "after_s"), [("7", 7.0), ("0", 0.0), ("soon", None), ("-1", None), ("", None), ("1e9", None)]
)
def test_retry_after_is_heeded_where_it_is_a_number_of_seconds(header: str, after_s: float | None) -> None:
    assert retry_after(answered(429, {}, {"Retry-After": header})).after_s == after_s


def test_a_fault_that_is_replayed_has_spent_its_key() -> None:
    replayed = answered(500, {"type": "api_error"}, {"Idempotent-Replayed": "true"})
    meaning = translated(replayed)
    assert isinstance(meaning, KeySpent)
    assert meaning.may_have_happened


def test_a_key_of_a_call_with_other_parameters_is_spent_on_it() -> None:
    """An earlier release may have made it: it is no refusal, since that call may have had its effect."""
    meaning = translated(answered(400, {"type": "idempotency_error"}))
    assert isinstance(meaning, KeySpent)
    assert meaning.may_have_happened


@pytest.mark.parametrize(
    ("error", "is_about_call"),
    [
        (answered(409, {"type": "idempotency_error", "code": "idempotency_key_in_use"}), True),
        (answered(500, {"type": "api_error"}, {"Idempotent-Replayed": "true"}), True),
        (answered(500, {"type": "api_error"}), False),
        (answered(429, {"code": "rate_limit"}), False),
        (answered(401, {"message": "Invalid API Key"}), False),
        (unreached(REFUSED), False),
    ],
)
def test_what_is_about_one_call_alone_does_not_count_against_stripe(error: Exception, is_about_call: bool) -> None:
    assert retry_after(error).is_about_call is is_about_call


@pytest.mark.parametrize(
    ("status", "error", "code", "by_issuer"),
    [
        (402, {"type": "card_error", "code": "card_declined", "decline_code": "lost_card"}, "lost_card", True),
        (402, {"type": "card_error", "code": "expired_card"}, "expired_card", True),
        (400, {"type": "invalid_request_error", "code": "amount_too_small"}, "amount_too_small", False),
        (404, {"type": "invalid_request_error", "code": "resource_missing"}, "resource_missing", False),
        (400, {"type": "invalid_request_error"}, "invalid_request_error", False),
    ],
)
def test_a_decision_is_final_and_keeps_stripes_code_and_message(
    status: int, error: dict[str, str], code: str, by_issuer: bool
) -> None:
    meaning = translated(answered(status, {**error, "message": "why not"}))
    assert isinstance(meaning, StripeRefused)
    assert (meaning.code, str(meaning), meaning.by_issuer) == (code, "why not", by_issuer)


def test_a_replayed_decline_is_a_decline() -> None:
    replayed = answered(402, {"code": "card_declined"}, {"Idempotent-Replayed": "true"})
    assert isinstance(translated(replayed), StripeRefused)
