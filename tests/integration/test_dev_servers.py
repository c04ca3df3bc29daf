"""The private servers: they keep their data through SIGKILL, and leave no process behind, whoever dies."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pika
import psycopg
import pymongo
import pymysql
import pytest
import redis
from pymysql.cursors import Cursor

from coordinator.dev.servers import mysql, postgresql
from coordinator.dev.servers.addresses import database_url
from coordinator.dev.servers.process import descendants
from coordinator.dev.servers.server import Server
from coordinator.dev.servers.server_set import ServerSet
from coordinator.service.errors import ConfigurationError
from tests.support.servers import quorum_queues_are_noted, reference_servers

pytestmark = [pytest.mark.timeout(300), pytest.mark.faults]
DIED_WITHIN_S = 15.0


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """One that the servers' own users can enter, unlike pytest's."""
    path = Path(tempfile.mkdtemp(prefix="dev servers "))  # with a space, as a project's path may have
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def servers(directory: Path) -> Iterator[ServerSet]:
    servers = reference_servers(directory)
    servers.start()
    yield servers
    servers.stop()


def processes_of(directory: Path) -> list[str]:
    """Every process whose command line, working directory or environment names the directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                place = str((entry / "cwd").readlink())
                environment = (entry / "environ").read_bytes().decode(errors="replace")
                if str(directory) in command + place + environment:
                    found.append(f"{entry.name} {command[:200]}")
    return found


def all_pids(servers: ServerSet) -> set[int]:
    return {pid for server in servers.servers for main in server.pids for pid in (main, *descendants(main))}


