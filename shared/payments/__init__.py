"""Payments, on MySQL or MariaDB, through a payment provider."""

from pathlib import Path

from coordinator import Effects, Service
from coordinator.settings import EffectSettings, load
from shared.payments.effects import PaymentEffects
from shared.payments.handlers import HANDLERS
from shared.payments.model import Payment, Refund, ReversalWaiter, Waiters, metadata
from shared.payments.rules import SHOWN_PAYMENTS
from shared.payments.settings import CallingSettings, check_calls_fit


def open_payment_effects() -> Effects:
    """The calls to Stripe. Raises ConfigurationError."""
    # Stripe's package is large, and of all processes only those that call it need it.
    from shared.payments.stripe_provider import StripeProvider  # noqa: PLC0415

    stripe = load(CallingSettings)
    check_calls_fit(load(EffectSettings), stripe)
    return PaymentEffects(StripeProvider(stripe))


SERVICE = Service(
    name="payments",
    models=(Payment, Refund, Waiters, ReversalWaiter),
    handlers=HANDLERS,
    metadata=metadata,
    row_rules={Payment: SHOWN_PAYMENTS},
    migrations=Path(__file__).parent / "migrations",
    effects=open_payment_effects,
)
