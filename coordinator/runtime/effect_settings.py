"""Settings of effect workers."""

from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from coordinator.runtime.limits import Limits
from coordinator.runtime.longest_time import SECONDS_MIN

READ_AHEAD_S_MAX = 1200.0
"""How long an effect may wait in a worker: RabbitMQ closes a channel that acknowledges nothing for 30 minutes."""


class EffectSettings(BaseSettings, Limits):
    """The limits of effect workers."""

    model_config = SettingsConfigDict(env_prefix="EFFECTS_")

    concurrency: int = Field(default=16, ge=1, le=1000, description="Calls that one worker makes at once.")
    read_ahead_max: int = Field(
        default=500,
        ge=0,
        le=10_000,
        description="Effects that one worker holds beside those, so that whoever asked for one has his turn among "
        "others' many. Fewer, where one could wait there longer than 20 minutes.",
    )
    call_timeout_s: float = Field(default=30.0, ge=SECONDS_MIN, description="How long one call may take in all.")
    give_up_after_s: float = Field(
        default=86_400.0,
        ge=SECONDS_MIN,
        description="How long a worker repeats a call before it gives up: no longer than the other side "
        "remembers an idempotency key.",
    )
    retry_delay_s: float = Field(
        default=0.5, ge=SECONDS_MIN, description="The first pause between two attempts is at most this; it doubles."
    )
    retry_delay_s_max: float = Field(
        default=600.0,
        ge=SECONDS_MIN,
        description="Longest pause between two attempts, unless the provider asks for a longer one.",
    )
    breaker_failures: int = Field(
        default=10,
        ge=1,
        le=1_000_000,
        description="Calls in a row without an answer, after which the provider counts as away.",
    )
    breaker_pause_s_max: float = Field(
        default=60.0,
        ge=SECONDS_MIN,
        description="Longest pause between two calls to a provider that is away; it doubles from 1 s.",
    )
    stop_timeout_s: float = Field(
        default=35.0, ge=SECONDS_MIN, description="How long a stop waits for calls under way."
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self._check_at_most("retry_delay_s", "retry_delay_s_max")
        return self

    @property
    def held_max(self) -> int:
        """Effects that one worker has at a time."""
        calls = int(READ_AHEAD_S_MAX / self.call_timeout_s)
        return self.concurrency + min(self.read_ahead_max, calls * self.concurrency)
