"""The servers of a developer's machine: on ports away from the usual ones, where others may be.

The ports of services, DEV_<SERVICE>_PORT and so on, are read where a run is planned (plan.py).
"""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from coordinator.dev.servers.addresses import ServerPorts
from coordinator.runtime.settings import Port, load


class DevSettings(BaseSettings):
    """Where `coordinator dev` puts everything."""

    model_config = SettingsConfigDict(env_prefix="DEV_", extra="ignore")

    directory: Path = Field(default=Path(".dev"), description="Data, logs and addresses of a run.")
    host: str = Field(default="127.0.0.1", description="Where the gateways listen; the servers are on loopback.")
    docker_project: str = Field(
        # Not that of `docker compose up`: `make clean` may remove these volumes, and none of those.
        default="write-coordinator-dev",
        description="What Compose calls the servers where they run in Docker: runs with data of their own need others.",
        pattern=r"^[a-z0-9][a-z0-9_-]*$",
    )
    amqp_port: Port = Field(default=5673, description="RabbitMQ.")
    amqp_dist_port: Port = Field(default=25673, description="RabbitMQ's Erlang distribution.")
    epmd_port: Port = Field(default=4370, description="RabbitMQ's Erlang port mapper.")
    postgresql_port: Port = Field(default=5433, description="PostgreSQL.")
    mysql_port: Port = Field(default=3307, description="MySQL or MariaDB.")
    mongodb_port: Port = Field(default=27018, description="MongoDB.")
    redis_port: Port = Field(default=6380, description="Redis.")

    def server_ports(self) -> ServerPorts:
        return ServerPorts(
            amqp=self.amqp_port,
            amqp_dist=self.amqp_dist_port,
            epmd=self.epmd_port,
            postgresql=self.postgresql_port,
            mysql=self.mysql_port,
            mongodb=self.mongodb_port,
            redis=self.redis_port,
        )


def load_settings() -> DevSettings:
    """Raises ConfigurationError, which names the variable that is wrong."""
    return load(DevSettings)
