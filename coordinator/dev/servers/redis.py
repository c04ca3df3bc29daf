"""A private Redis, as a cache."""

from typing import ClassVar

import redis

from coordinator.dev.servers.addresses import HOST, redis_url
from coordinator.dev.servers.process import Process
from coordinator.dev.servers.programs import require
from coordinator.dev.servers.server import Server


class Redis(Server):
    """Keeps nothing on disk: after a restart it is empty, as a cache may be."""

    name = "redis"
    title = "Redis"
    not_ready: ClassVar[tuple[type[Exception], ...]] = (redis.exceptions.RedisError,)

    @property
    def url(self) -> str:
        return redis_url(self.port)

    def _prepare(self) -> None:
        self.data.mkdir(exist_ok=True)

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
            [require("redis-server", "valkey-server"), *arguments],
            log_path=self.log_path,
            directory=self.data,
        )

    def _probe(self) -> str:
        with redis.Redis.from_url(self.url, socket_connect_timeout=5, socket_timeout=5) as client:
            return str(client.info("server")["redis_version"])
