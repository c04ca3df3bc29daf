"""Currencies and their minor units, as ISO 4217 has them: a code is current, and has 0 to 4 decimals or none at all."""

from iso4217 import Currency


def minor_unit_digits(currency: str) -> int | None:
    """How many decimals the currency has: 2 for EUR, 0 for JPY, 3 for KWD.

    None for a text that is not a current code, and for codes without a minor unit, such as gold (XAU).
    """
    try:
        return Currency(currency).exponent
    except ValueError:
        return None
