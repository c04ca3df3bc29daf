"""Settings: every limit, timeout and address, read from the environment once, at a process's start.

Nothing here is read at import. A setting's name in the environment is its group's prefix and its field's name in
capitals: `LaneSettings.batch_commands_max` is `LANE_BATCH_COMMANDS_MAX`. docs/OPERATING.md lists them all.
"""

from typing import Annotated, Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.errors import ConfigurationError

Port = Annotated[int, Field(ge=1, le=65535)]
"""A TCP port."""


_DATABASE_URL = r"^(postgresql|mysql|mariadb|mongodb|sqlite)(\+srv)?://"


class BrokerSettings(BaseSettings):
    """How to reach RabbitMQ, and the limits of its queues."""

    model_config = SettingsConfigDict(env_prefix="AMQP_", extra="ignore")

    url: str = Field(
        default="amqp://guest:guest@127.0.0.1:5672/%2F",
        pattern=r"^amqps?://",
        description="The broker's address.",
    )
    heartbeat_s: int = Field(default=10, ge=2, le=600, description="A peer silent for this long is taken for dead.")
    connect_timeout_s: float = Field(default=5.0, gt=0, description="Limit of one attempt to connect.")
    reconnect_delay_s: float = Field(default=0.5, gt=0, description="Pause between two attempts to connect.")
    queue_bytes_max: int = Field(
        default=1 << 30,
        ge=1024,
        description="Bytes of a lane's queue above which new commands are refused.",
    )


class LaneSettings(BaseSettings):
    """The limits of a lane."""

    model_config = SettingsConfigDict(env_prefix="LANE_", extra="ignore")

    prefetch: int = Field(
        default=1000,
        ge=1,
        le=65535,
        description="Unacknowledged deliveries. The same for all consumers of a lane.",
    )
    batch_commands_max: int = Field(default=500, ge=1, le=10_000, description="Commands in one transaction.")
    batch_bytes_max: int = Field(default=4 << 20, ge=1024, description="Bytes of the messages in one transaction.")
    message_bytes_max: int = Field(
        default=1 << 20, ge=1024, description="Bytes of one message's body; a larger one is dead-lettered."
    )
    pack_commands_max: int = Field(
        default=1000, ge=500, description="Commands in one pack; those of a larger one are dead-lettered."
    )
    retry_delay_s: float = Field(default=0.2, gt=0, description="First pause after the database failed; it doubles.")
    retry_delay_s_max: float = Field(default=5.0, gt=0, description="Longest pause between two attempts.")
    allow_unsynced: bool = Field(
        default=False, description="Run on a database that does not sync its commits: confirmed commands can be lost."
    )
    held_max: int = Field(
        default=400, ge=0, description="Deliveries that wait for an earlier one of their publisher; below the prefetch."
    )
    gap_timeout_s: float = Field(
        default=5.0, ge=0, description="How long they wait before the missing command is given up."
    )
    parked_max: int = Field(
        default=10_000, ge=0, description="Commands that wait behind failed ones with the same key; more are rejected."
    )
    nameless_dead_max: int = Field(
        default=1000, ge=0, description="Dead letters without a usable id that are kept; more are dropped and counted."
    )
    outbox_max: int = Field(
        default=1000,
        ge=1,
        description="Emitted commands on their way at once to one lane, or one service's effects; others wait on disk.",
    )
    outbox_watch_s: float = Field(
        default=5.0, gt=0, description="How often a process looks for emitted commands that nobody publishes."
    )
    stop_timeout_s: float = Field(default=20.0, gt=0, description="How long a stop waits for the batch in flight.")


class EffectSettings(BaseSettings):
    """The limits of effect workers."""

    model_config = SettingsConfigDict(env_prefix="EFFECTS_", extra="ignore")

    concurrency: int = Field(default=16, ge=1, le=1000, description="Calls that one worker makes at once.")
    call_timeout_s: float = Field(default=30.0, gt=0, description="How long one call may take, whatever it waits for.")
    give_up_after_s: float = Field(
        default=86_400.0,
        gt=0,
        description="How long a call is made again and again before it is given up. Stripe remembers an idempotency "
        "key for a day.",
    )
    retry_delay_s: float = Field(
        default=0.5, gt=0, description="The first pause between two attempts is at most this; it doubles."
    )
    retry_delay_s_max: float = Field(
        default=600.0,
        gt=0,
        description="Longest pause between two attempts, unless the provider asks for a longer one.",
    )
    breaker_failures: int = Field(
        default=10, ge=1, description="Calls in a row without an answer, after which the provider is taken to be away."
    )
    breaker_pause_s_max: float = Field(
        default=60.0,
        gt=0,
        description="Longest pause between two calls to a provider that is away; it doubles from 1 s.",
    )
    stop_timeout_s: float = Field(default=35.0, gt=0, description="How long a stop waits for calls under way.")


class DatabaseSettings(BaseSettings):
    """One service's database. The prefix is the service's name: `USERS_DATABASE_URL`."""

    model_config = SettingsConfigDict(extra="ignore")

    database_url: str = Field(
        pattern=_DATABASE_URL,
        description="For the lane: may write.",
    )
    reader_url: str | None = Field(
        default=None,
        pattern=_DATABASE_URL,
        description="For the gateways: a role that cannot write. `coordinator migrate` creates it.",
    )
    migration_url: str | None = Field(
        default=None,
        pattern=_DATABASE_URL,
        description="For `coordinator migrate`, where it needs more rights than the lane has.",
    )


