"""Settings: every limit, timeout and address, read from the environment once, at a process's start.

Nothing here is read at import. A setting's name in the environment is its group's prefix and its field's name in
capitals: `LaneSettings.batch_commands_max` is `LANE_BATCH_COMMANDS_MAX`. docs/OPERATING.md lists them all.
"""

from collections.abc import Iterable
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from coordinator.runtime.address_fields import BrokerUrl, DatabaseUrl, ServerUrl
from coordinator.runtime.addresses import FOLDERS, WITHOUT_SERVER
from coordinator.runtime.broker_accounts import BrokerAccountSettings
from coordinator.runtime.effect_settings import EffectSettings as EffectSettings  # noqa: PLC0414  # likewise
from coordinator.runtime.ingress_settings import IngressSettings as IngressSettings  # noqa: PLC0414  # likewise
from coordinator.runtime.limits import Limits as Limits  # noqa: PLC0414
from coordinator.runtime.loading import OTHER_NAME, name_set, where_set
from coordinator.runtime.loading import load as load  # noqa: PLC0414  # it is a public name here, too
from coordinator.runtime.longest_time import SECONDS_MAX as SECONDS_MAX  # noqa: PLC0414
from coordinator.runtime.longest_time import SECONDS_MIN
from coordinator.runtime.server_files import ServerFileSettings
from coordinator.service.errors import ConfigurationError
from coordinator.service.lane_names import settings_prefix

Port = Annotated[int, Field(ge=1, le=65535)]
"""A TCP port."""


_MESSAGE_BYTES_MAX: Final = 512 << 20
"""Neither RabbitMQ nor Redis takes a larger message."""
_BYTES_KEPT_MAX: Final = 1 << 50
"""RabbitMQ's numbers have 63 bits, those that Redis's scripts add up 53: a PiB, and room above it."""
_ROWS_KEPT_MAX: Final = 10_000_000


def _address_of(schemes: Iterable[str]) -> str:
    return rf"^({'|'.join(schemes)})(\+srv)?://"


_DATABASE_URL = _address_of(FOLDERS)
_SERVER_URL = _address_of(scheme for scheme in FOLDERS if scheme not in WITHOUT_SERVER)


