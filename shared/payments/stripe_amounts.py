"""Amounts as Stripe counts them. Ours are integers in minor units of ISO 4217; in most currencies, so are Stripe's.

The differences (https://docs.stripe.com/currencies#zero-decimal and #special-cases):

    ISK, UGX                  no decimals in ISO 4217, two at Stripe, which must be 00
    MGA                       two decimals in ISO 4217, none at Stripe
    BHD, JOD, KWD, OMR, TND   three decimals at both; at Stripe the last digit must be 0
    other currencies whose decimals are not two or none: Stripe has none of them

Whether Stripe takes a currency at all, and the least and largest amount, depend on the account.
"""

from typing import Final

from coordinator import CoordinatorError
from shared.payments.currencies import minor_unit_digits

_ZERO_DECIMAL: Final = frozenset(
    ("BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF")
)
_THREE_DECIMAL: Final = frozenset(("BHD", "JOD", "KWD", "OMR", "TND"))
_TWO_DECIMALS_ALWAYS_00: Final = frozenset({"ISK", "UGX"})


class AmountNotChargeable(CoordinatorError):
    """Raised for an amount that Stripe cannot be asked for. `code` is stable."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def to_stripe(amount: int, currency: str) -> int:
    """An amount as Stripe counts it. Raises AmountNotChargeable; it never rounds."""
    ours, theirs = _digits(currency)
    if currency in _THREE_DECIMAL and amount % 10:
        raise AmountNotChargeable(
            "amount_not_representable", f"{amount} minor units of {currency}: Stripe takes multiples of 10 only"
        )
    if theirs >= ours:
        return amount * _power(theirs - ours)
    converted, rest = divmod(amount, _power(ours - theirs))
    if rest:
        raise AmountNotChargeable(
            "amount_not_representable",
            f"{amount} minor units of {currency}: Stripe takes multiples of {_power(ours - theirs)} only",
        )
    return converted


def from_stripe(amount: int, currency: str) -> int:
    """Stripe's amount in minor units. `currency` as Stripe writes it, `eur`, or as we do.

    Raises AmountNotChargeable for an amount that to_stripe() does not make.
    """
    ours, theirs = _digits(currency.upper())
    if theirs <= ours:
        return amount * _power(ours - theirs)
    converted, rest = divmod(amount, _power(theirs - ours))
    if rest:
        raise AmountNotChargeable(
            "amount_not_representable", f"Stripe's amount {amount} is no whole {currency.upper()}"
        )
    return converted


def _digits(currency: str) -> tuple[int, int]:
    """The decimals of a currency in ISO 4217, and at Stripe."""
    ours = minor_unit_digits(currency)
    if ours is None:
        raise AmountNotChargeable("unknown_currency", f"{currency!r} is no currency of ISO 4217 that amounts are in")
    if currency in _ZERO_DECIMAL:
        return ours, 0
    if currency in _THREE_DECIMAL:
        return ours, 3
    if ours == 2 or currency in _TWO_DECIMALS_ALWAYS_00:  # noqa: PLR2004 - two decimals
        return ours, 2
    raise AmountNotChargeable("currency_unsupported", f"Stripe takes no payments in {currency}")


def _power(digits: int) -> int:
    """A whole number, which `10 ** digits` is not for every integer."""
    return (1, 10, 100, 1000, 10_000)[digits]
