"""The URLs of the servers, on this machine or in Docker, and the environment that our processes get from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from coordinator.dev.services import BrokerKind, DatabaseKind
from coordinator.service.errors import ConfigurationError
from coordinator.service.lane_names import settings_prefix
from coordinator.transports.rabbitmq.rights import OPERATOR, BrokerAccount, gateway_account, lane_account
from coordinator.transports.redis.rights import RedisAccount

HOST = "127.0.0.1"
COMPOSE_FILE = Path(__file__).parents[3] / "compose.yaml"
"""Of the repository: an installed package has none."""
ACCOUNT = "coordinator"
"""On a database the owner, who migrates. On the cache's server it is the lanes' own."""
CACHE_READER = f"{ACCOUNT}_reader"
"""The gateways' own on the cache's server: it only reads the lease."""
BROKER_SETTINGS = ("AMQP_URL", "BROKER_URL")
"""Either has the broker's address."""
ADMINISTRATOR = "administrator"
"""The user of Redis and RabbitMQ with all rights, for people and tests."""


def amqp_url(port: int, *, role: str = ADMINISTRATOR) -> str:
    """An account's password is its name."""
    return f"amqp://{role}:{role}@{HOST}:{port}/%2F"


def database_url(
    kind: DatabaseKind, port: int, database: str, *, role: str = ACCOUNT, password: str | None = None
) -> str:
    """A role's password is its name, unless another one is given. MongoDB has no roles here."""
    if kind == "mongodb":
        # Direct: the client does not look for the one member under the name that its replica set has for it.
        return f"mongodb://{HOST}:{port}/{database}?directConnection=true"
    return f"{kind}://{role}:{password or role}@{HOST}:{port}/{database}"


def redis_url(port: int, *, role: str = ACCOUNT, password: str | None = None) -> str:
    """A role's password is its name, unless another one is given."""
    return f"redis://{role}:{password or role}@{HOST}:{port}/0"


@dataclass(frozen=True, slots=True)
class Wanted:
    """The servers that services want: a database each, of its name, and a cache for all. A broker is always wanted."""

    databases: Mapping[str, DatabaseKind]
    """By the service's name."""
    cache_keys: tuple[str, ...] = ()
    """Patterns of the keys that the services' cache has; empty: none wants one."""
    broker: BrokerKind = "rabbitmq"
    accounts: tuple[BrokerAccount, ...] = ()
    """RabbitMQ's, one for each process."""
    redis_accounts: tuple[RedisAccount, ...] = ()
    """The same where Redis is the broker."""

    def of(self, kind: DatabaseKind) -> tuple[str, ...]:
        """The databases on the server of this kind."""
        return tuple(name for name, wanted in self.databases.items() if wanted == kind)

    @property
    def with_roles(self) -> tuple[str, ...]:
        """Those whose database has roles of its own. MongoDB has none here."""
        return tuple(name for name, wanted in self.databases.items() if wanted != "mongodb")

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of server."""
        wanted = {*self.databases.values(), *(["redis"] if self.cache_keys else [])}
        return tuple(kind for kind in ("postgresql", "mysql", "mongodb", "redis") if kind in wanted)


@dataclass(frozen=True, slots=True)
class ServerPorts:
    """A port for each server; None: a free one is chosen."""

    amqp: int | None = None
    amqp_dist: int | None = None
    epmd: int | None = None
    postgresql: int | None = None
    mysql: int | None = None
    mongodb: int | None = None
    redis: int | None = None
    redis_broker: int | None = None

    def of(self, kind: DatabaseKind) -> int | None:
        """The port of the server for a kind of database."""
        return {"postgresql": self.postgresql, "mysql": self.mysql, "mongodb": self.mongodb}[kind]


def environment(wanted: Wanted, ports: ServerPorts, account: str = OPERATOR) -> dict[str, str]:
    """The settings with which our processes find the servers, the broker by this account of it; an operator's by
    default. Of the cache only lanes and gateways have the address. `coordinator migrate` creates the databases' roles,
    and `coordinator database-accounts` confines them.

    Raises ConfigurationError if the port of a wanted server is not given.
    """
    if wanted.broker == "redis":
        found = {"BROKER_URL": redis_url(_given("the broker", ports.redis_broker), role=account)}
    else:
        found = {"AMQP_URL": amqp_url(_given("amqp", ports.amqp), role=account)}
    for name, kind in wanted.databases.items():
        port = _given(kind, ports.of(kind))
        found[f"{settings_prefix(name)}DATABASE_URL"] = database_url(kind, port, name, role=f"{name}_lane")
        found[f"{settings_prefix(name)}READER_URL"] = database_url(kind, port, name, role=f"{name}_reader")
    role = _cache_role(wanted, account)
    if role is not None:
        found["REDIS_URL"] = redis_url(_given("redis", ports.redis), role=role)
    return found


def migration_environment(wanted: Wanted, ports: ServerPorts, owner_password: str = ACCOUNT) -> dict[str, str]:
    """The settings that migrations and `coordinator database-accounts` alone get beside those: the databases' owner,
    with this password.

    Raises ConfigurationError if the port of a wanted server is not given.
    """
    return {
        f"{settings_prefix(name)}MIGRATION_URL": database_url(
            kind, _given(kind, ports.of(kind)), name, password=owner_password
        )
        for name, kind in ((name, wanted.databases[name]) for name in wanted.with_roles)
    }


def _cache_role(wanted: Wanted, account: str) -> str | None:
    """The cache's user for the process that has this account of the broker's."""
    if not wanted.cache_keys:
        return None
    roles = {lane_account(name): ACCOUNT for name in wanted.databases}
    roles |= {gateway_account(name): CACHE_READER for name in wanted.databases}
    return roles.get(account)


def _given(kind: str, port: int | None) -> int:
    if port is None:
        raise ConfigurationError(f"the port of {kind} must be given")
    return port
