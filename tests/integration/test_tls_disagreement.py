"""A server and an address that disagree about TLS: no wait changes it, so who starts says so and ends."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from shutil import chown, rmtree
from tempfile import mkdtemp

import pytest

from coordinator.dev.servers.postgresql import PostgreSQL
from coordinator.dev.servers.redis_broker import RedisBroker
from coordinator.migrations.migrate import migrate
from coordinator.runtime.addresses import Host
from coordinator.runtime.settings import BrokerSettings, DatabaseSettings
from coordinator.runtime.tls_look import Greeting, tls_problem
from coordinator.service.errors import BrokerUnavailable, ConfigurationError
from coordinator.stores.open import open_store
from coordinator.stores.port import NotAdmitted, StoreUnavailable
from coordinator.transports.redis.connection import RedisConnection
from tests.integration.test_certificates import DATABASES, ended, url_to
from tests.integration.test_durability import migrated
from tests.support.authority import Authority
from tests.support.databases import FreshDatabases
from tests.support.forks import Forks
from tests.support.ledger import LEDGER
from tests.support.tls_stand_in import PlainStandIn, TlsStandIn

pytestmark = pytest.mark.doors

PING = Greeting(b"PING\r\n", lambda answer: answer.startswith(b"+PONG"))


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """MongoDB's driver tries again until its time is up."""
    monkeypatch.setattr("coordinator.stores.mongodb.client.CONNECT_TIMEOUT_MS", 500)


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """Where a server's own user may go, too."""
    made = Path(mkdtemp(prefix="write-coordinator-disagreement-"))
    made.chmod(0o755)
    yield made
    rmtree(made, ignore_errors=True)


@pytest.fixture(scope="module")
def authority(directory: Path) -> Authority:
    return Authority(directory)


def check(url: str) -> None:
    with closing(open_store(url, LEDGER)) as store:
        store.check(LEDGER.models)


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_a_database_without_the_tls_that_is_asked_for_is_not_waited_for(authority: Authority, scheme: str) -> None:
    with closing(PlainStandIn(DATABASES[scheme][0])) as server, pytest.raises(NotAdmitted, match="SSL"):
        check(url_to(scheme, server.port, authority.certificate))


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
def test_each_sslmode_that_insists_ends_a_lane_with_words_where_postgresql_has_no_tls(
    databases: FreshDatabases, authority: Authority, forks: Forks, tmp_path: Path, mode: str
) -> None:
    url = f"{databases.new('USERS_DATABASE_URL')}?sslmode={mode}&sslrootcert={authority.certificate}"
    broker = {"AMQP_URL": "amqp://127.0.0.1:9", "COORDINATOR_APP": "gateways.app:APP"}
    status, said = ended(forks, tmp_path / "log", ["coordinator", "run", "users"], USERS_DATABASE_URL=url, **broker)
    assert status == 2
    assert "USERS_DATABASE_URL" in said
    assert "server does not support SSL" in said


def test_tls_that_begins_at_once_is_not_waited_for_where_postgresql_has_none(
    databases: FreshDatabases, forks: Forks, tmp_path: Path
) -> None:
    """Nor is it where that is older than 17; libpq tells either as it tells a connection that was lost."""
    url = f"{databases.new('USERS_DATABASE_URL')}?sslmode=require&sslnegotiation=direct"
    broker = {"AMQP_URL": "amqp://127.0.0.1:9", "COORDINATOR_APP": "gateways.app:APP"}
    for process, setting in (("run", "DATABASE"), ("gateway", "READER")):
        given = {f"USERS_{setting}_URL": url, **broker}
        status, said = ended(forks, tmp_path / process, ["coordinator", process, "users"], **given)
        assert status == 2
        assert f"USERS_{setting}_URL" in said
        assert "no TLS that begins at once at " in said
        assert "sslnegotiation=direct" in said


def test_tls_that_begins_at_once_and_ends_is_waited_for(authority: Authority) -> None:
    with closing(TlsStandIn(*authority.issue("server", "IP:127.0.0.1"))) as server:
        url = url_to("postgresql", server.port, authority.certificate, {"sslnegotiation": "direct"})
        with pytest.raises(StoreUnavailable) as refused:
            check(url)
    assert not isinstance(refused.value, NotAdmitted)


def test_a_mongodb_without_the_tls_that_is_asked_for_is_not_waited_for(
    databases: FreshDatabases, authority: Authority
) -> None:
    url = databases.new("ITEMS_DATABASE_URL")
    joined = "&" if "?" in url else "?"
    with pytest.raises(NotAdmitted, match=r"asks for TLS, and .* has none"):
        check(f"{url}{joined}tls=true&tlsCAFile={authority.certificate}")


