"""Payment methods, which behave as in Stripe's list of test cards: https://docs.stripe.com/testing."""

from typing import Any, Final

from shared.payments.sandbox.faults import FAULTY_METHOD

_PAYING: Final = frozenset(
    ("pm_card_visa", "pm_card_visa_debit", "pm_card_mastercard", "pm_card_amex", "pm_card_discover", "pm_card_jcb")
)
# Method, code, decline code, message.
_DECLINING: Final = {
    "pm_card_visa_chargeDeclined": ("card_declined", "generic_decline", "Your card was declined."),
    "pm_card_chargeDeclined": ("card_declined", "generic_decline", "Your card was declined."),
    "pm_card_chargeDeclinedInsufficientFunds": (
        "card_declined",
        "insufficient_funds",
        "Your card has insufficient funds.",
    ),
    "pm_card_visa_chargeDeclinedInsufficientFunds": (
        "card_declined",
        "insufficient_funds",
        "Your card has insufficient funds.",
    ),
    "pm_card_visa_chargeDeclinedLostCard": ("card_declined", "lost_card", "Your card was declined."),
    "pm_card_visa_chargeDeclinedStolenCard": ("card_declined", "stolen_card", "Your card was declined."),
    "pm_card_chargeDeclinedFraudulent": ("card_declined", "fraudulent", "Your card was declined."),
    "pm_card_chargeDeclinedExpiredCard": ("expired_card", "expired_card", "Your card has expired."),
    "pm_card_chargeDeclinedIncorrectCvc": (
        "incorrect_cvc",
        "incorrect_cvc",
        "Your card's security code is incorrect.",
    ),
    "pm_card_chargeDeclinedProcessingError": (
        "processing_error",
        "processing_error",
        "An error occurred while processing your card. Try again in a little bit.",
    ),
    "pm_card_authenticationRequired": (
        "authentication_required",
        "authentication_required",
        "Your card was declined. This transaction requires authentication.",
    ),
}


def known(payment_method: str) -> bool:
    """Whether this payment method exists."""
    return payment_method in _PAYING or payment_method in _DECLINING or bool(FAULTY_METHOD.fullmatch(payment_method))


def decline(payment_method: str) -> dict[str, Any] | None:
    """The error with which a card declines; None for one that pays."""
    found = _DECLINING.get(payment_method)
    if found is None:
        return None
    code, decline_code, message = found
    return {"type": "card_error", "code": code, "decline_code": decline_code, "message": message}
