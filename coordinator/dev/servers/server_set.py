"""The servers of a run: those that its services want. Only their drivers are loaded."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeAlias, TypeVar

from coordinator.dev.servers.addresses import ACCOUNT, ServerPorts, Wanted, environment, migration_environment
from coordinator.dev.servers.server import Report, Server, remove_server
from coordinator.dev.services import DatabaseKind
from coordinator.service.errors import ConfigurationError
from coordinator.transports.rabbitmq.rights import OPERATOR

if TYPE_CHECKING:
    from coordinator.dev.servers.mongodb import MongoDB
    from coordinator.dev.servers.mysql import MySQL
    from coordinator.dev.servers.postgresql import PostgreSQL
    from coordinator.dev.servers.rabbitmq import RabbitMQ
    from coordinator.dev.servers.redis import Redis
    from coordinator.dev.servers.redis_broker import RedisBroker

    DatabaseServer: TypeAlias = PostgreSQL | MySQL | MongoDB

# ruff: noqa: PLC0415  # a run needs the drivers of its own servers only
_KINDS: Final[Sequence[DatabaseKind]] = ("postgresql", "mysql", "mongodb")
_RABBITMQ: Final = "rabbitmq"
_NAMES: Final = (_RABBITMQ, "redis-broker", *_KINDS, "redis")
"""Of all servers that there can be, as their folders are called."""

_Server = TypeVar("_Server", bound=Server)


class ServerSet:
    """The servers that some services want, each in its own folder of one directory."""

    def __init__(self, servers: Sequence[Server], wanted: Wanted, owner_password: str = ACCOUNT) -> None:
        self.servers = tuple(servers)
        self._wanted = wanted
        self._owner_password = owner_password

    @classmethod
    def native(
        cls, directory: Path, wanted: Wanted, ports: ServerPorts | None = None, *, owner_password: str = ACCOUNT
    ) -> Self:
        """Processes of this machine. A port that is not given is chosen, and kept over stop() and start().

        `owner_password` is that of the databases' owner, who may do anything to their servers, and of the cache's
        administrator. Raises ConfigurationError if a program is not installed; coordinator.dev.install can install it.
        """
        ports = ports or ServerPorts()
        servers: list[Server] = [_broker(directory, wanted, ports)]
        servers.extend(
            _server_of(kind, directory, databases, ports.of(kind), owner_password)
            for kind in _KINDS
            if (databases := wanted.of(kind))
        )
        if wanted.cache_keys:
            from coordinator.dev.servers.redis import Redis

            servers.append(Redis(directory / Redis.name, wanted.cache_keys, ports.redis, password=owner_password))
        return cls(servers, wanted, owner_password)

    @property
    def rabbitmq(self) -> "RabbitMQ":
        from coordinator.dev.servers.rabbitmq import RabbitMQ

        return self._the(RabbitMQ)

    @property
    def postgresql(self) -> "PostgreSQL":
        from coordinator.dev.servers.postgresql import PostgreSQL

        return self._the(PostgreSQL)

    @property
    def mysql(self) -> "MySQL":
        from coordinator.dev.servers.mysql import MySQL

        return self._the(MySQL)

    @property
    def mongodb(self) -> "MongoDB":
        from coordinator.dev.servers.mongodb import MongoDB

        return self._the(MongoDB)

    @property
    def redis(self) -> "Redis":
        from coordinator.dev.servers.redis import Redis

        return self._the(Redis)

    def _the(self, kind: type[_Server]) -> _Server:
        """Raises ConfigurationError if no service wants one."""
        for server in self.servers:
            if isinstance(server, kind):
                return server
        raise ConfigurationError(f"there is no {kind.name} here: no service wants it")

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines for the user, once they have started."""
        return tuple(server.note for server in self.servers if server.note)

    def start(self, report: Report | None = None) -> None:
        """Start all of them at once; every one answers in its protocol when this returns.

        When one fails, or this is interrupted, the others are killed before the error is raised.
        """
        with ThreadPoolExecutor(len(self.servers)) as threads:
            starting = [threads.submit(_start, server, report) for server in self.servers]
            try:
                for started in as_completed(starting):
                    started.result()
            except BaseException:
                # Repeated, since a thread may be between two steps of a start, with nothing to kill yet.
                while wait(starting, timeout=0.1).not_done:
                    self.kill()
                self.kill()
                raise

    def stop(self) -> None:
        """Stop all of them at once. No process of them is left."""
        with ThreadPoolExecutor(len(self.servers)) as threads:
            for stopped in [threads.submit(server.stop) for server in self.servers]:
                stopped.result()

    def kill(self) -> None:
        """Send SIGKILL to all their processes."""
        for server in self.servers:
            server.kill()

    def remove(self) -> None:
        """Remove their data, wherever it is. They must be stopped."""
        for server in self.servers:
            remove_server(server.directory, server.name)

    def environment(self, account: str = OPERATOR) -> dict[str, str]:
        """The settings with which our processes find them, the broker by this account of it."""
        return environment(self._wanted, self._ports, account)

    def migration_environment(self) -> dict[str, str]:
        """What `coordinator migrate` alone gets beside it."""
        return migration_environment(self._wanted, self._ports, self._owner_password)

    @property
    def _ports(self) -> ServerPorts:
        settings = {_RABBITMQ: "amqp"}
        ports = {settings.get(server.name, server.name.replace("-", "_")): server.port for server in self.servers}
        return ServerPorts(**ports)


def remove_data(directory: Path) -> None:
    """Remove the data of a ServerSet, wherever it is. The servers must be stopped, and need not be installed."""
    for name in _NAMES:
        remove_server(directory / name, name)


def _broker(directory: Path, wanted: Wanted, ports: ServerPorts) -> "RabbitMQ | RedisBroker":
    if wanted.broker == "redis":
        from coordinator.dev.servers.redis_broker import RedisBroker

        return RedisBroker(directory / RedisBroker.name, ports.redis_broker, accounts=wanted.redis_accounts)
    from coordinator.dev.servers.rabbitmq import RabbitMQ

    return RabbitMQ(
        directory / RabbitMQ.name,
        ports.amqp,
        accounts=wanted.accounts,
        dist_port=ports.amqp_dist,
        epmd_port=ports.epmd,
    )


def _server_of(
    kind: DatabaseKind, directory: Path, databases: Sequence[str], port: int | None, owner_password: str
) -> "DatabaseServer":
    match kind:
        case "postgresql":
            from coordinator.dev.servers.postgresql import PostgreSQL

            return PostgreSQL(directory / PostgreSQL.name, databases, port, password=owner_password)
        case "mysql":
            from coordinator.dev.servers.mysql import MySQL

            return MySQL(directory / MySQL.name, databases, port, password=owner_password)
        case "mongodb":
            from coordinator.dev.servers.mongodb import MongoDB

            return MongoDB(directory / MongoDB.name, databases, port)


def _start(server: Server, report: Report | None) -> None:
    started = time.monotonic()
    server.start()
    if report is not None:
        report(server.description, time.monotonic() - started)
