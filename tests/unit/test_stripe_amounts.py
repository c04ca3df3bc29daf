"""Money crosses to Stripe and back unchanged, or not at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from iso4217 import Currency

from shared.payments.currencies import minor_unit_digits
from shared.payments.stripe_amounts import AmountNotChargeable, from_stripe, to_stripe


@pytest.mark.parametrize(("code", "digits"), [("EUR", 2), ("JPY", 0), ("ISK", 0), ("KWD", 3), ("CLF", 4), ("MGA", 2)])
def test_minor_units_are_those_of_iso_4217(code: str, digits: int) -> None:
    assert minor_unit_digits(code) == digits


@pytest.mark.parametrize("code", ["", "eur", "EURO", "XAU", "XXX", "ZZZ", "DEM"])
def test_what_is_no_current_currency_has_no_minor_unit(code: str) -> None:
    assert minor_unit_digits(code) is None


@pytest.mark.parametrize(
    ("amount", "currency", "stripe"),
    [
        (1099, "EUR", 1099),
        (1, "USD", 1),
        (500, "JPY", 500),
        (1045, "HUF", 1045),  # whole forints are a rule for payouts only
        (800, "TWD", 800),
        (5, "ISK", 500),
        (5, "UGX", 500),
        (500, "MGA", 5),
        (5120, "KWD", 5120),
        (10, "TND", 10),
        (10**12, "UGX", 10**14),
    ],
)
def test_an_amount_crosses_as_stripe_counts_it_and_comes_back(amount: int, currency: str, stripe: int) -> None:
    assert to_stripe(amount, currency) == stripe
    assert from_stripe(stripe, currency) == amount
    assert from_stripe(stripe, currency.lower()) == amount


@pytest.mark.parametrize(
    ("amount", "currency", "code", "named"),
    [
        (5124, "KWD", "amount_not_representable", "multiples of 10"),
        (1, "BHD", "amount_not_representable", "multiples of 10"),
        (150, "MGA", "amount_not_representable", "multiples of 100"),
        (1000, "IQD", "currency_unsupported", "IQD"),
        (1000, "CLF", "currency_unsupported", "CLF"),
        (1000, "UYI", "currency_unsupported", "UYI"),
        (1000, "XAU", "unknown_currency", "XAU"),
        (1000, "ZZZ", "unknown_currency", "ZZZ"),
    ],
)
def test_an_amount_that_stripe_cannot_take_is_refused_and_named(
    amount: int, currency: str, code: str, named: str
) -> None:
    with pytest.raises(AmountNotChargeable, match=named) as refused:
        to_stripe(amount, currency)
    assert refused.value.code == code


def test_a_fraction_that_cannot_be_is_not_rounded_on_its_way_back() -> None:
    with pytest.raises(AmountNotChargeable, match="no whole ISK"):
        from_stripe(550, "isk")


@given(st.sampled_from([currency.code for currency in Currency]), st.integers(1, 10**12))
def test_every_amount_comes_back_as_it_went_or_is_refused(currency: str, amount: int) -> None:
    try:
        crossed = to_stripe(amount, currency)
    except AmountNotChargeable:
        return
    assert type(crossed) is int
    assert from_stripe(crossed, currency) == amount
