"""The settings of `coordinator dev`: its directory, and the ports of its servers, which avoid the usual ones.

The ports of services, DEV_<SERVICE>_PORT and so on, are read where a run is planned (plan.py).
"""

import re
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from coordinator.dev.servers.addresses import ServerPorts
from coordinator.dev.services import BrokerKind
from coordinator.runtime.paths import checked
from coordinator.runtime.settings import GatewaySettings, Port, TelemetrySettings, load
from coordinator.service.errors import ConfigurationError

_PROJECT_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]*")


def _project_name(text: str) -> str:
    if not _PROJECT_NAME.fullmatch(text):
        raise ValueError("it must have small letters, digits, _ and - only, and begin with a letter or a digit")
    return text


def check_speaks_http(run: str, *ports: type[GatewaySettings] | type[TelemetrySettings]) -> None:
    """Raises ConfigurationError for certificates at these ports of a run: the addresses that it says, and its keys,
    are for HTTP."""
    for port in ports:
        files = load(port).server_files
        if files is not None:
            raise ConfigurationError(
                f"{files.prefix}CERTIFICATE: `{run}` serves HTTP, for this machine: unset {files.prefix}*, or run the "
                "processes on your servers (`coordinator run`, `coordinator gateway`)"
            )


class DevSettings(BaseSettings):
    """The directory, the addresses and the ports of `coordinator dev`."""

    model_config = SettingsConfigDict(env_prefix="DEV_", extra="ignore")

    directory: Annotated[Path, AfterValidator(checked)] = Field(
        default=Path(".dev"), description="Data, logs and addresses of a run."
    )
    host: str = Field(default="127.0.0.1", description="The gateways listen here; the servers are on loopback.")
    docker_project: Annotated[str, AfterValidator(_project_name)] = Field(
        # Another one than that of `docker compose up`, whose volumes `make clean` must not remove.
        default="write-coordinator-dev",
        description="Compose's project name for servers in Docker: each run with data of its own needs another. Small "
        "letters, digits, `_` and `-`.",
    )
    gateway_port: Port = Field(
        default=8080,
        description="All routes of an application in one process (`coordinator dev MODULE:NAME`), and those of a "
        "single gateway on servers. Several gateways have a DEV_<SERVICE>_PORT each, and it is refused.",
    )
    elsewhere: str = Field(
        default="",
        description="Of an application in one process: its services that run elsewhere, behind the broker of AMQP_URL; "
        "with a space between them.",
    )
    broker: BrokerKind = Field(
        default="rabbitmq", description="What carries commands where servers are started: `rabbitmq` or `redis`."
    )
    amqp_port: Port = Field(default=5673, description="RabbitMQ.")
    amqp_dist_port: Port = Field(default=25673, description="RabbitMQ's Erlang distribution.")
    epmd_port: Port = Field(default=4370, description="RabbitMQ's Erlang port mapper.")
    postgresql_port: Port = Field(default=5433, description="PostgreSQL.")
    mysql_port: Port = Field(default=3307, description="MySQL or MariaDB.")
    mongodb_port: Port = Field(default=27018, description="MongoDB.")
    redis_port: Port = Field(default=6380, description="Redis.")
    redis_broker_port: Port = Field(default=6381, description="The Redis that is the broker.")

    def server_ports(self) -> ServerPorts:
        return ServerPorts(
            amqp=self.amqp_port,
            amqp_dist=self.amqp_dist_port,
            epmd=self.epmd_port,
            postgresql=self.postgresql_port,
            mysql=self.mysql_port,
            mongodb=self.mongodb_port,
            redis=self.redis_port,
            redis_broker=self.redis_broker_port,
        )


def load_settings() -> DevSettings:
    """Raises ConfigurationError, which names the variable that is wrong."""
    return load(DevSettings)
