"""Certificates at the connections that we open: a wrong one is refused in words."""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from shutil import chown, rmtree
from tempfile import mkdtemp

import pika
import pytest
from msgspec import Struct

from coordinator.cache.connections import AsyncRedisScripts, RedisScripts
from coordinator.cache.scripts import CacheUnavailable
from coordinator.dev.servers.ports import free_port
from coordinator.dev.servers.postgresql import PostgreSQL
from coordinator.dev.servers.rabbitmq import RabbitMQ
from coordinator.dev.servers.redis import Redis
from coordinator.runtime.settings import BrokerSettings, CacheSettings
from coordinator.service.errors import DatabaseUnavailable
from coordinator.stores.open import open_store
from coordinator.stores.port import StoreUnavailable
from coordinator.transports.rabbitmq.driver_arguments import broker_parameters
from tests.integration.test_addresses import all_refuse, everybody, read, url_of
from tests.support.authority import Authority
from tests.support.forks import Forks
from tests.support.ledger import LEDGER
from tests.support.tls_stand_in import TlsStandIn

AWAY = "postgresql://nobody@127.0.0.1:9/users"


class Wrong(Struct, frozen=True):
    """A certificate and its key, the authority that the client trusts, and what OpenSSL says."""

    certificate: Path
    key: Path
    authority: Authority
    words: str

    def server(self, *, begins_plainly: bool = False) -> TlsStandIn:
        return TlsStandIn(self.certificate, self.key, begins_plainly=begins_plainly)


@pytest.fixture(scope="module")
def authorities() -> Iterator[tuple[Authority, Authority]]:
    directory = Path(mkdtemp(prefix="write-coordinator-certificates-"))
    directory.chmod(0o755)
    (directory / "other").mkdir()
    yield Authority(directory), Authority(directory / "other")
    rmtree(directory, ignore_errors=True)


@pytest.fixture(params=["another host's", "expired", "of an unknown authority"])
def wrong(request: pytest.FixtureRequest, authorities: tuple[Authority, Authority]) -> Wrong:
    ours, other = authorities
    if request.param == "another host's":
        return Wrong(*ours.issue("elsewhere", "DNS:elsewhere.example.org"), ours, "not valid for '127.0.0.1'")
    if request.param == "expired":
        return Wrong(*ours.issue("expired", "IP:127.0.0.1", is_expired=True), ours, "certificate has expired")
    return Wrong(*ours.issue("server", "IP:127.0.0.1"), other, "unable to get local issuer certificate")


def gateway(forks: Forks, log_path: Path, url: str) -> tuple[int | None, str]:
    """The exit status of a gateway with this AMQP_URL, and what it says outside its log."""
    process = forks.run(["gateways", "users", "--port", "0"], log_path, {"AMQP_URL": url, "USERS_DATABASE_URL": AWAY})
    try:
        assert process.wait(60), process.log_tail(30)
    finally:
        process.kill()
    return process.exit_status, "\n".join(line for line in process.log_tail(50).splitlines() if line[:1] != "{")


def test_a_broker_s_wrong_certificate_ends_the_process_with_words(wrong: Wrong, forks: Forks, tmp_path: Path) -> None:
    with closing(wrong.server()) as server:
        url = f"amqps://guest:hunter2@127.0.0.1:{server.port}/%2F?cacertfile={wrong.authority.certificate}"
        status, said = gateway(forks, tmp_path / "log", url)
    assert status == 2
    assert len(said.splitlines()) == 1
    named = ("AMQP_URL", "no TLS connection", f":{server.port}", wrong.words)
    assert [each for each in named if each not in said] == []
    assert "hunter2" not in said
    # One for commands, one for outcomes: it does not try again.
    assert server.connections <= 2


