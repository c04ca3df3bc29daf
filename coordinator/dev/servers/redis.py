"""A private Redis, as a cache."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import redis

from coordinator.cache.rights import acl_rules
from coordinator.dev.servers.addresses import ACCOUNT, ADMINISTRATOR, HOST, redis_url
from coordinator.dev.servers.process import Process
from coordinator.dev.servers.programs import require
from coordinator.dev.servers.server import Server


class Redis(Server):
    """Keeps nothing on disk: after a restart it is empty, as a cache may be.

    Our processes are its user `coordinator`, with the rights that they need. A password is its user's name.
    """

    name = "redis"
    title = "Redis"
    not_ready: ClassVar[tuple[type[Exception], ...]] = (redis.exceptions.RedisError,)

    def __init__(self, directory: Path, keys: Sequence[str] = ("*",), port: int | None = None) -> None:
        super().__init__(directory, port)
        self._keys = keys

    @property
    def url(self) -> str:
        return redis_url(self.port)

    @property
    def administrator_url(self) -> str:
        """For what the cache's user may not do."""
        return redis_url(self.port, role=ADMINISTRATOR)

    @property
    def _acl(self) -> Path:
        return self.data.with_name(f"{self.data.name}.acl.conf")

    def _prepare(self) -> None:
        self.data.mkdir(exist_ok=True)
        self._acl.write_text(
            "user default off\n"
            f"user {ACCOUNT} on >{ACCOUNT} {acl_rules(self._keys)}\n"
            f"user {ADMINISTRATOR} on >{ADMINISTRATOR} ~* &* +@all\n"
        )

    def _launch(self) -> Process:
        options = {
            "bind": HOST,
            "port": str(self.port),
            "dir": str(self.data),
            "save": "",
            "appendonly": "no",
            "maxmemory": "64mb",
            "maxmemory-policy": "allkeys-lru",
            "daemonize": "no",
        }
        arguments = [part for key, value in options.items() for part in (f"--{key}", value)]
        return Process(
            [require("redis-server", "valkey-server"), self._acl, *arguments],
            log_path=self.log_path,
            directory=self.data,
        )

    def _probe(self) -> str:
        with redis.Redis.from_url(self.administrator_url, socket_connect_timeout=5, socket_timeout=5) as client:
            return str(client.info("server")["redis_version"])