def test_a_mongodb_that_wants_tls_is_not_waited_for(authority: Authority) -> None:
    server = TlsStandIn(*authority.issue("server", "IP:127.0.0.1"))
    with closing(server), pytest.raises(NotAdmitted, match="has TLS at this port"):
        check(f"mongodb://u:p@127.0.0.1:{server.port}/ledger")


@pytest.mark.parametrize("scheme", DATABASES)
def test_a_certificate_that_is_refused_is_not_waited_for(authority: Authority, scheme: str) -> None:
    elsewhere = authority.issue("elsewhere", "DNS:elsewhere.example.org")
    with closing(TlsStandIn(*elsewhere, begins=DATABASES[scheme][0])) as server, pytest.raises(NotAdmitted):
        check(url_to(scheme, server.port, authority.certificate))


@pytest.mark.parametrize("scheme", ["postgresql", "mongodb"])
def test_a_database_is_waited_for_while_another_host_of_it_is_away(authority: Authority, scheme: str) -> None:
    elsewhere = authority.issue("elsewhere", "DNS:elsewhere.example.org")
    with closing(TlsStandIn(*elsewhere, begins=DATABASES[scheme][0])) as server:
        url = url_to(scheme, server.port, authority.certificate)
        with pytest.raises(StoreUnavailable) as refused:
            check(url.replace("@127.0.0.1", "@127.0.0.1:9,127.0.0.1"))
    assert not isinstance(refused.value, NotAdmitted)


async def test_a_redis_without_the_tls_that_is_asked_for_is_refused(
    redis_broker: RedisBroker, authority: Authority
) -> None:
    url = f"rediss{redis_broker.url.removeprefix('redis')}?ssl_ca_certs={authority.certificate}"
    with pytest.raises(ConfigurationError, match=r"BROKER_URL: the address asks for TLS, and .* has none"):
        await RedisConnection.open(BrokerSettings(url=url, connect_timeout_s=1), "test")


async def test_a_redis_that_wants_tls_is_refused(authority: Authority) -> None:
    server = TlsStandIn(*authority.issue("server", "IP:127.0.0.1"))
    with closing(server), pytest.raises(ConfigurationError, match=r"BROKER_URL: .* has TLS at this port"):
        await RedisConnection.open(BrokerSettings(url=f"redis://u:p@127.0.0.1:{server.port}/0"), "test")


async def test_a_certificate_of_redis_that_is_not_trusted_is_refused(authority: Authority) -> None:
    with closing(TlsStandIn(*authority.issue("elsewhere", "DNS:elsewhere.example.org"))) as server:
        url = f"rediss://u:p@127.0.0.1:{server.port}/0?ssl_ca_certs={authority.certificate}"
        with pytest.raises(ConfigurationError, match="BROKER_URL: no TLS connection"):
            await RedisConnection.open(BrokerSettings(url=url), "test")


async def test_a_redis_that_is_away_is_waited_for() -> None:
    for scheme in ("redis", "rediss"):
        with pytest.raises(BrokerUnavailable):
            await RedisConnection.open(BrokerSettings(url=f"{scheme}://127.0.0.1:9/0"), "test")


def test_a_server_that_says_nothing_disagrees_about_nothing(authority: Authority) -> None:
    with closing(TlsStandIn(*authority.issue("server", "IP:127.0.0.1"))) as secure:
        hosts = [Host("127.0.0.1", secure.port)]
        assert tls_problem(hosts, PING, is_tls=True) is None
        assert tls_problem(hosts, PING, is_tls=False) is not None
        for is_tls in (True, False):
            assert tls_problem([*hosts, Host("127.0.0.1", 9)], PING, is_tls=is_tls) is None


@pytest.mark.faults
def test_a_postgresql_whose_tls_is_turned_off_keeps_a_lane_waiting_until_it_is_back(
    directory: Path, authority: Authority
) -> None:
    certificate, key = authority.issue("postgresql", "IP:127.0.0.1")
    server = PostgreSQL(directory / "postgresql", ["ledger"])
    server.directory.mkdir()
    key.chmod(0o600)
    chown(key, server.account_name)
    secure = ("-c", "ssl=on", "-c", f"ssl_cert_file={certificate}", "-c", f"ssl_key_file={key}")
    server.options = secure
    server.start()
    try:
        migrated(server.url)
        url = f"{server.url}?sslmode=require"
        migrate(LEDGER, DatabaseSettings(database_url=url))
        with closing(open_store(url, LEDGER)) as store:
            store.check(LEDGER.models)
            server.stop()
            server.options = ()
            server.start()
            for _ in range(2):
                # The connection that was open, and then each new one.
                with pytest.raises(StoreUnavailable):
                    store.current()
            with pytest.raises(StoreUnavailable, match="server does not support SSL"):
                store.current()
            server.stop()
            server.options = secure
            server.start()
            store.current()
    finally:
        server.stop()