def test_a_wrong_certificate_of_postgresql_is_refused_by_lane_and_gateways(wrong: Wrong) -> None:
    # libpq gives no reason but for the host.
    words = "does not match host name" if "not valid for" in wrong.words else "certificate verify failed"
    with closing(wrong.server(begins_plainly=True)) as server:
        options = {"sslmode": "verify-full", "sslrootcert": wrong.authority.certificate}
        url = url_of("postgresql", f"127.0.0.1:{server.port}", "u", "hunter2", "ledger", options)
        with pytest.raises(DatabaseUnavailable, match=words):
            read(url)
        with closing(open_store(url, LEDGER)) as store, pytest.raises(StoreUnavailable, match=words):
            store.check(LEDGER.models)


def test_a_wrong_certificate_of_mongodb_is_refused(wrong: Wrong) -> None:
    with closing(wrong.server()) as server:
        options = {"tls": "true", "tlsCAFile": wrong.authority.certificate}
        url = url_of("mongodb", f"127.0.0.1:{server.port}", "u", "hunter2", "ledger", options)
        with closing(open_store(url, LEDGER)) as store, pytest.raises(StoreUnavailable, match=wrong.words):
            store.check(LEDGER.models)


def test_a_wrong_certificate_of_redis_is_refused_by_lane_and_gateways(wrong: Wrong) -> None:
    with closing(wrong.server()) as server:
        url = f"rediss://u:hunter2@127.0.0.1:{server.port}/0?ssl_ca_certs={wrong.authority.certificate}"
        settings = CacheSettings(url=url, timeout_s=2.0)
        for ask in lane_and_gateway(settings):
            with pytest.raises(CacheUnavailable, match=wrong.words):
                ask()


def lane_and_gateway(settings: CacheSettings) -> list[Callable[[], object]]:
    """What runs a script, as each of them does."""

    def lane() -> object:
        with closing(RedisScripts(settings)) as scripts:
            return scripts.run("return 1", [], [])

    async def asked() -> object:
        scripts = AsyncRedisScripts(settings)
        try:
            return await scripts.run("return 1", [], [])
        finally:
            await scripts.close()

    return [lane, lambda: asyncio.run(asked())]


class TlsRabbitMQ(RabbitMQ):
    """It also listens with TLS, and only to clients with a certificate of the authority."""

    def __init__(self, directory: Path, authority: Authority) -> None:
        super().__init__(directory)
        self._authority = authority
        self.tls_port = free_port()

    def write_configuration(self) -> None:
        super().write_configuration()
        certificate, key = self._authority.issue("broker", "IP:127.0.0.1")
        with (self.directory / "rabbitmq.conf").open("a") as file:
            file.write(
                f"listeners.ssl.local = 127.0.0.1:{self.tls_port}\n"
                f"ssl_options.cacertfile = {self._authority.certificate}\n"
                f"ssl_options.certfile = {certificate}\n"
                f"ssl_options.keyfile = {key}\n"
                "ssl_options.verify = verify_peer\n"
                "ssl_options.fail_if_no_peer_cert = true\n"
            )


@pytest.fixture(scope="module")
def tls_broker(authorities: tuple[Authority, Authority]) -> Iterator[TlsRabbitMQ]:
    directory = authorities[0].certificate.parent / "broker"
    directory.mkdir()
    broker = TlsRabbitMQ(directory, authorities[0])
    broker.start()
    yield broker
    broker.stop()


def amqps(broker: TlsRabbitMQ, authority: Authority, own: tuple[Path, Path] | None) -> str:
    ours = "" if own is None else f"&certfile={own[0]}&keyfile={own[1]}"
    return (
        f"amqps://administrator:administrator@127.0.0.1:{broker.tls_port}/%2F?cacertfile={authority.certificate}{ours}"
    )


def test_a_broker_takes_a_certificate_of_ours(
    tls_broker: TlsRabbitMQ, authorities: tuple[Authority, Authority]
) -> None:
    ours, _ = authorities
    url = amqps(tls_broker, ours, ours.issue("client", "DNS:client"))
    with closing(pika.BlockingConnection(broker_parameters(BrokerSettings(url=url), "test"))) as connection:
        assert connection.is_open


