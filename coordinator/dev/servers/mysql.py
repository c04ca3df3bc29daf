"""A private MariaDB or MySQL, whichever is installed."""

import functools
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pymysql
from pymysql.cursors import Cursor

from coordinator.dev.servers.addresses import ACCOUNT, HOST, database_url
from coordinator.dev.servers.process import Process
from coordinator.dev.servers.programs import require
from coordinator.dev.servers.server import Server

_SQL_MODE = "STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"
# Run at every start, before the first client is let in; one statement a line. The databases follow. An earlier release
# gave the accounts another password.
_FIRST_STATEMENTS = """\
CREATE USER IF NOT EXISTS 'coordinator'@'127.0.0.1', 'coordinator'@'localhost';
ALTER USER 'coordinator'@'127.0.0.1' IDENTIFIED BY '{password}', 'coordinator'@'localhost' IDENTIFIED BY '{password}';
GRANT ALL PRIVILEGES ON *.* TO 'coordinator'@'127.0.0.1' WITH GRANT OPTION;
GRANT ALL PRIVILEGES ON *.* TO 'coordinator'@'localhost' WITH GRANT OPTION;
"""


class MySQL(Server):
    """Has a database for each service, and a user `coordinator` with all rights.

    With these one reads and writes files as the user who runs the server. So its password is one that others do not
    know, wherever a server is more than a test's.
    """

    name = "mysql"
    title = "MySQL"
    account_name = "mysql"
    not_ready: ClassVar[tuple[type[Exception], ...]] = (pymysql.err.OperationalError,)
    options: Sequence[str] = ()
    """More of them, for a test."""

    def __init__(
        self, directory: Path, databases: Sequence[str], port: int | None = None, *, password: str = ACCOUNT
    ) -> None:
        """`password` is that of `coordinator`: letters, digits, - and _."""
        super().__init__(directory, port)
        self._databases = databases
        self._password = password
        if _is_mariadb():
            self.title = "MariaDB"

    @property
    def url(self) -> str:
        """The address of its first database."""
        return database_url("mysql", self.port, self._databases[0], password=self._password)

    def _prepare(self) -> None:
        self._make_temporary()
        temporary = f"--tmpdir=../{self._temporary.name}"  # MariaDB's script takes no spaces
        if not self.data.exists():
            if _is_mariadb():
                install = require("mariadb-install-db", "mysql_install_db")
                options = ("--no-defaults", "--skip-test-db", "--skip-name-resolve", "--datadir=.", temporary)
                self._make_data(install, *options)
            else:
                self._make_data(_program(), "--no-defaults", "--initialize-insecure", "--datadir=.", temporary)
        made = (f"{_create(name)};\n" for name in self._databases)
        self._write_for_it(self._first_statements, _FIRST_STATEMENTS.format(password=self._password) + "".join(made))

    @property
    def _first_statements(self) -> Path:
        """Beside the data, where the server's own user can read it."""
        return self.data.with_name(f"{self.data.name}.first.sql")

    @property
    def _temporary(self) -> Path:
        """A directory of its own: a server that starts removes the temporary tables of all servers that share it."""
        return self.data.with_name(f"{self.data.name}.tmp")

    def _make_temporary(self) -> None:
        self._temporary.mkdir(mode=0o700, exist_ok=True)
        account = self._account()
        if account is not None:
            shutil.chown(self._temporary, account.uid, account.gid)

    def _launch(self) -> Process:
        options = [
            f"--datadir={self.data}",
            f"--tmpdir=../{self._temporary.name}",  # relative: a colon in the path would begin another
            f"--init-file={self._first_statements}",
            f"--bind-address={HOST}",
            f"--port={self.port}",
            "--socket=mysqld.sock",  # relative to the data: a socket's path may have 107 bytes
            "--pid-file=mysqld.pid",
            "--skip-name-resolve",
            "--skip-log-bin",
            "--innodb-flush-log-at-trx-commit=1",
            "--innodb-doublewrite=ON",
            "--character-set-server=utf8mb4",
            f"--sql-mode={_SQL_MODE}",
            "--max-connections=200",
        ]
        options += self.options
        if not _is_mariadb():
            options.append("--mysqlx=OFF")  # a second listener, which nobody needs
        return Process(
            [_program(), "--no-defaults", *options],
            log_path=self.log_path,
            directory=self.data,
            account=self._account(),
            death_signal=self.death_signal,
        )

    def _probe(self) -> str:
        connection = _connect(self.port, ACCOUNT, self._password, self._databases[0])
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT VERSION()")
            row = cursor.fetchone()
            return str(row[0]).partition("-")[0] if row else ""


def make_databases(port: int, names: Sequence[str], *, root_password: str) -> None:
    """Create the missing databases on a server of this machine, and give our account all rights on them.

    If none is missing, it does not connect as root. Raises OperationalError.
    """
    with _connect(port, ACCOUNT, ACCOUNT) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW DATABASES")
        missing = set(names) - {row[0] for row in cursor.fetchall()}
    if not missing:
        return
    with _connect(port, "root", root_password) as connection, connection.cursor() as cursor:
        for name in sorted(missing):
            cursor.execute(_create(name))
            # In a GRANT _ and % are wildcards.
            pattern = _quoted(name.replace("_", r"\_").replace("%", r"\%"))
            cursor.execute(f"GRANT ALL PRIVILEGES ON {pattern}.* TO '{ACCOUNT}'@'%' WITH GRANT OPTION")


def _create(name: str) -> str:
    # As docs/YOUR_SERVICE.md has a reader make his: what a revision says nothing of is compared byte by byte.
    return f"CREATE DATABASE IF NOT EXISTS {_quoted(name)} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"


def _quoted(name: str) -> str:
    return f"`{name.replace('`', '``')}`"


def _connect(port: int, user: str, password: str, database: str | None = None) -> "pymysql.Connection[Cursor]":
    return pymysql.connect(
        host=HOST, port=port, user=user, password=password, database=database, connect_timeout=5, read_timeout=5
    )


def _program() -> Path:
    return require("mariadbd", "mysqld")


@functools.cache
def _is_mariadb() -> bool:
    command: list[str | Path] = [_program(), "--no-defaults", "--version"]
    return "MariaDB" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
