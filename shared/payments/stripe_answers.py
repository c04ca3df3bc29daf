"""Reads values from Stripe's answers, and makes them fit to be sent and stored.

Later code can rely on the values: texts are short, and any database and any message takes them; an id is a valid id,
and an amount is a whole number that a command may carry. An answer without such an id or amount is unreliable: it
becomes an EffectRetry, and the call may have had its effect.
"""

from typing import Final

import msgspec

from coordinator import EffectRetry, storable
from shared.payments.commands import ProviderId, Total
from shared.payments.model import REASON_CHARACTERS_MAX, code_of
from shared.payments.provider import Declined, Refused
from shared.payments.stripe_amounts import AmountNotChargeable, from_stripe

NOT_AS_WANTED: Final = (msgspec.ValidationError, UnicodeEncodeError)
"""What msgspec raises for a value of another type. The second one: a text has half a surrogate pair."""
_SHOWN: Final = 100


def text_of(value: object) -> str:
    """A text of Stripe's; any other value in its written form."""
    return storable("" if value is None else str(value), REASON_CHARACTERS_MAX)


def known_code(value: object) -> str:
    """A code of Stripe's; `unknown` if no part of it can be kept."""
    return code_of("" if value is None else str(value)) or "unknown"


def declined(code: object, message: object) -> Declined:
    return Declined(code=known_code(code), message=text_of(message))


def refused(code: object, message: object, status: object = None) -> Refused:
    return Refused(code=known_code(code), message=text_of(message), status=None if status is None else text_of(status))


def id_of(value: object) -> str:
    """The id of a payment or a refund at Stripe. Raises EffectRetry."""
    try:
        return msgspec.convert(value, ProviderId)
    except NOT_AS_WANTED:
        raise _unusable(f"{_shown(value)} is no id") from None


def amount_of(value: object, currency: object) -> int:
    """In minor units of ISO 4217. Raises EffectRetry."""
    try:
        amount = from_stripe(msgspec.convert(value, int), msgspec.convert(currency, str))
        return msgspec.convert(amount, Total)
    except (*NOT_AS_WANTED, AmountNotChargeable):
        raise _unusable(f"{_shown(value)} {_shown(currency)} is no amount") from None


def _unusable(problem: str) -> EffectRetry:
    return EffectRetry(f"Stripe answered what cannot be: {problem}", may_have_happened=True, is_about_call=True)


def _shown(value: object) -> str:
    return repr(value)[:_SHOWN]
