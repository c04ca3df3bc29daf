"""A private PgBouncer."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import psycopg

from coordinator.dev.install import NeededProgram
from coordinator.dev.servers.addresses import HOST
from coordinator.dev.servers.process import Process
from coordinator.dev.servers.programs import require
from coordinator.dev.servers.server import Server

PGBOUNCER = NeededProgram(("pgbouncer",), "pgbouncer")


class PgBouncer(Server):
    """Before a PostgreSQL, for some users with their passwords; it has one session for all of a user's clients."""

    name = "pgbouncer"
    title = "PgBouncer"
    account_name = "postgres"
    not_ready: ClassVar[tuple[type[Exception], ...]] = (psycopg.OperationalError,)

    def __init__(
        self,
        directory: Path,
        port: int,
        users: Mapping[str, str],
        database: str,
        *,
        ignored: str,
        mode: str = "transaction",
    ) -> None:
        super().__init__(directory)
        self._server_port = port
        self._users = users
        self._database = database
        self._ignored = ignored
        self._mode = mode

    @property
    def url(self) -> str:
        """As its first user."""
        user, password = next(iter(self._users.items()))
        return f"postgresql://{user}:{password}@{HOST}:{self.port}/{self._database}"

    @property
    def _configuration(self) -> Path:
        return self.data / "pgbouncer.ini"

    def _prepare(self) -> None:
        self.data.mkdir(exist_ok=True)
        self.data.chmod(0o755)
        users = self.data / "users.txt"
        users.write_text("".join(f'"{user}" "{password}"\n' for user, password in self._users.items()))
        self._configuration.write_text(
            f"""
[databases]
* = host={HOST} port={self._server_port}
[pgbouncer]
listen_addr = {HOST}
listen_port = {self.port}
unix_socket_dir =
auth_type = plain
auth_file = {users}
pool_mode = {self._mode}
default_pool_size = 1
max_client_conn = 100
ignore_startup_parameters = {self._ignored}
"""
        )

    def _launch(self) -> Process:
        return Process(
            [require("pgbouncer"), self._configuration],
            log_path=self.log_path,
            directory=self.data,
            account=self._account(),
            death_signal=self.death_signal,
        )

    def _probe(self) -> str:
        psycopg.connect(self.url, connect_timeout=5).close()
        return ""
