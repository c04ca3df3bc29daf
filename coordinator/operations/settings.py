"""Settings of the operations gateway."""

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from coordinator.operate.processes import checked_addresses
from coordinator.runtime.host_names import checked_hosts
from coordinator.runtime.settings import Limits


class OperationsSettings(BaseSettings, Limits):
    """The operations gateway's own limits."""

    model_config = SettingsConfigDict(env_prefix="OPERATIONS_")

    coordinators: str = Field(
        default="",
        description="Addresses of the `--metrics-port` of coordinators and effect workers, such as "
        "`http://10.0.0.5:9101`, with spaces between: they tell which process is active, which stand by, why a lane is "
        "suspended, and that a provider is away.",
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

    open_as: str = Field(
        default="",
        description="With `ACCESS_METHODS=none`: the names of hosts, with spaces between, by which everybody may ask "
        "this port, and operate every lane. Without them it does not listen beyond loopback. `localhost` and "
        "`127.0.0.1` always count. Without them nobody comes through a proxy, either.",
    )
    behind_tls: bool = Field(
        default=False,
        description="A proxy that ends TLS is in front, and browsers come by HTTPS alone: the cookie of a session is "
        "for HTTPS. Needless with `GATEWAY_TLS_*`.",
    )

    @field_validator("open_as")
    @classmethod
    def _hosts(cls, text: str) -> str:
        return " ".join(checked_hosts(text.replace(",", " ").split()))

    @field_validator("coordinators")
    @classmethod
    def _addresses(cls, text: str) -> str:
        return " ".join(checked_addresses(text.replace(",", " ").split()))
