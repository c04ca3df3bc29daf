"""Settings of the ingress."""

import re
from typing import Final, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from coordinator.runtime.limits import Limits
from coordinator.runtime.lists import shown_word, words_of
from coordinator.runtime.longest_time import SECONDS_MIN

_ACCOUNT_CHARACTERS_MAX: Final = 100
_ACCOUNT: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{_ACCOUNT_CHARACTERS_MAX - 1}}}")


class IngressSettings(BaseSettings, Limits):
    """Whose commands the ingress hands on, and its limits."""

    model_config = SettingsConfigDict(env_prefix="INGRESS_")

    accounts: str = Field(
        default="",
        description="RabbitMQ's accounts of outside publishers, with spaces between, such as `billing partner`: each "
        "has an exchange and a queue `ingress.<account>`.",
    )
    account_rate_max: int = Field(
        default=2000,
        ge=0,
        le=1_000_000,
        description="Commands a second of one account, each 4 KiB of a body being one more; others wait in its queue. "
        "0: no limit.",
    )
    account_burst_max: int = Field(
        default=2000,
        ge=1,
        le=10_000_000,
        description="Commands of one account that are handed on at once, after it was quiet.",
    )
    account_in_flight_max: int = Field(
        default=20,
        ge=1,
        le=10_000,
        description="Messages of one account that a process holds in memory, each as large as RabbitMQ lets it be. The "
        "same for all processes of an ingress.",
    )
    lane_ready_max: int = Field(
        default=1000,
        ge=1,
        le=10_000_000,
        description="Messages that wait in a lane's queue above which those of outside accounts wait in theirs: a lane "
        "that is slow, or down, is left to its other clients.",
    )
    lane_ready_bytes_max: int = Field(
        default=64 << 20,
        ge=1024,
        le=1 << 50,
        description="Bytes of one account that wait in a lane's queue above which its others wait in its own: it must "
        "not fill the lane's (AMQP_QUEUE_BYTES_MAX).",
    )
    queue_messages_max: int = Field(
        default=10_000,
        ge=1,
        le=10_000_000,
        description="Messages of an account's queue above which RabbitMQ refuses its publishes.",
    )
    queue_bytes_max: int = Field(
        default=64 << 20,
        ge=1024,
        le=1 << 50,
        description="Bytes of an account's queue above which RabbitMQ refuses its publishes.",
    )
    stop_timeout_s: float = Field(
        default=10.0, ge=SECONDS_MIN, description="How long a stop waits for messages that are handed on just then."
    )

    @property
    def named(self) -> tuple[str, ...]:
        """The accounts, each once. Raises ValueError, which names what is wrong, for a person."""
        try:
            names = tuple(dict.fromkeys(words_of(self.accounts)))
        except ValueError as error:
            raise ValueError(f"INGRESS_ACCOUNTS: {error}") from None
        for name in names:
            if not _ACCOUNT.fullmatch(name):
                raise ValueError(
                    f"INGRESS_ACCOUNTS: {shown_word(name)} is not the name of an account here: 1 to "
                    f"{_ACCOUNT_CHARACTERS_MAX} letters and digits of ASCII, dots, dashes and underscores, the first "
                    "of them a letter or a digit"
                )
        return names

    @model_validator(mode="after")
    def _accounts_can_be_read(self) -> Self:
        _ = self.named
        return self
