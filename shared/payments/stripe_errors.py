"""Translates Stripe's errors: ask again later, or an answer that will not change.

Sources: https://docs.stripe.com/api/errors, https://docs.stripe.com/error-low-level and
https://docs.stripe.com/api/idempotent_requests.
"""

from typing import Final

import aiohttp
import stripe
from msgspec import Struct

from coordinator import CoordinatorError, EffectRetry
from shared.payments.stripe_answers import known_code, text_of

_UNSENT: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
"""There was no connection, so Stripe knows nothing of the call."""

TRANSPORT_ERRORS: Final = (aiohttp.ClientError, TimeoutError, OSError)
"""Errors that the client may raise unchanged while an answer's body is being read."""

_SERVER_ERROR: Final = 500
_CONFLICT: Final = 409


class KeySpent(EffectRetry):
    """Raised when Stripe remembers for this idempotency key a fault of its own, or a call with other parameters.

    An earlier release may have made such a call. Stripe will repeat this answer for as long as it knows the key; the
    result of the first call shows elsewhere.
    """


class StripeRefused(CoordinatorError):
    """Raised when Stripe refused a call. `by_issuer`: the payer's bank, or a rule on the payer, decided."""

    def __init__(self, code: str, message: str, *, by_issuer: bool) -> None:
        super().__init__(text_of(message))
        self.code = known_code(code)
        self.by_issuer = by_issuer


class _ErrorParts(Struct, frozen=True):
    """The parts of an error answer that decide."""

    status: int
    code: str
    message: str
    replayed: bool
    retry_after_s: float | None


def translated(error: Exception) -> EffectRetry | StripeRefused:
    """The error to raise instead of one of the client or of its transport."""
    if not isinstance(error, stripe.StripeError):
        return EffectRetry(f"no whole answer from Stripe: {_shown(error)}", may_have_happened=True)
    if isinstance(error, stripe.APIConnectionError):
        unsent = isinstance(error.__cause__, _UNSENT)
        return EffectRetry(f"Stripe cannot be reached: {_shown(error.__cause__)}", may_have_happened=not unsent)
    return _decided(error, _answer(error))


def _decided(error: stripe.StripeError, answer: _ErrorParts) -> EffectRetry | StripeRefused:
    shown = f"Stripe answered {answer.status} {answer.code}: {answer.message}"
    if isinstance(error, stripe.RateLimitError):
        return EffectRetry(shown, after_s=answer.retry_after_s)
    if isinstance(error, stripe.AuthenticationError | stripe.PermissionError):
        return EffectRetry(f"{shown}; check STRIPE_API_KEY", after_s=answer.retry_after_s)
    if isinstance(error, stripe.CardError):
        return StripeRefused(answer.code, answer.message, by_issuer=True)
    if isinstance(error, stripe.InvalidRequestError):
        return StripeRefused(answer.code, answer.message, by_issuer=False)
    if isinstance(error, stripe.IdempotencyError) or (answer.status >= _SERVER_ERROR and answer.replayed):
        return KeySpent(shown, after_s=answer.retry_after_s, may_have_happened=True, is_about_call=True)
    # 409: the call that holds the key may be one of ours whose answer was lost.
    return EffectRetry(
        shown,
        after_s=answer.retry_after_s,
        may_have_happened=True,
        is_about_call=answer.status == _CONFLICT,
    )


def _answer(error: stripe.StripeError) -> _ErrorParts:
    body = error.json_body
    found = body.get("error") if isinstance(body, dict) else None
    details: dict[str, object] = found if isinstance(found, dict) else {}
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    # The bank's reason is more precise than `card_declined`.
    code = details.get("decline_code") or details.get("code") or details.get("type") or "no_code"
    return _ErrorParts(
        status=error.http_status or 0,
        code=known_code(code),
        message=text_of(details.get("message") or error.user_message),
        replayed=headers.get("idempotent-replayed") == "true",
        retry_after_s=_seconds(headers.get("retry-after")),
    )


def _seconds(retry_after: str | None) -> float | None:
    """RFC 9110 allows a date as well; Stripe sends seconds."""
    return float(retry_after) if retry_after is not None and retry_after.isdecimal() else None


def _shown(error: BaseException | None) -> str:
    """The text of a transport error. Time-outs have none of their own."""
    return f"{type(error).__name__} {error}".strip()
