"""A private PostgreSQL."""

import contextlib
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
    """Has a database for each service, and a superuser `coordinator` (SCRAM).

    A superuser runs programs as the user who runs the server. So its password is one that others do not know, wherever
    a server is more than a test's.
    """

    name = "postgresql"
    title = "PostgreSQL"
    account_name = "postgres"
    stop_signal = signal.SIGINT  # fast shutdown: it does not wait for its clients
    # Immediate shutdown. A killed postmaster would leave busy backends running until they notice.
    death_signal = signal.SIGQUIT
    not_ready: ClassVar[tuple[type[Exception], ...]] = (psycopg.OperationalError,)
    options: Sequence[str] = ()
    """More of them, for a test."""

    def __init__(
        self, directory: Path, databases: Sequence[str], port: int | None = None, *, password: str = ACCOUNT
    ) -> None:
        """`password` is the superuser's."""
        super().__init__(directory, port)
        self._databases = databases
        self._password = password

    @property
    def url(self) -> str:
        """The address of its first database."""
        return database_url("postgresql", self.port, self._databases[0], password=self._password)

    def _prepare(self) -> None:
        if self.data.exists():
            return
        # Beside the data, where the server's own user can read it.
        password = self.data.with_name(f"{self.data.name}.password")
        self._write_for_it(password, self._password)
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
        try:
            version = make_databases(self.port, self._databases, self._password)
        except psycopg.OperationalError:
            if not self._replace_password():
                raise
            version = make_databases(self.port, self._databases, self._password)
        psycopg.connect(self.url, connect_timeout=5).close()
        return version

    def _replace_password(self) -> bool:
        """Whether the superuser had the password of an earlier release, its name, and has its own now."""
        known = database_url("postgresql", self.port, "postgres")
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(known, connect_timeout=5) as connection:
            change = sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(ACCOUNT), sql.Literal(self._password))
            connection.execute(change)
            return True
        return False

    def _may_launch_again(self, log_tail: str) -> bool:
        # Backends of a killed postmaster end by themselves, a moment later.
        return _STILL_GOING_AWAY.search(log_tail) is not None


def make_databases(port: int, names: Sequence[str], password: str = ACCOUNT) -> str:
    """Create the missing databases on a server of this machine; return its version. Raises OperationalError."""
    maintenance = database_url("postgresql", port, "postgres", password=password)
    with psycopg.connect(maintenance, autocommit=True, connect_timeout=5) as connection:
        there = {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
        for name in names:
            if name not in there:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return str(connection.info.server_version // 10_000)


def _beside(program: Path, name: str) -> Path:
    """initdb and postgres must be of one version."""
    return program.resolve().with_name(name)
