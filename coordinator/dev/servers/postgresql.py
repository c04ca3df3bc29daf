"""A private PostgreSQL."""

import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import psycopg
from psycopg import sql

from coordinator.dev.servers.addresses import ACCOUNT, HOST, database_url
from coordinator.dev.servers.process import Process
from coordinator.dev.servers.programs import require
from coordinator.dev.servers.server import Server

_STILL_GOING_AWAY = re.compile(r"pre-existing shared memory block .* still in use|lock file .* already exists")


class PostgreSQL(Server):
    """Has a database for each service, and a superuser `coordinator`, whose password (SCRAM) is its name."""

    name = "postgresql"
    title = "PostgreSQL"
    account_name = "postgres"
    stop_signal = signal.SIGINT  # fast shutdown: it does not wait for its clients
    # Immediate shutdown. A killed postmaster would leave busy backends running until they notice.
    death_signal = signal.SIGQUIT
    not_ready: ClassVar[tuple[type[Exception], ...]] = (psycopg.OperationalError,)
    options: Sequence[str] = ()
    """More of them, for a test."""

    def __init__(self, directory: Path, databases: Sequence[str], port: int | None = None) -> None:
        super().__init__(directory, port)
        self._databases = databases

    @property
    def url(self) -> str:
        """The address of its first database."""
        return database_url("postgresql", self.port, self._databases[0])

    def _prepare(self) -> None:
        if self.data.exists():
            return
        # Beside the data, where the server's own user can read it. It needs no protection: this module shows it.
        password = self.data.with_name(f"{self.data.name}.password")
        password.write_text(ACCOUNT)
        password.chmod(0o644)
        self._make_data(
            _beside(require("postgres"), "initdb"),
            "--pgdata=.",
            f"--username={ACCOUNT}",
            f"--pwfile={password}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--no-locale",
        )
        password.unlink()

    def _launch(self) -> Process:
        options = {
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": "",  # a socket's path may have 107 bytes only
            "max_connections": "200",
            "fsync": "on",
            "synchronous_commit": "on",
            "full_page_writes": "on",
        }
        arguments = [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
        return Process(
            [require("postgres"), "-D", self.data, *arguments, *self.options],
            log_path=self.log_path,
            directory=self.data,
            account=self._account(),
            death_signal=self.death_signal,
        )

    def _probe(self) -> str:
        version = make_databases(self.port, self._databases)
        psycopg.connect(self.url, connect_timeout=5).close()
        return version

    def _may_launch_again(self, log_tail: str) -> bool:
        # Backends of a killed postmaster end by themselves, a moment later.
        return _STILL_GOING_AWAY.search(log_tail) is not None


def make_databases(port: int, names: Sequence[str]) -> str:
    """Create the missing databases on a server of this machine; return its version. Raises OperationalError."""
    maintenance = database_url("postgresql", port, "postgres")
    with psycopg.connect(maintenance, autocommit=True, connect_timeout=5) as connection:
        there = {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
        for name in names:
            if name not in there:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return str(connection.info.server_version // 10_000)


def _beside(program: Path, name: str) -> Path:
    """initdb and postgres must be of one version."""
    return program.resolve().with_name(name)