def gone(pid: int) -> bool:
    """Whether it runs no more; one that nobody has waited for yet is a zombie."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def eventually(condition: Callable[[], bool], within_s: float = DIED_WITHIN_S) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        threading.Event().wait(0.05)
    return True


def broker(servers: ServerSet) -> pika.BlockingConnection:
    return pika.BlockingConnection(pika.URLParameters(servers.rabbitmq.url))


@contextlib.contextmanager
def payments(servers: ServerSet) -> Iterator[Cursor]:
    connection = pymysql.connect(
        host="127.0.0.1",
        port=servers.mysql.port,
        user="coordinator",
        password="coordinator",
        database="payments",
        autocommit=True,
    )
    with connection, connection.cursor() as cursor:
        yield cursor


def mongodb(servers: ServerSet) -> pymongo.MongoClient[dict[str, Any]]:
    return pymongo.MongoClient(servers.mongodb.url)


def write_everywhere(servers: ServerSet) -> None:
    with psycopg.connect(servers.postgresql.url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (value int)")
        connection.execute("INSERT INTO kept VALUES (1)")
    with payments(servers) as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS kept (value int)")
        cursor.execute("INSERT INTO kept VALUES (1)")
    with mongodb(servers) as client:
        client.get_default_database()["kept"].insert_one({"value": 1})
    with contextlib.closing(broker(servers)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare("kept", durable=True, arguments={"x-queue-type": "quorum"})
        channel.basic_publish("", "kept", b"1", pika.BasicProperties(delivery_mode=2))
    assert eventually(lambda: quorum_queues_are_noted(servers.rabbitmq))


def counts(servers: ServerSet) -> dict[str, int]:
    with psycopg.connect(servers.postgresql.url) as connection:
        row = connection.execute("SELECT count(*) FROM kept").fetchone()
        in_postgresql = row[0] if row else 0
    with payments(servers) as cursor:
        cursor.execute("SELECT count(*) FROM kept")
        row = cursor.fetchone()
        in_mysql = row[0] if row else 0
    with mongodb(servers) as client:
        in_mongodb = client.get_default_database()["kept"].count_documents({})
    with contextlib.closing(broker(servers)) as connection:
        queue = connection.channel().queue_declare("kept", passive=True)
        in_rabbitmq = queue.method.message_count
    return {"postgresql": in_postgresql, "mysql": in_mysql, "mongodb": in_mongodb, "rabbitmq": in_rabbitmq}


def test_every_server_keeps_its_data_through_sigkill_and_leaves_no_process(servers: ServerSet) -> None:
    write_everywhere(servers)
    before = counts(servers)
    pids = all_pids(servers)
    servers.kill()
    assert [pid for pid in pids if not gone(pid)] == []
    assert not any(server.alive for server in servers.servers)
    servers.start()
    assert eventually(lambda: counts(servers) == before), counts(servers)


def test_every_server_keeps_its_data_through_a_stop_and_leaves_no_process(servers: ServerSet, directory: Path) -> None:
    write_everywhere(servers)
    before = counts(servers)
    servers.stop()
    assert processes_of(directory) == []
    servers.start()
    assert eventually(lambda: counts(servers) == before), counts(servers)


def test_servers_killed_from_outside_start_again_at_once(servers: ServerSet) -> None:
    for server in servers.servers:
        os.kill(server.pid, signal.SIGKILL)
    assert eventually(lambda: not any(server.alive for server in servers.servers))
    servers.start()
    assert all(server.alive for server in servers.servers)


def test_databases_sync_every_commit_and_refuse_what_does_not_fit(servers: ServerSet) -> None:
    with psycopg.connect(servers.postgresql.url) as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            assert connection.execute(f"SHOW {setting}").fetchone() == ("on",)
        assert connection.execute("SHOW max_connections").fetchone() == ("200",)
    with payments(servers) as cursor:
        cursor.execute("SELECT @@innodb_flush_log_at_trx_commit, @@innodb_doublewrite, @@character_set_server")
        flush, doublewrite, characters = cursor.fetchone() or ()
        assert flush == 1
        assert doublewrite in (1, "ON")  # current servers have more values than two, and names for them
        assert characters == "utf8mb4"
        cursor.execute("SELECT @@sql_mode")
        assert "STRICT_TRANS_TABLES" in (cursor.fetchone() or ("",))[0]


def test_the_coordinator_may_make_other_roles(servers: ServerSet) -> None:
    with payments(servers) as cursor:
        cursor.execute("CREATE USER 'somebody'@'%' IDENTIFIED BY 'somebody'")
        cursor.execute("GRANT SELECT ON payments.* TO 'somebody'@'%'")
        cursor.execute("DROP USER 'somebody'@'%'")
    with psycopg.connect(servers.postgresql.url, autocommit=True) as connection:
        connection.execute("CREATE ROLE somebody LOGIN PASSWORD 'somebody'")
        connection.execute("DROP ROLE somebody")


def test_databases_are_made_where_another_made_the_server(servers: ServerSet) -> None:
    """As in Docker: with the account that the image has, and on MySQL by its root."""
    postgresql.make_databases(servers.postgresql.port, ["users", "shop-orders"])
    postgresql.make_databases(servers.postgresql.port, ["shop-orders"])
    psycopg.connect(database_url("postgresql", servers.postgresql.port, "shop-orders")).close()
    mysql.make_databases(servers.mysql.port, ["payments"], root_password="is not asked for")
    with payments(servers) as cursor:
        for account in ("'root'@'127.0.0.1'", "'coordinator'@'%'"):
            cursor.execute(f"CREATE USER {account} IDENTIFIED BY 'secret'")
        cursor.execute("GRANT ALL PRIVILEGES ON *.* TO 'root'@'127.0.0.1' WITH GRANT OPTION")
        try:
            mysql.make_databases(servers.mysql.port, ["payments", "shop_orders"], root_password="secret")
            cursor.execute("SHOW GRANTS FOR 'coordinator'@'%'")
            grants = [row[0] for row in cursor.fetchall()]
        finally:
            for account in ("'root'@'127.0.0.1'", "'coordinator'@'%'"):
                cursor.execute(f"DROP USER {account}")
    # Not that of shopXorders.
    assert [grant for grant in grants if "shop" in grant] == [
        r"GRANT ALL PRIVILEGES ON `shop\_orders`.* TO `coordinator`@`%` WITH GRANT OPTION"
    ]
    pymysql.connect(host="127.0.0.1", port=servers.mysql.port, user="coordinator", password="coordinator").close()


def test_mysql_shares_its_temporary_tables_with_no_other_server(servers: ServerSet) -> None:
    """A MariaDB that starts removes what it finds there, another's too; making the data then failed by chance."""
    with payments(servers) as cursor:
        cursor.execute("SELECT @@tmpdir")
        ((place,),) = cursor.fetchall()
    # It is told a relative path.
    assert (servers.mysql.data / place).resolve() == servers.mysql.data.with_name(f"{servers.mysql.data.name}.tmp")


def test_mongodb_has_transactions(servers: ServerSet) -> None:
    with mongodb(servers) as client, client.start_session() as session:
        items = client.get_default_database()["transacted"]
        with session.start_transaction():
            items.insert_one({"_id": 1}, session=session)
        session.start_transaction()
        items.insert_one({"_id": 2}, session=session)
        session.abort_transaction()
        assert [item["_id"] for item in items.find()] == [1]


