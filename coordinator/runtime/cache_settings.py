"""The settings of the cache, and where it must not be."""

from typing import Final, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from coordinator.runtime.address_fields import Url
from coordinator.runtime.loading import setting_value
from coordinator.runtime.longest_time import SECONDS_MIN
from coordinator.runtime.settings import Limits
from coordinator.service.errors import ConfigurationError

IN_MEMORY: Final = "memory://"
"""The address of the cache within one process."""


class CacheSettings(BaseSettings, Limits):
    """The cache of a service's rows."""

    model_config = SettingsConfigDict(env_prefix="REDIS_")

    url: Url = Field(
        repr=False,
        default="redis://127.0.0.1:6379/0",
        pattern=r"^(redis|rediss|memory)://",
        description="The cache's address. `memory://` is the memory of a process that has the lane and its readers "
        "(`coordinator dev MODULE:NAME`).",
    )
    timeout_s: float = Field(
        default=0.25, ge=SECONDS_MIN, description="A process does not wait longer than this for the cache."
    )
    ttl_s: int = Field(default=300, ge=1, description="How long a row stays in the cache.")
    lease_s: float = Field(
        default=2.0,
        ge=0.1,
        description="How long readers believe the cache without a sign of the lane: writes wait as long, once, when "
        "the lane loses Redis. The same for coordinators and gateways.",
    )
    memory_entries_max: int = Field(
        default=10_000,
        ge=1,
        le=100_000_000,
        description="How many rows `memory://` keeps; those used longest ago go. A Redis has limits of its own.",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self._check_at_most("timeout_s", "lease_s")
        if self.url.startswith(IN_MEMORY) and self.url != IN_MEMORY:
            raise ValueError(f"REDIS_URL: {IN_MEMORY} has nothing behind it")
        return self


def check_cache_is_shared() -> None:
    """Of a process that runs a lane or its gateway, and not both.

    Raises ConfigurationError for a cache that no other process sees: the gateway's would stay empty, and the lane's
    would be for nobody.
    """
    if setting_value("REDIS_URL") == IN_MEMORY:
        raise ConfigurationError(
            f"REDIS_URL: {IN_MEMORY} is within one process, which has the lane and its gateway (`coordinator dev "
            "MODULE:NAME`): here it must name a Redis"
        )
