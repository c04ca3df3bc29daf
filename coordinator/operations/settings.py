"""Settings of the operations gateway."""

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from coordinator.runtime.settings import Limits

COORDINATORS_MAX: Final = 100


class OperationsSettings(BaseSettings, Limits):
    """The operations gateway's own limits."""

    model_config = SettingsConfigDict(env_prefix="OPERATIONS_")

    coordinators: str = Field(
        default="",
        description="Addresses of coordinators' `--metrics-port`, such as `http://10.0.0.5:9101`, with spaces between: "
        "they tell which process is active, which stand by, and why a lane is suspended.",
    )
    refresh_s: float = Field(
        default=0.5, ge=0.1, le=60, description="How often it looks at the lanes while somebody has a page open."
    )
    viewers_max: int = Field(
        default=50,
        ge=1,
        le=1000,
        description="Pages that are kept up to date at once. One who signed in has a fifth of them.",
    )
    session_s: float = Field(
        default=3600.0, ge=60, le=86_400, description="A browser must show its key again after this time."
    )
    wait_s: float = Field(default=10.0, ge=1, le=60, description="How long an act waits for its lane.")

    @field_validator("coordinators")
    @classmethod
    def _addresses(cls, text: str) -> str:
        return " ".join(checked_addresses(text.replace(",", " ").split()))


def checked_addresses(texts: Sequence[str]) -> list[str]:
    """Addresses of coordinators, each once. Raises ValueError for what is none, or too many."""
    found = list(dict.fromkeys(each.rstrip("/") for each in texts))
    if len(found) > COORDINATORS_MAX:
        raise ValueError(f"{len(found)} addresses are named, and {COORDINATORS_MAX} at most are asked")
    for each in found:
        try:
            parts = urlsplit(each)
            is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port is not None
        except ValueError:
            is_good = False
        if not is_good or parts.path or parts.query or parts.fragment or parts.username is not None:
            raise ValueError(f"{each[:100]!r} is no address of a coordinator, such as http://10.0.0.5:9101")
    return found
