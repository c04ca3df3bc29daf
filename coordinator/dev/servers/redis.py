"""A private Redis, as a cache."""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

import redis

from coordinator.cache.rights import acl_rules, reader_acl_rules
from coordinator.dev.servers.addresses import ACCOUNT, ADMINISTRATOR, CACHE_READER, HOST, redis_url
from coordinator.dev.servers.process import Process
from coordinator.dev.servers.programs import require
from coordinator.dev.servers.server import Server

_PROGRAMS: Final = ("redis-server", "valkey-server")
_READING_SINCE: Final = 7
"""The release from which a user can have the right to read a key only."""


class Redis(Server):
    """Keeps nothing on disk: after a restart it is empty, as a cache may be.

    Lanes are its user `coordinator`, and gateways `coordinator_reader`, with the rights that they need. A password
    is its user's name. Not so that of the administrator, who with Redis 6 writes files as the user who runs the server.
    """

    name = "redis"
    title = "Redis"
    not_ready: ClassVar[tuple[type[Exception], ...]] = (redis.exceptions.RedisError,)

    def __init__(
        self, directory: Path, keys: Sequence[str] = ("*",), port: int | None = None, *, password: str = ADMINISTRATOR
    ) -> None:
        """`password` is the administrator's."""
        super().__init__(directory, port)
        self._keys = keys
        self._password = password

    @property
    def url(self) -> str:
        return redis_url(self.port)

    @property
    def administrator_url(self) -> str:
        """For what the cache's user may not do."""
        return redis_url(self.port, role=ADMINISTRATOR, password=self._password)

    @property
    def _acl(self) -> Path:
        return self.data.with_name(f"{self.data.name}.acl.conf")

    def _prepare(self) -> None:
        self.data.mkdir(exist_ok=True)
        reading = reader_acl_rules if _knows_reading() else acl_rules
        self._write_for_it(
            self._acl,
            "user default off\n"
            f"user {ACCOUNT} on >{ACCOUNT} {acl_rules(self._keys)}\n"
            f"user {CACHE_READER} on >{CACHE_READER} {reading(self._keys)}\n"
            f"user {ADMINISTRATOR} on >{self._password} ~* &* +@all\n",
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
            [require(*_PROGRAMS), self._acl, *arguments],
            log_path=self.log_path,
            directory=self.data,
        )

    def _probe(self) -> str:
        with redis.Redis.from_url(self.administrator_url, socket_connect_timeout=5, socket_timeout=5) as client:
            return str(client.info("server")["redis_version"])


def _knows_reading() -> bool:
    """Whether this server has rights to read only; one that does not say its release is taken for old."""
    printed = subprocess.run([require(*_PROGRAMS), "--version"], capture_output=True, check=False, text=True).stdout
    release = re.search(r"\bv=(\d+)", printed)
    return release is not None and int(release[1]) >= _READING_SINCE