class BrokerSettings(BaseSettings, Limits):
    """How to reach the broker, RabbitMQ or Redis, and the limits of its queues."""

    model_config = SettingsConfigDict(env_prefix="AMQP_")

    url: BrokerUrl = Field(
        repr=False,
        default="amqp://guest:guest@127.0.0.1:5672/%2F",
        pattern=r"^(amqp|amqps|redis|rediss|redis\+sentinel)://",
        description="The broker's address, whose scheme says which broker it is; of a cluster of RabbitMQ with all of "
        "its nodes: `amqp://USER:PASSWORD@a:5672,b:5672,c:5672/VHOST`. `BROKER_URL` means the same.",
        json_schema_extra={OTHER_NAME: "BROKER_URL"},
    )
    heartbeat_s: int = Field(
        default=10, ge=2, le=600, description="A peer that is silent for this long counts as dead."
    )
    connect_timeout_s: float = Field(
        default=5.0, ge=SECONDS_MIN, description="Limit of one attempt to connect to one node."
    )
    reconnect_delay_s: float = Field(
        default=0.25,
        ge=SECONDS_MIN,
        description="First pause between two attempts to connect; it doubles. Half of it is random.",
    )
    reconnect_delay_s_max: float = Field(
        default=1.0,
        ge=SECONDS_MIN,
        description="Longest pause between two attempts: a broker that is back is found within this time.",
    )
    queue_bytes_max: int = Field(
        default=1 << 30,
        ge=1024,
        le=_BYTES_KEPT_MAX,
        description="Bytes of a lane's queue above which new commands are refused; at least LANE_MESSAGE_BYTES_MAX.",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self._check_at_most("reconnect_delay_s", "reconnect_delay_s_max")
        return self

    @property
    def is_rabbitmq(self) -> bool:
        """Whether the address is RabbitMQ's, and not a Redis's."""
        return self.url.startswith("amqp")


def broker_setting(name: str = "AMQP_URL") -> str:
    """The setting that has the broker's address, for errors about it; that of this name where none has."""
    return name_set(name, "AMQP_URL", "BROKER_URL")


class LaneSettings(BaseSettings, BrokerAccountSettings, Limits):
    """The limits of a lane."""

    model_config = SettingsConfigDict(env_prefix="LANE_")

    prefetch: int = Field(
        default=1000,
        ge=1,
        le=65535,
        description="Unacknowledged deliveries. The same for all consumers of a lane.",
    )
    batch_commands_max: int = Field(default=500, ge=1, le=10_000, description="Commands in one transaction.")
    batch_bytes_max: int = Field(
        default=4 << 20, ge=1024, le=1 << 30, description="Bytes of the messages in one transaction."
    )
    message_bytes_max: int = Field(
        default=1 << 20,
        ge=1024,
        le=_MESSAGE_BYTES_MAX,
        description="Bytes of one message's body; a larger one is dead-lettered. Packs of gateways and lanes "
        "must fit, of 122,880 bytes, and GATEWAY_BODY_BYTES_MAX and 4,096 more.",
    )
    pack_commands_max: int = Field(
        default=1000, ge=500, le=10_000, description="Commands in one pack; those of a larger one are dead-lettered."
    )
    retry_delay_s: float = Field(
        default=0.2, ge=SECONDS_MIN, description="First pause after the database failed; it doubles."
    )
    retry_delay_s_max: float = Field(default=5.0, ge=SECONDS_MIN, description="Longest pause between two attempts.")
    allow_unsynced: bool = Field(
        default=False, description="Run on a database that may lose commits with its power: also of confirmed commands."
    )
    require_sync_standby: bool = Field(
        default=False,
        description="Commit nothing unless PostgreSQL makes each commit wait for a synchronous standby.",
    )
    early_max: int = Field(
        default=400,
        ge=0,
        le=65_534,
        description="Messages, and parts of packs, that wait for an earlier one of the publisher; below the prefetch.",
    )
    gap_timeout_s: float = Field(
        default=5.0, ge=0, description="How long they wait before the lane gives up the missing command."
    )
    parked_max: int = Field(
        default=10_000,
        ge=0,
        le=_ROWS_KEPT_MAX,
        description="Commands that wait behind failed ones with the same key; more are rejected. One who is known to "
        "ask has as many as he leaves free: half, if he is alone.",
    )
    parked_bytes_max: int = Field(
        default=1 << 28,
        ge=0,
        le=_BYTES_KEPT_MAX,
        description="Bytes of these commands, which a coordinator has in memory; more are rejected. One has a share of "
        "them as of LANE_PARKED_MAX.",
    )
    nameless_dead_max: int = Field(
        default=1000,
        ge=0,
        le=_ROWS_KEPT_MAX,
        description="Dead letters without a usable id that are kept; more are dropped and counted.",
    )
    senders_dead_bytes_max: int = Field(
        default=1 << 28,
        ge=0,
        le=_BYTES_KEPT_MAX,
        description="Bytes of dead letters whose fault is the sender's. Beyond them those of senders for whom no "
        "gateway answers have no arguments.",
    )
    log_retention_days: float | None = Field(default=None, ge=2, le=3650, description="Log entries go after so long.")
    dead_letter_retention_days: float | None = Field(
        default=None, ge=1, le=3650, description="Dead letters go after so long."
    )
    acts_retention_days: float | None = Field(
        default=None, ge=1, le=3650, description="What operators did goes after so long (`audit --operators`)."
    )
    outbox_max: int = Field(
        default=1000,
        ge=1,
        le=1_000_000,
        description="Emitted commands on their way to one lane, or one service's effects; others wait on disk.",
    )
    outbox_watch_s: float = Field(
        default=5.0, ge=SECONDS_MIN, description="How often a process looks for emitted commands that nobody publishes."
    )
    logged_batch_s: float = Field(
        default=1.0, ge=0, description="A batch that takes so long, or longer, has a line in the log; 0: each has."
    )
    stop_timeout_s: float = Field(
        default=20.0, ge=SECONDS_MIN, description="How long a stop waits for the batch in flight."
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self._check_at_most("retry_delay_s", "retry_delay_s_max")
        if self.early_max >= self.prefetch:
            raise ValueError(
                f"{self.shown('early_max')} ({self.early_max}) must be below "
                f"{self.shown('prefetch')} ({self.prefetch}): "
                "otherwise the commands that wait for a missing one keep it out"
            )
        return self


class DatabaseSettings(BaseSettings, Limits):
    """One service's database. The prefix is the service's name: `ORDERS_DATABASE_URL`."""

    model_config = SettingsConfigDict(extra="ignore")

    database_url: DatabaseUrl = Field(
        repr=False,
        pattern=_DATABASE_URL,
        description="For the lane: may write. sqlite:// is a file, for tests and for services that run in one process.",
    )
    reader_url: ServerUrl | None = Field(
        repr=False,
        default=None,
        pattern=_SERVER_URL,
        description="For the gateways: a role that cannot write. `coordinator migrate` creates it.",
    )
    migration_url: DatabaseUrl | None = Field(
        repr=False,
        default=None,
        pattern=_DATABASE_URL,
        description="For `coordinator migrate`, where it needs more rights than the lane has.",
    )
    move_url: DatabaseUrl | None = Field(
        repr=False,
        default=None,
        pattern=_DATABASE_URL,
        description="For `coordinator move` without `--to`: the database that the lane is moved to, as its role there.",
    )


class ReaderSettings(BaseSettings, Limits):
    """A gateway's address of its service's database."""

    model_config = SettingsConfigDict(extra="ignore")

    reader_url: ServerUrl | None = Field(
        repr=False,
        default=None,
        pattern=_SERVER_URL,
        description="A role that cannot write, on the kind of server that the gateway reads: an SQL one, or MongoDB. "
        "A file has no roles: it is read by its DATABASE_URL. It may name several replicas (docs/SCALING.md).",
    )
    database_url: DatabaseUrl | None = Field(
        repr=False, default=None, pattern=_DATABASE_URL, description="Used where no reader is set."
    )
    primary_url: ServerUrl | None = Field(
        repr=False,
        default=None,
        pattern=_SERVER_URL,
        description="The server to which the lane writes, as the reader's role, where READER_URL names a replica of "
        "an SQL one: a read with `Read-After` asks it where the replica lags too far, and API keys and secrets are "
        "read there.",
    )

    def url(self, service: str) -> str:
        """The address to read from. Raises ConfigurationError when neither is set."""
        url = self.reader_url or self.database_url
        if url is None:
            reader, owner = f"{settings_prefix(service)}READER_URL", f"{settings_prefix(service)}DATABASE_URL"
            hint = where_set(reader, owner)
            raise ConfigurationError(f"{reader}: the gateway needs the database's address{hint}")
        return url

    def setting(self, service: str) -> str:
        """The setting that has this address."""
        return f"{settings_prefix(service)}{'READER' if self.reader_url else 'DATABASE'}_URL"


class GatewaySettings(BaseSettings, ServerFileSettings, Limits):
    """A gateway's own limits. The host and port come from its command line."""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_")

    body_bytes_max: int = Field(
        default=256 << 10, ge=256, le=_MESSAGE_BYTES_MAX, description="Bytes of one request's body."
    )
    commands_max: int = Field(default=1000, ge=1, le=10_000, description="Commands in one `POST /commands`.")
    wait_s: float = Field(default=10.0, ge=0, description="How long a write waits for its outcome before 202.")
    confirm_timeout_s: float = Field(
        default=5.0, ge=SECONDS_MIN, description="How long a write waits for the broker before 503."
    )
    in_flight_max: int = Field(
        default=4000,
        ge=1,
        le=1_000_000,
        description="Commands under way; more are answered 503. Several at once have half, or one request all of it.",
    )
    principal_rate_max: int = Field(
        default=2000,
        ge=0,
        le=1_000_000,
        description="Requests a second of one principal, each command of `POST /commands` and each 4 KiB of a body "
        "being one; more are answered 429. 0: no limit.",
    )
    principal_burst_max: int = Field(
        default=10_000,
        ge=1,
        le=10_000_000,
        description="Requests of one principal that are taken at once, after it was quiet.",
    )
    principal_in_flight_max: int = Field(
        default=1000,
        ge=0,
        le=1_000_000,
        description="Commands of one principal under way, or one request; more are answered 429. Half of all "
        "connections may wait for it. 0: no limit.",
    )
    retry_after_s: int = Field(default=1, ge=1, description="The `Retry-After` of a 503, and of a 429 at least.")
    read_after_wait_ms: int = Field(
        default=500,
        ge=0,
        le=2000,
        description="How long a read with `Read-After` waits for a replica that lags, in milliseconds, before it asks "
        "the primary, or is answered 503.",
    )
    read_pool_max: int = Field(
        default=8,
        ge=1,
        le=10_000,
        description="Database connections of one gateway, for reads. While all are used, principals take turns.",
    )
    connections_max: int = Field(
        default=1000,
        ge=1,
        le=1_000_000,
        description="Open connections; beyond them the slowest sender or an idle one makes room. Three quarters may "
        "wait for outcomes; more writes are answered 503.",
    )
    head_bytes_max: int = Field(
        default=32 << 10, ge=1024, le=16 << 20, description="Bytes of a head that arrives in parts; else 431."
    )
    head_timeout_s: float = Field(
        default=10.0,
        ge=SECONDS_MIN,
        description="From a request's first byte, or the accept, until its head is there; else 408.",
    )
    body_timeout_s: float = Field(
        default=30.0, ge=SECONDS_MIN, description="How long a request's body may take; else 408."
    )
    idle_timeout_s: float = Field(
        default=75.0,
        ge=SECONDS_MIN,
        description="How long a connection is kept for the next request; longer than a proxy does.",
    )
    send_timeout_s: float = Field(
        default=30.0, ge=SECONDS_MIN, description="How long a client may leave a response unread before it is cut off."
    )

    tenant_hosts: str = Field(
        default="",
        description="Where one gateway serves several tenants: hosts of theirs, `acme=www.acme.example "
        "bolt=bolt.example`, a tenant perhaps again and again. One who has none here is at each host whose first label "
        "is his name.",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self._check_at_most("commands_max", "in_flight_max")
        return self


class TelemetrySettings(BaseSettings, ServerFileSettings, Limits):
    """Logs and metrics."""

    model_config = SettingsConfigDict(env_prefix="TELEMETRY_")

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(default="INFO", description="Least level logged.")
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto",
        description="`json`: one object a line; `console`: a form for eyes; `auto`: that at a terminal, else JSON.",
    )
    log_personal: bool = Field(
        default=False,
        description="Whether lines have what may be about a person: who asked, from where, paths, texts of errors.",
    )
    metrics_host: str = Field(default="127.0.0.1", description="Where a coordinator serves /metrics.")
