"""A Sentinel of a test's own."""

from pathlib import Path
from typing import ClassVar

import redis

from coordinator.dev.servers.process import Process
from coordinator.dev.servers.programs import require
from coordinator.dev.servers.redis_broker import RedisBroker
from coordinator.dev.servers.server import Server

NAME = "main"


class RedisSentinel(Server):
    """Watches one master, and is alone to decide."""

    name = "redis-sentinel"
    title = "Sentinel"
    not_ready: ClassVar[tuple[type[Exception], ...]] = (redis.exceptions.RedisError,)

    def __init__(self, directory: Path, master: RedisBroker) -> None:
        super().__init__(directory)
        self._master = master

    @property
    def url(self) -> str:
        return f"redis+sentinel://administrator:administrator@127.0.0.1:{self.port}/{NAME}"

    def knows_replica(self) -> bool:
        with redis.Redis(port=self.port) as client:
            return bool(client.sentinel_slaves(NAME))

    def _prepare(self) -> None:
        self.data.mkdir(exist_ok=True)
        lines = (
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {self.data}",
            f"sentinel monitor {NAME} 127.0.0.1 {self._master.port} 1",
            f"sentinel auth-user {NAME} administrator",
            f"sentinel auth-pass {NAME} administrator",
            f"sentinel down-after-milliseconds {NAME} 500",
            f"sentinel failover-timeout {NAME} 3000",
        )
        (self.data / "sentinel.conf").write_text("\n".join((*lines, "")))

    def _launch(self) -> Process:
        return Process(
            [require("redis-server", "valkey-server"), str(self.data / "sentinel.conf"), "--sentinel"],
            log_path=self.log_path,
            directory=self.data,
        )

    def _probe(self) -> str:
        with redis.Redis(port=self.port, socket_connect_timeout=5, socket_timeout=5) as client:
            return str(client.info("server")["redis_version"])
