"""The ports of a developer's machine: away from the usual ones, where other servers may be."""

import os
import socket
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from coordinator.dev.servers.addresses import HOST, ServerPorts
from coordinator.dev.servers.ports import port_is_free
from coordinator.runtime.settings import Port, load
from coordinator.service.errors import ConfigurationError
from shared.payments.sandbox.defaults import PORT as SANDBOX_PORT

_GATEWAY_PORT_FIRST = 8081
_METRICS_PORT_FIRST = 9101
_EFFECTS_PORT_FIRST = 9111


class DevSettings(BaseSettings):
    """Where `coordinator dev` puts everything."""

    model_config = SettingsConfigDict(env_prefix="DEV_", extra="ignore")

    directory: Path = Field(default=Path(".dev"), description="Data, logs and addresses of a run.")
    host: str = Field(default="127.0.0.1", description="Where the gateways listen; the servers are on loopback.")
    amqp_port: Port = Field(default=5673, description="RabbitMQ.")
    amqp_dist_port: Port = Field(default=25673, description="RabbitMQ's Erlang distribution.")
    epmd_port: Port = Field(default=4370, description="RabbitMQ's Erlang port mapper.")
    postgresql_port: Port = Field(default=5433, description="PostgreSQL.")
    mysql_port: Port = Field(default=3307, description="MySQL or MariaDB.")
    mongodb_port: Port = Field(default=27018, description="MongoDB.")
    redis_port: Port = Field(default=6380, description="Redis.")
    users_port: Port = Field(default=8081, description="The gateway of users.")
    items_port: Port = Field(default=8082, description="The gateway of items.")
    payments_port: Port = Field(default=8083, description="The gateway of payments.")
    users_metrics_port: Port = Field(default=9101, description="The coordinator of users.")
    items_metrics_port: Port = Field(default=9102, description="The coordinator of items.")
    payments_metrics_port: Port = Field(default=9103, description="The coordinator of payments.")
    payments_effects_port: Port = Field(default=9113, description="The effect worker of payments.")
    sandbox_port: Port = Field(default=SANDBOX_PORT, description="The sandbox payment provider.")

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

    def gateway_port(self, service: str, position: int) -> int:
        """Of the service at this position; one that has no setting here gets the next number."""
        return self._own(f"{service}_port", _GATEWAY_PORT_FIRST + position)

    def metrics_port(self, service: str, position: int) -> int:
        """As gateway_port()."""
        return self._own(f"{service}_metrics_port", _METRICS_PORT_FIRST + position)

    def effects_port(self, service: str, position: int) -> int:
        """As gateway_port()."""
        return self._own(f"{service}_effects_port", _EFFECTS_PORT_FIRST + position)

    def _own(self, field: str, default: int) -> int:
        value: object = getattr(self, field, None) or os.environ.get(f"DEV_{field.upper()}", default)
        if not str(value).isdecimal():
            raise ConfigurationError(f"DEV_{field.upper()} must be a port, a number: it is {value!r}")
        return int(str(value))


def load_settings() -> DevSettings:
    """Raises ConfigurationError, which names the variable that is wrong."""
    return load(DevSettings)


def check_ports(
    settings: DevSettings, services: tuple[str, ...], *, servers: bool = True, sandbox: bool = True
) -> None:
    """Raises ConfigurationError that names every port that is in use or given twice, and its setting.

    `servers` is false where the servers are not processes of ours, and publish their ports by themselves; `sandbox`
    where payments go to another provider.
    """
    wanted: list[tuple[str, int, str, str]] = []  # host, port, setting, what for
    if servers:
        titles = {name: field.description or name for name, field in DevSettings.model_fields.items()}
        for name in ServerPorts.__dataclass_fields__:
            field = f"{name}_port"
            wanted.append((HOST, getattr(settings, field), field, titles[field].rstrip(".")))
    for position, service in enumerate(services):
        port = settings.gateway_port(service, position)
        wanted.append((settings.host, port, f"{service}_port", f"the gateway of {service}"))
        port = settings.metrics_port(service, position)
        wanted.append((HOST, port, f"{service}_metrics_port", f"the coordinator of {service}"))
        if hasattr(settings, f"{service}_effects_port"):
            port = settings.effects_port(service, position)
            wanted.append((HOST, port, f"{service}_effects_port", f"the effect worker of {service}"))
    if sandbox:
        wanted.append((HOST, settings.sandbox_port, "sandbox_port", "the sandbox payment provider"))
    problems = []
    first: dict[int, str] = {}
    for host, port, field, title in wanted:
        setting = f"DEV_{field.upper()}"
        if port in first:
            problems.append(f"port {port} is given to both {first[port]} and {setting}; change one of them")
        elif not _is_free(host, port):
            problems.append(f"port {port} is in use ({title}); set {setting} to a free one")
        first.setdefault(port, setting)
    if problems:
        raise ConfigurationError("\n".join(problems))


def _is_free(host: str, port: int) -> bool:
    try:
        return port_is_free(host, port)
    except socket.gaierror:
        raise ConfigurationError(f"DEV_HOST: {host!r} is not an address of this machine") from None
