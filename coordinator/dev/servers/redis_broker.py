"""A private Redis, as a broker: it syncs each write before it answers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final

import redis

from coordinator.dev.servers.addresses import ADMINISTRATOR, HOST, redis_url
from coordinator.dev.servers.process import Process
from coordinator.dev.servers.programs import require
from coordinator.dev.servers.server import Server
from coordinator.transports.redis.rights import RedisAccount

_PROGRAMS: Final = ("redis-server", "valkey-server")


class RedisBroker(Server):
    """Not the Redis of the cache, which may lose everything, and this one nothing."""

    name = "redis-broker"
    title = "Redis (broker)"
    not_ready: ClassVar[tuple[type[Exception], ...]] = (redis.exceptions.RedisError,)

    def __init__(
        self,
        directory: Path,
        port: int | None = None,
        options: Mapping[str, str] | None = None,
        accounts: Sequence[RedisAccount] = (),
    ) -> None:
        """`options` take the place of its own. The password of an account is its name."""
        super().__init__(directory, port)
        self._accounts = accounts
        self._options = options or {}

    @property
    def url(self) -> str:
        """Of the administrator, who may do everything."""
        return self.url_of(ADMINISTRATOR)

    def url_of(self, account: str) -> str:
        """The address of one of its accounts."""
        return redis_url(self.port, role=account)

    @property
    def _acl(self) -> Path:
        return self.data.with_name(f"{self.data.name}.acl.conf")

    def _prepare(self) -> None:
        self.data.mkdir(exist_ok=True)
        accounts = [f"user {account.name} on >{account.name} {account.rules}" for account in self._accounts]
        administrator = f"user {ADMINISTRATOR} on >{ADMINISTRATOR} ~* &* +@all"
        # Nobody is the default user, and it has all rights all the same: see `durability.py`.
        self._acl.write_text("\n".join(("user default off ~* &* +@all", *accounts, administrator, "")))

    def _launch(self) -> Process:
        options = {
            "bind": HOST,
            "port": str(self.port),
            "dir": str(self.data),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
            "maxmemory": "256mb",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            **self._options,
        }
        arguments = [part for key, value in options.items() for part in (f"--{key}", value)]
        return Process([require(*_PROGRAMS), self._acl, *arguments], log_path=self.log_path, directory=self.data)

    def _probe(self) -> str:
        with redis.Redis.from_url(self.url, socket_connect_timeout=5, socket_timeout=5) as client:
            return str(client.info("server")["redis_version"])
