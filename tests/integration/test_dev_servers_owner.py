"""Another user of the machine reaches the private servers, and becomes by none of them the user who runs it."""

import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pymysql
import pytest
import redis

from coordinator.dev.servers.addresses import ADMINISTRATOR, database_url, redis_url
from coordinator.dev.servers.mysql import MySQL
from coordinator.dev.servers.postgresql import PostgreSQL
from coordinator.dev.servers.rabbitmq import RabbitMQ
from coordinator.dev.servers.redis import Redis

pytestmark = [pytest.mark.timeout(120)]


@pytest.fixture
def directory() -> Iterator[Path]:
    """One that the servers' own users can enter, unlike pytest's."""
    path = Path(tempfile.mkdtemp(prefix="dev-owner-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def lets_in(server: PostgreSQL | MySQL, password: str) -> bool:
    try:
        if isinstance(server, PostgreSQL):
            psycopg.connect(database_url("postgresql", server.port, "users", password=password)).close()
        else:
            pymysql.connect(host="127.0.0.1", port=server.port, user="coordinator", password=password).close()
    except server.not_ready:
        return False
    return True


@pytest.mark.parametrize("kind", [PostgreSQL, MySQL])
def test_the_owner_of_the_databases_has_the_password_of_the_run(
    kind: type[PostgreSQL | MySQL], directory: Path
) -> None:
    """So has that of data which an earlier release has made: it was the owner's name."""
    before = kind(directory / kind.name, ["users"])
    before.start()
    before.stop()
    server = kind(directory / kind.name, ["users"], before.port, password="its-own_1")
    server.start()
    try:
        assert [lets_in(server, password) for password in ("its-own_1", "coordinator")] == [True, False]
    finally:
        server.stop()


def test_so_has_the_cache_s_administrator(directory: Path) -> None:
    server = Redis(directory / Redis.name, password="its-own_1")
    server.start()
    try:
        with redis.Redis.from_url(server.administrator_url) as client:
            assert client.ping()
        known = redis.Redis.from_url(redis_url(server.port, role=ADMINISTRATOR))
        with known as client, pytest.raises(redis.exceptions.AuthenticationError):
            client.ping()
    finally:
        server.stop()
    files = (file for file in server.directory.iterdir() if file.suffix == ".conf")
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600]


def test_nobody_guesses_the_cookie_by_which_erlang_runs_programs_or_reads_it_as_it_is_made(directory: Path) -> None:
    """Erlang's own has 36 bits, and is there for everybody until it has its mode."""
    server = RabbitMQ(directory / RabbitMQ.name)
    cookie = server.directory / ".erlang.cookie"
    seen = []
    for _ in range(2):
        server.start()
        try:
            seen.append(cookie.read_text())
            assert stat.S_IMODE(cookie.stat().st_mode) == 0o600
            assert server.control("eval", "erlang:get_cookie().").strip().strip("'") == seen[-1]
        finally:
            server.stop()
    assert [len(bytes.fromhex(each)) for each in seen] == [32, 32]
    assert seen[0] != seen[1]