def test_redis_is_a_cache(servers: ServerSet) -> None:
    with redis.Redis.from_url(servers.redis.administrator_url) as client:
        assert client.config_get("maxmemory*")["maxmemory"] == str(64 << 20)
        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "allkeys-lru"
        assert client.config_get("save")["save"] == ""


def test_nothing_listens_beyond_loopback(servers: ServerSet) -> None:
    pids = all_pids(servers)
    inodes = set()
    for pid in pids:
        for link in (Path("/proc") / str(pid) / "fd").iterdir():
            with contextlib.suppress(OSError):
                inodes.add(str(link.readlink()).removeprefix("socket:[").rstrip("]"))
    addresses = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                addresses.add(fields[1].partition(":")[0])
    assert addresses - {"0100007F", "00000000000000000000000001000000"} == set()


def test_a_paused_server_answers_nothing_until_it_is_resumed(servers: ServerSet) -> None:
    paused: list[Server] = [servers.postgresql, servers.redis, servers.rabbitmq]
    for server in paused:
        server.pause()
    with ThreadPoolExecutor(len(paused)) as threads:  # each waits for its timeout
        assert list(threads.map(answers, paused)) == [False] * len(paused)
    for server in paused:
        server.resume()
    for server in paused:
        assert eventually(partial(answers, server))


def answers(server: Server) -> bool:
    try:
        return bool(server._probe())
    except server.not_ready:
        return False


def test_a_paused_server_can_be_stopped(servers: ServerSet) -> None:
    servers.redis.pause()
    servers.redis.stop()
    assert not servers.redis.alive
    servers.redis.start()


def test_a_server_whose_port_another_one_has_does_not_take_it_for_itself(
    directory: Path, servers: ServerSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.dev.servers.server._PORT_TIMEOUT_S", 0.3)  # this port does not become free
    other = reference_servers(directory / "other")
    other.redis.port = servers.redis.port
    with pytest.raises(ConfigurationError, match=rf"Redis cannot start: port {servers.redis.port} .* is in use"):
        other.redis.start()


def test_a_server_that_cannot_start_says_why_with_its_log(directory: Path) -> None:
    other = reference_servers(directory / "broken")
    other.postgresql.start()
    other.postgresql.stop()
    (other.postgresql.data / "PG_VERSION").write_text("9.4")
    with pytest.raises(ConfigurationError, match=r"(?s)has not started \(exit status 1\).*version 9.4"):
        other.postgresql.start()


def test_a_set_of_which_one_fails_leaves_nothing_behind(
    servers: ServerSet, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.dev.servers.server._PORT_TIMEOUT_S", 1.5)  # the others are on their way then
    place = directory / "failing"
    other = reference_servers(place)
    other.redis.port = servers.redis.port
    with pytest.raises(ConfigurationError, match="Redis"):
        other.start()
    assert processes_of(place) == []


PARENT = """
import json, sys, threading
from pathlib import Path
from coordinator.dev.servers.process import descendants
from tests.support.servers import reference_servers
servers = reference_servers(Path(sys.argv[1]))
is_paused = sys.argv[2:] == ["paused"]
# From a thread that ends at once: the servers must not end with it.
starting = threading.Thread(target=servers.postgresql.start if is_paused else servers.start)
starting.start()
starting.join()
if is_paused:
    servers.postgresql.pause()
print(json.dumps([pid for s in servers.servers for main in s.pids for pid in (main, *descendants(main))]), flush=True)
threading.Event().wait()
"""


@pytest.mark.parametrize(("state", "processes_min"), [("running", 11), ("paused", 6)])
def test_servers_die_with_the_parent_that_is_killed(state: str, processes_min: int) -> None:
    """All of them; and PostgreSQL, whose death signal is not SIGKILL, when it is paused."""
    # In pytest's manner: a directory that the servers' own users cannot enter.
    directory = Path(tempfile.mkdtemp(prefix="dev-parent-"))
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(directory), state], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        pids = json.loads(parent.stdout.readline())
        assert len(pids) >= processes_min
        parent.kill()
        parent.wait()
        parent.stdout.close()
        assert eventually(lambda: all(gone(pid) for pid in pids)), [pid for pid in pids if not gone(pid)]
        assert eventually(lambda: processes_of(directory) == []), processes_of(directory)
        again = reference_servers(directory)
        again.postgresql.start()
        again.postgresql.stop()
    finally:
        parent.kill()
        parent.wait()
        reference_servers(directory).remove()
        shutil.rmtree(directory)
