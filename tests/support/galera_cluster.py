"""Three nodes of a Galera cluster of MariaDB on loopback."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

import pymysql

from coordinator.dev.servers.addresses import ACCOUNT, HOST
from coordinator.dev.servers.mysql import MySQL
from coordinator.dev.servers.ports import free_port
from coordinator.dev.servers.programs import find
from tests.support.system import wait_until

PROVIDERS = ("/usr/lib/galera/libgalera_smm.so", "/usr/lib64/galera-4/libgalera_smm.so", "/usr/lib/libgalera_smm.so")
"""Where distributions put the library."""
TIMEOUTS = (
    "evs.keepalive_period=PT0.3S;evs.suspect_timeout=PT1.5S;evs.inactive_timeout=PT3S;evs.inactive_check_period=PT0.3S"
)
"""Those of docs/SCALING.md. A node starts only where the others go with `suspect_timeout`."""
_STATE = """
    SHOW GLOBAL STATUS
    WHERE Variable_name IN ('wsrep_cluster_size', 'wsrep_local_state_comment', 'wsrep_cluster_status')
"""


def lack_of_galera() -> str | None:
    """What is not installed here; None: nothing is missing."""
    if _provider() is None:
        return "the library of Galera (Debian: galera-4) is not installed"
    if find("mariadbd") is None:
        return "MariaDB is not installed: MySQL's own server knows no Galera"
    return None if find("rsync") is not None else "rsync, by which a node gets the data of another, is not installed"


def _provider() -> str | None:
    return next((path for path in PROVIDERS if Path(path).exists()), None)


class GaleraNode(MySQL):
    """One of several nodes. The first one makes the cluster when it first starts, and then joins like the others."""

    def __init__(self, directory: Path, databases: Sequence[str], group_port: int, group_ports: Sequence[int]) -> None:
        super().__init__(directory, databases)
        self._group_port = group_port
        members = ",".join(f"{HOST}:{port}" for port in group_ports)
        provider = f"gmcast.listen_addr=tcp://{HOST}:{group_port};ist.recv_addr={HOST}:{free_port()};gcache.size=16M;{TIMEOUTS}"
        self.joins = (
            # What is made when a server starts, the first node makes for all.
            "--init-file=",
            "--innodb-autoinc-lock-mode=2",
            "--binlog-format=ROW",
            "--wsrep-on=ON",
            f"--wsrep-provider={_provider()}",
            "--wsrep-cluster-name=tests",
            f"--wsrep-cluster-address=gcomm://{members}",
            f"--wsrep-node-name={directory.name}",
            f"--wsrep-node-address={HOST}:{group_port}",
            f"--wsrep-provider-options={provider}",
            "--wsrep-sst-method=rsync",
            f"--wsrep-sst-receive-address={HOST}:{free_port()}",
        )
        self.options = self.joins

    def make_cluster(self) -> None:
        """Start as the first node of all."""
        self.options = [*self.joins[1:], "--wsrep-new-cluster"]
        self.start()
        self.options = self.joins

    def lag(self) -> "pymysql.Connection[Any]":
        """Apply nothing of what the others commit, until `UNLOCK TABLES` or the end of this connection."""
        connection = self.connect()
        with connection.cursor() as cursor:
            cursor.execute("FLUSH TABLES WITH READ LOCK")
        return connection

    def connect(self) -> "pymysql.Connection[Any]":
        """A plain connection, for a test's own looks."""
        return pymysql.connect(
            host=HOST,
            port=self.port,
            user=ACCOUNT,
            password=ACCOUNT,
            database=self._databases[0],
            autocommit=True,
            connect_timeout=5,
            read_timeout=30,
        )

    def state(self) -> dict[str, str]:
        """What it says of the cluster; empty while it does not answer."""
        try:
            with self.connect() as connection, connection.cursor() as cursor:
                cursor.execute(_STATE)
                return dict(cursor.fetchall())
        except pymysql.MySQLError:
            return {}


class GaleraCluster:
    """Three nodes."""

    def __init__(self, directory: Path, databases: Sequence[str]) -> None:
        self._databases = databases
        ports = [free_port() for _ in range(3)]
        self.nodes = [
            GaleraNode(directory / f"node{number}", databases, port, ports) for number, port in enumerate(ports, 1)
        ]

    def start(self) -> None:
        """One after the other: each gets the data of those before it."""
        first, *others = self.nodes
        first.make_cluster()
        for node in others:
            node.start()
        self.wait_until_whole()

    def start_again(self) -> None:
        """The nodes that are dead."""
        for node in self.nodes:
            node.start()
        self.wait_until_whole()

    def wait_until_whole(self) -> None:
        """Return once all nodes are up to date."""
        whole = {"wsrep_cluster_size": "3", "wsrep_local_state_comment": "Synced", "wsrep_cluster_status": "Primary"}
        wait_until(lambda: all(node.state() == whole for node in self.nodes), "all nodes are up to date", timeout_s=60)

    def stop(self) -> None:
        with ThreadPoolExecutor(len(self.nodes)) as threads:
            list(threads.map(GaleraNode.kill, self.nodes))

    def url(self, database: str, user: str = ACCOUNT, *, first: int = 0) -> str:
        """All nodes, from this one on."""
        nodes = [*self.nodes[first:], *self.nodes[:first]]
        return address(user, [node.port for node in nodes], database)


def address(user: str, ports: Sequence[int], database: str) -> str:
    """Of an account whose password is its name."""
    return f"mysql://{user}:{user}@{','.join(f'{HOST}:{port}' for port in ports)}/{database}"


@contextmanager
def galera_cluster(*databases: str) -> Iterator[GaleraCluster]:
    """Three nodes that run; the databases are empty."""
    directory = Path(mkdtemp(prefix="write-coordinator-galera-"))
    # The servers' own user goes there, too.
    directory.chmod(0o755)
    cluster = GaleraCluster(directory, databases)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        rmtree(directory, ignore_errors=True)
