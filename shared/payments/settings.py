"""The settings of the payment provider."""

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from coordinator import ConfigurationError
from coordinator.settings import EffectSettings, Limits


class StripeSettings(BaseSettings, Limits):
    """The payment provider: Stripe, or the sandbox that speaks its API."""

    model_config = SettingsConfigDict(env_prefix="STRIPE_")

    api_key: SecretStr | None = Field(
        default=None, description="For the workers that call Stripe: `sk_test_…`, `sk_live_…` or `rk_…`."
    )
    api_base: str = Field(default="https://api.stripe.com", pattern=r"^https?://", description="Where Stripe's API is.")
    timeout_s: float = Field(
        default=15.0, ge=0.001, description="Limit of one call; then it is unknown what became of it."
    )
    webhook_secret: SecretStr | None = Field(
        default=None, description="For the gateway that receives Stripe's events: `whsec_…`."
    )
    spent_key_s: float = Field(
        default=60.0,
        ge=0,
        description="Stripe keeps a fault of its own for the idempotency key: so long after an authorization was asked "
        "for, and if Stripe knows of none, it is asked for with another key.",
    )
    metadata_key: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="For both: signs what is ours at Stripe, where others may have payments on the account. A secret "
        "of this deployment, 16 characters or more; keep it when other keys are changed.",
    )
    webhook_tolerance_s: int = Field(
        default=300, ge=1, description="How far an event's time may be from ours; it is signed again at every delivery."
    )


class CallingSettings(StripeSettings):
    """Of a process that calls Stripe, which cannot do without these: all that are missing are said at once."""

    api_key: SecretStr
    metadata_key: SecretStr = Field(min_length=16)


def check_calls_fit(effects: EffectSettings, stripe: StripeSettings) -> None:
    """A call must have the time to fail by itself. Raises ConfigurationError, which names both settings."""
    if effects.call_timeout_s <= stripe.timeout_s:
        raise ConfigurationError(
            f"EFFECTS_CALL_TIMEOUT_S ({effects.call_timeout_s:g}) must be above STRIPE_TIMEOUT_S "
            f"({stripe.timeout_s:g}): else calls are given up before they fail"
        )
