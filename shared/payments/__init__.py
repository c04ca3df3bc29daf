"""Payments and refunds, on MySQL or MariaDB, through a provider."""

from pathlib import Path

from shared.effects import Effects
from shared.payments.handlers import HANDLERS
from shared.payments.model import Payment, PaymentAction, Refund, metadata
from shared.service import Service


def open_effects() -> Effects:
    """The calls to Stripe, from the settings. Raises ConfigurationError."""
    from shared.payments.effects import PaymentEffects  # noqa: PLC0415
    from shared.payments.stripe_provider import StripeProvider  # noqa: PLC0415  # large, and only workers call
    from shared.settings import StripeSettings, load  # noqa: PLC0415

    return PaymentEffects(StripeProvider(load(StripeSettings)))


SERVICE = Service(
    name="payments",
    models=(Payment, PaymentAction, Refund),
    handlers=HANDLERS,
    metadata=metadata,
    migrations=Path(__file__).parent / "migrations",
    effects=open_effects,
)