@pytest.mark.parametrize(
    ("shown", "why"),
    [
        ("none", "certificate required"),
        ("expired", "certificate expired"),
        ("of an unknown authority", "unknown ca"),
    ],
)
def test_a_broker_that_refuses_a_certificate_of_ours_ends_the_process(
    tls_broker: TlsRabbitMQ,
    authorities: tuple[Authority, Authority],
    forks: Forks,
    tmp_path: Path,
    shown: str,
    why: str,
) -> None:
    ours, other = authorities
    own = {
        "none": None,
        "expired": ours.issue("old", "DNS:old", is_expired=True),
        "of an unknown authority": other.issue("client", "DNS:client"),
    }[shown]
    status, said = gateway(forks, tmp_path / "log", amqps(tls_broker, ours, own))
    assert status == 2
    assert len(said.splitlines()) == 1
    named = ("AMQP_URL", f":{tls_broker.tls_port}", "'certfile'", why)
    assert [each for each in named if each not in said] == []


def test_all_take_postgresql_s_certificate_where_it_names_the_host(authorities: tuple[Authority, Authority]) -> None:
    ours, _ = authorities
    certificate, key = ours.issue("postgresql", "IP:127.0.0.1")
    directory = ours.certificate.parent / "postgresql"
    directory.mkdir()
    server = PostgreSQL(directory, ["ledger"])
    # It takes a key only that nobody else can read.
    key.chmod(0o600)
    if os.geteuid() == 0:
        chown(key, server.account_name)
    files = {"ssl": "on", "ssl_cert_file": certificate, "ssl_key_file": key, "ssl_min_protocol_version": "TLSv1.2"}
    server.options = tuple(part for name, value in files.items() for part in ("-c", f"{name}={value}"))
    server.start()
    try:
        options = {"sslmode": "verify-full", "sslrootcert": ours.certificate}

        def urls(host: str) -> list[str]:
            roles = (("coordinator", "coordinator"), ("lane", "lane"), ("reader", "reader"))
            return [url_of("postgresql", f"{host}:{server.port}", *role, "ledger", options) for role in roles]

        for ask in everybody(*urls("127.0.0.1")):
            ask()
        all_refuse(everybody(*urls("localhost")), "does not match host name")
    finally:
        server.stop()


class TlsRedis(Redis):
    """It also listens with TLS, and only to clients with a certificate of the authority."""

    def __init__(self, directory: Path, authority: Authority) -> None:
        super().__init__(directory)
        self._authority = authority
        self.tls_port = free_port()

    def _prepare(self) -> None:
        super()._prepare()
        certificate, key = self._authority.issue("redis", "IP:127.0.0.1")
        with self._acl.open("a") as file:
            file.write(
                f"tls-port {self.tls_port}\ntls-cert-file {certificate}\ntls-key-file {key}\n"
                f"tls-ca-cert-file {self._authority.certificate}\ntls-auth-clients yes\n"
            )


def test_lane_and_gateways_show_redis_a_certificate(authorities: tuple[Authority, Authority]) -> None:
    ours, other = authorities
    directory = ours.certificate.parent / "redis"
    directory.mkdir()
    server = TlsRedis(directory, ours)
    server.start()
    try:
        url = f"rediss://coordinator:coordinator@127.0.0.1:{server.tls_port}/0?ssl_ca_certs={ours.certificate}"

        def showing(own: tuple[Path, Path]) -> CacheSettings:
            return CacheSettings(url=f"{url}&ssl_certfile={own[0]}&ssl_keyfile={own[1]}", timeout_s=2.0)

        for ask in lane_and_gateway(showing(ours.issue("client", "DNS:client"))):
            assert ask() == 1
        strangers = showing(other.issue("client", "DNS:client"))
        # What Redis says of it may be lost: it closes the connection while we send the first command.
        for settings in (CacheSettings(url=url, timeout_s=2.0), strangers):
            for ask in lane_and_gateway(settings):
                with pytest.raises(CacheUnavailable, match="ConnectionError"):
                    ask()
    finally:
        server.stop()