class ReaderSettings(BaseSettings):
    """What a gateway needs to know of its service's database."""

    model_config = SettingsConfigDict(extra="ignore")

    reader_url: str | None = Field(default=None, pattern=_DATABASE_URL, description="A role that cannot write.")
    database_url: str | None = Field(default=None, pattern=_DATABASE_URL, description="Used where no reader is set.")

    def url(self, service: str) -> str:
        """The address to read from. Raises ConfigurationError when neither is set."""
        url = self.reader_url or self.database_url
        if url is None:
            raise ConfigurationError(f"{service.upper()}_READER_URL: the gateway needs the database's address")
        return url


class CacheSettings(BaseSettings):
    """The cache of the items service."""

    model_config = SettingsConfigDict(env_prefix="REDIS_", extra="ignore")

    url: str = Field(default="redis://127.0.0.1:6379/0", pattern=r"^rediss?://", description="The cache's address.")
    timeout_s: float = Field(default=0.25, gt=0, description="A cache slower than this is not waited for.")
    ttl_s: int = Field(default=300, ge=1, description="How long an item stays in the cache.")
    lease_s: float = Field(
        default=2.0,
        ge=0.1,
        description="How long the cache is believed without word of its lane: writes wait that long, once, when the "
        "lane loses Redis. The same for coordinators and gateways.",
    )


class GatewaySettings(BaseSettings):
    """A gateway's own limits. The host and port come from its command line."""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_", extra="ignore")

    body_bytes_max: int = Field(default=256 << 10, ge=256, description="Bytes of one request's body.")
    commands_max: int = Field(default=1000, ge=1, le=10_000, description="Commands in one `POST /commands`.")
    wait_s: float = Field(default=10.0, ge=0, description="How long a write waits for its outcome before 202.")
    confirm_timeout_s: float = Field(default=5.0, gt=0, description="How long a write waits for the broker before 503.")
    in_flight_max: int = Field(default=2000, ge=1, description="Commands under way; more are answered 503.")
    retry_after_s: int = Field(default=1, ge=1, description="The `Retry-After` of a 503.")
    read_pool_max: int = Field(default=8, ge=1, description="Database connections of one gateway, for reads.")
    connections_max: int = Field(
        default=1000,
        ge=1,
        description="Open connections; beyond them the slowest sender or an idle one makes room.",
    )
    head_bytes_max: int = Field(
        default=32 << 10, ge=1024, description="Bytes of a head that arrives in parts; else 431."
    )
    head_timeout_s: float = Field(
        default=10.0, gt=0, description="From a request's first byte, or the accept, until its head is there; else 408."
    )
    body_timeout_s: float = Field(default=30.0, gt=0, description="How long a request's body may take; else 408.")
    idle_timeout_s: float = Field(
        default=75.0, gt=0, description="How long a connection is kept for the next request; longer than a proxy does."
    )
    send_timeout_s: float = Field(
        default=30.0, gt=0, description="How long a client may leave a response unread before it is cut off."
    )


class StripeSettings(BaseSettings):
    """The payment provider: Stripe, or the sandbox that speaks its API."""

    model_config = SettingsConfigDict(env_prefix="STRIPE_", extra="ignore")

    api_key: SecretStr | None = Field(
        default=None, description="For the workers that call Stripe: `sk_test_…`, `sk_live_…` or `rk_…`."
    )
    api_base: str = Field(default="https://api.stripe.com", pattern=r"^https?://", description="Where Stripe's API is.")
    timeout_s: float = Field(default=15.0, gt=0, description="Limit of one call; then it is unknown what became of it.")
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
        default=300, ge=1, description="How far an event's time may be from ours; it is signed anew at every delivery."
    )


class TelemetrySettings(BaseSettings):
    """Logs and metrics."""

    model_config = SettingsConfigDict(env_prefix="TELEMETRY_", extra="ignore")

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(default="INFO", description="Least level logged.")
    log_format: Literal["json", "console"] = Field(default="json", description="One JSON object a line, or for eyes.")
    metrics_host: str = Field(default="127.0.0.1", description="Where a coordinator serves /metrics.")


def _shown(problem: ErrorDetails) -> str:
    """The value at fault; of an address, which may hold a password, only how it begins."""
    value = str(problem["input"])
    return f"{value.partition('://')[0][:20]}://…" if str(problem["loc"][0]).endswith("url") else repr(value)


_Group = TypeVar("_Group", bound=BaseSettings)


def load(group: type[_Group], *, prefix: str | None = None) -> _Group:
    """Read one group from the environment; `prefix` replaces the group's own.

    Raises ConfigurationError, which names every variable that is missing or wrong, and what is expected of it.
    """
    shown_prefix = prefix if prefix is not None else group.model_config.get("env_prefix", "")
    try:
        return group(_env_prefix=shown_prefix)
    except ValidationError as error:
        lines = [
            f"{shown_prefix.upper()}{str(problem['loc'][0]).upper()}: {problem['msg']}"
            + ("" if problem["type"] == "missing" else f" (it is {_shown(problem)})")
            for problem in error.errors()
        ]
        raise ConfigurationError("; ".join(lines)) from None
