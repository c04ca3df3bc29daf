"""Certificates at the connections that we open: a wrong one is refused in words."""

import asyncio
import gc
import os
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from shutil import chown, copy, rmtree
from tempfile import mkdtemp
from typing import Final

import pika
import pytest
import stripe
from msgspec import Struct
from pydantic import SecretStr

from coordinator.cache.connections import AsyncRedisScripts, RedisScripts
from coordinator.cache.scripts import CacheUnavailable
from coordinator.client.database import NoTls, close_database, open_database, reading_problem
from coordinator.dev.servers.ports import free_port
from coordinator.dev.servers.postgresql import PostgreSQL
from coordinator.dev.servers.rabbitmq import RabbitMQ
from coordinator.dev.servers.redis import Redis
from coordinator.migrations.migrate import migrate
from coordinator.runtime.addresses import parse_address
from coordinator.runtime.cache_settings import CacheSettings
from coordinator.runtime.event_loop import new_event_loop
from coordinator.runtime.settings import BrokerSettings, DatabaseSettings
from coordinator.service.errors import CoordinatorError, DatabaseUnavailable
from coordinator.service.outside_calls import EffectRetry
from coordinator.stores.kinds import Database, kind_of
from coordinator.stores.open import open_store
from coordinator.stores.port import StoreError
from coordinator.transports.rabbitmq.driver_arguments import broker_parameters
from coordinator.transports.rabbitmq.topology import WRITES_EXCHANGE, queue_name
from shared.payments.settings import StripeSettings
from shared.payments.stripe_provider import StripeProvider
from tests.integration.test_addresses import all_refuse, everybody, url_of
from tests.support.authority import Authority
from tests.support.forks import Forks
from tests.support.ledger import LEDGER
from tests.support.system import wait_until
from tests.support.tls_stand_in import Begins, PlainStandIn, TlsStandIn

pytestmark = pytest.mark.doors

AWAY = "postgresql://nobody@127.0.0.1:9/users"


class Wrong(Struct, frozen=True):
    """A certificate and its key, the authority that the client trusts, and what OpenSSL says."""

    certificate: Path
    key: Path
    authority: Authority
    words: str

    def server(self, begins: Begins = "at once") -> TlsStandIn:
        return TlsStandIn(self.certificate, self.key, begins=begins)


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """aiomysql leaves the socket of a handshake that fails to the garbage: it would be another test's that finds it."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="module")
def authorities() -> Iterator[tuple[Authority, Authority]]:
    directory = Path(mkdtemp(prefix="write-coordinator-certificates-"))
    directory.chmod(0o755)
    (directory / "other").mkdir()
    yield Authority(directory), Authority(directory / "other")
    rmtree(directory, ignore_errors=True)


@pytest.fixture(params=["another host's", "expired", "not valid yet", "of an unknown authority"])
def wrong(request: pytest.FixtureRequest, authorities: tuple[Authority, Authority]) -> Wrong:
    ours, other = authorities
    if request.param == "another host's":
        return Wrong(*ours.issue("elsewhere", "DNS:elsewhere.example.org"), ours, "not valid for '127.0.0.1'")
    if request.param == "expired":
        return Wrong(*ours.issue("expired", "IP:127.0.0.1", is_expired=True), ours, "certificate has expired")
    if request.param == "not valid yet":
        return Wrong(*ours.issue("early", "IP:127.0.0.1", is_not_yet=True), ours, "certificate is not yet valid")
    return Wrong(*ours.issue("server", "IP:127.0.0.1"), other, "unable to get local issuer certificate")


def gateway(forks: Forks, log_path: Path, url: str) -> tuple[int | None, str]:
    """The exit status of a gateway with this AMQP_URL, and what it says outside its log."""
    return ended(forks, log_path, ["gateways", "users", "--port", "0"], AMQP_URL=url, USERS_DATABASE_URL=AWAY)


def ended(forks: Forks, log_path: Path, words: list[str], **environment: str) -> tuple[int | None, str]:
    """The exit status of a process with these settings, and what it says outside its log."""
    process = forks.run(words, log_path, environment)
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


APPLICATION: Final = {"COORDINATOR_APP": "gateways.app:APP"}
PROVIDER: Final = {"STRIPE_API_KEY": "sk_test_hunter3", "STRIPE_METADATA_KEY": "0123456789abcdef"}
INGRESS: Final = {"INGRESS_ACCOUNTS": "partner"} | APPLICATION


@pytest.mark.parametrize(
    ("words", "settings"),
    [(["effects", "payments"], PROVIDER | APPLICATION), (["ingress"], INGRESS)],
    ids=["effects", "ingress"],
)
def test_others_refuse_a_broker_s_wrong_certificate(
    wrong: Wrong, forks: Forks, tmp_path: Path, words: list[str], settings: dict[str, str]
) -> None:
    with closing(wrong.server()) as server:
        url = f"amqps://guest:hunter2@127.0.0.1:{server.port}/%2F?cacertfile={wrong.authority.certificate}"
        status, said = ended(forks, tmp_path / "log", ["coordinator", *words], AMQP_URL=url, **settings)
    named = ("AMQP_URL", "no TLS connection", f":{server.port}", wrong.words)
    assert [each for each in named if each not in said] == [], (status, said)
    assert status == 2
    assert "hunter" not in said


def test_the_provider_s_wrong_certificate_is_refused_before_anything_is_said(
    wrong: Wrong, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key is not sent, and the call has certainly not happened: the worker asks again later."""
    monkeypatch.setattr(stripe, "ca_bundle_path", str(wrong.authority.certificate))
    with closing(wrong.server()) as server:
        settings = StripeSettings(
            api_key=SecretStr("sk_test_hunter2"),
            metadata_key=SecretStr("0123456789abcdef"),
            api_base=f"https://127.0.0.1:{server.port}",
        )

        async def call() -> object:
            provider = StripeProvider(settings)
            try:
                return await provider.capture(payment_id=1, provider_id="pi_1", amount=5, currency="EUR", key="k")
            finally:
                await provider.close()

        with pytest.raises(EffectRetry) as refused:
            asyncio.run(call())
    said = str(refused.value)
    assert [each for each in ("Stripe cannot be reached", f":{server.port}", wrong.words) if each not in said] == []
    assert "hunter2" not in said
    assert not refused.value.may_have_happened
    assert not server.heard


DATABASES: Final[dict[str, tuple[Begins, str, dict[str, object]]]] = {
    "postgresql": ("postgresql", "sslrootcert", {"sslmode": "verify-full"}),
    "mysql": ("mysql", "ssl_ca", {"ssl_verify_identity": "true"}),
    "mongodb": ("at once", "tlsCAFile", {"tls": "true"}),
}
"""By scheme: how TLS begins, and the options for it."""


def url_to(scheme: str, port: int, authority: Path, options: Mapping[str, object] | None = None) -> str:
    _, name, checking = DATABASES[scheme]
    given: dict[str, object] = {**checking, name: authority, **(options or {})}
    return url_of(scheme, f"127.0.0.1:{port}", "u", "hunter2", "ledger", given)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """MongoDB's driver tries again until its time is up."""
    monkeypatch.setattr("coordinator.stores.mongodb.client.CONNECT_TIMEOUT_MS", 500)
    monkeypatch.setattr("coordinator.stores.mongodb.collections._CONNECT_TIMEOUT_MS", 500)


def all_of(url: str) -> list[Callable[[], object]]:
    """What each process does first with its database: a migration, a lane, an operator's command, a gateway."""

    def migrated() -> None:
        migrate(LEDGER, DatabaseSettings(database_url=url, reader_url=url, migration_url=url))

    def checked() -> None:
        with closing(open_store(url, LEDGER)) as store:
            store.check(LEDGER.models)

    def told() -> None:
        address = parse_address(url)
        with closing(kind_of(address).open_admin(address, "ledger")) as admin:
            admin.state()

    async def looked() -> None:
        database = open_database(url, pool_max=2)
        try:
            await problem_of(database)
        finally:
            await close_database(database)

    def read() -> None:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(looked())

    def read_of_documents() -> None:
        with warnings.catch_warnings():
            # pymongo's monitor is cancelled in an attempt to connect, and leaves its socket to the collector.
            warnings.simplefilter("ignore", ResourceWarning)
            try:
                read()
            finally:
                gc.collect()

    return [migrated, checked, told, read_of_documents if url.startswith("mongodb") else read]


@pytest.mark.parametrize("scheme", DATABASES)
def test_a_database_s_wrong_certificate_is_refused_by_all(wrong: Wrong, scheme: str) -> None:
    """By a migration, a lane, an operator's commands and a gateway's reads."""
    words = wrong.words
    if scheme == "postgresql":
        # libpq gives no reason but for the host.
        words = "does not match host name" if "not valid for" in words else "certificate verify failed"
    with closing(wrong.server(DATABASES[scheme][0])) as server:
        # Of MongoDB a driver for threads, and one for a loop, have words of their own for a host.
        all_refuse(all_of(url_to(scheme, server.port, wrong.authority.certificate)), words, words.capitalize())


@pytest.mark.parametrize("scheme", DATABASES)
def test_nothing_is_sent_to_a_database_without_tls(authorities: tuple[Authority, Authority], scheme: str) -> None:
    with closing(PlainStandIn(DATABASES[scheme][0])) as server:
        asked = all_of(url_to(scheme, server.port, authorities[0].certificate))
        all_refuse(asked, "SSL", "TLS")
    for secret in (b"hunter2", b"ledger", b"mysql_native_password"):
        assert secret not in server.heard


@pytest.mark.parametrize("scheme", DATABASES)
@pytest.mark.parametrize("shown", ["none", "expired", "of an unknown authority"])
def test_a_database_that_refuses_a_certificate_of_ours_is_said_in_words(
    authorities: tuple[Authority, Authority], tmp_path: Path, scheme: str, shown: str
) -> None:
    ours, other = authorities
    own = {
        "none": None,
        "expired": ours.issue("old", "DNS:old", is_expired=True),
        "of an unknown authority": other.issue("client", "DNS:client"),
    }[shown]
    options: dict[str, object] = {}
    if own is not None and scheme == "mongodb":
        both = tmp_path / "both.pem"
        both.write_bytes(own[0].read_bytes() + own[1].read_bytes())
        options = {"tlsCertificateKeyFile": both}
    elif own is not None:
        names = ("sslcert", "sslkey") if scheme == "postgresql" else ("ssl_cert", "ssl_key")
        own[1].chmod(0o600)
        options = dict(zip(names, own, strict=True))
    server = TlsStandIn(*ours.issue("server", "IP:127.0.0.1"), begins=DATABASES[scheme][0], client_ca=ours.certificate)
    said = {"none": "certificate required", "expired": "certificate expired", "of an unknown authority": "unknown ca"}
    with closing(server):
        # What a server says of it comes after the handshake, and may be lost with the connection.
        ends = ("closed", "lost", "reset", "EOF", "eof")
        words = (said[shown], said[shown].upper().replace(" ", "_"), *ends)
        all_refuse(all_of(url_to(scheme, server.port, ours.certificate, options)), *words)


def refusals(asked: Callable[[], object]) -> Iterator[str]:
    """What one who is asked again and again says."""
    while True:
        with pytest.raises((CoordinatorError, StoreError)) as refused:
            asked()
        yield str(refused.value)


@pytest.mark.parametrize("scheme", DATABASES)
def test_a_running_lane_and_gateway_read_a_database_s_files_again(
    authorities: tuple[Authority, Authority], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """Their first connections trust an authority that did not issue the server's certificate."""
    # Long enough for another attempt: what it says is that of the last one.
    monkeypatch.setattr("coordinator.stores.mongodb.client.CONNECT_TIMEOUT_MS", 1500)
    ours, other = authorities
    trusted = tmp_path / "trusted.pem"
    unknown = ("unable to get local issuer", "certificate verify failed")
    server = TlsStandIn(*ours.issue("server", "IP:127.0.0.1"), begins=DATABASES[scheme][0])
    copy(other.certificate, trusted)
    url = url_to(scheme, server.port, trusted)
    with closing(server), closing(open_store(url, LEDGER)) as store, asyncio.Runner(loop_factory=new_event_loop) as run:
        database = run.run(opened(url))
        says = [refusals(lambda: store.check(LEDGER.models)), refusals(lambda: run.run(problem_of(database)))]
        # pymongo says what its last attempt met, which may be that of a connection before: it is asked once.
        for _ in range(1 if scheme == "mongodb" else 2):
            copy(other.certificate, trusted)
            assert all(any(each in next(said) for each in unknown) for said in says)
            copy(ours.certificate, trusted)
            # They are connected; that the server then says nothing is another matter.
            assert not any(any(each in next(said) for each in unknown) for said in says)
        run.run(close_database(database))


async def opened(url: str) -> Database:
    return open_database(url, pool_max=2)


async def problem_of(database: Database) -> None:
    try:
        problem = await reading_problem(database, "ledger", ("accounts",))
    except NoTls as error:
        problem = str(error)
    if problem is not None:
        raise DatabaseUnavailable(problem)


def test_a_running_lane_and_gateway_read_redis_s_files_again(
    authorities: tuple[Authority, Authority], tmp_path: Path
) -> None:
    ours, other = authorities
    trusted = tmp_path / "trusted.pem"
    copy(other.certificate, trusted)
    with (
        closing(TlsStandIn(*ours.issue("server", "IP:127.0.0.1"))) as server,
        asyncio.Runner(loop_factory=new_event_loop) as runner,
    ):
        settings = CacheSettings(url=f"rediss://u:p@127.0.0.1:{server.port}/0?ssl_ca_certs={trusted}", timeout_s=2.0)
        with closing(RedisScripts(settings)) as lane:
            gateway = AsyncRedisScripts(settings)

            def said(ask: Callable[[], object]) -> str:
                with pytest.raises(CacheUnavailable) as refused:
                    ask()
                return str(refused.value)

            for ask in (lambda: lane.run("return 1", [], []), lambda: runner.run(gateway.run("return 1", [], []))):
                copy(other.certificate, trusted)
                assert "unable to get local issuer" in said(ask)
                copy(ours.certificate, trusted)
                assert "unable to get local issuer" not in said(ask)
                copy(other.certificate, trusted)
                assert "unable to get local issuer" in said(ask)
            runner.run(gateway.close())


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


WITH_A_BROKER = pytest.mark.xdist_group("tls_broker")
"""One process of a run starts it."""


@pytest.fixture(scope="module")
def tls_broker(authorities: tuple[Authority, Authority]) -> Iterator[TlsRabbitMQ]:
    directory = authorities[0].certificate.parent / "broker"
    directory.mkdir()
    broker = TlsRabbitMQ(directory, authorities[0])
    broker.start()
    yield broker
    broker.kill()


def amqps(broker: TlsRabbitMQ, authority: Authority, own: tuple[Path, Path] | None) -> str:
    ours = "" if own is None else f"&certfile={own[0]}&keyfile={own[1]}"
    return (
        f"amqps://administrator:administrator@127.0.0.1:{broker.tls_port}/%2F?cacertfile={authority.certificate}{ours}"
    )


@WITH_A_BROKER
def test_a_broker_takes_a_certificate_of_ours(
    tls_broker: TlsRabbitMQ, authorities: tuple[Authority, Authority]
) -> None:
    ours, _ = authorities
    url = amqps(tls_broker, ours, ours.issue("client", "DNS:client"))
    with closing(pika.BlockingConnection(*broker_parameters(BrokerSettings(url=url), "test"))) as connection:
        assert connection.is_open


@WITH_A_BROKER
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
    url = amqps(tls_broker, ours, own)
    named = ("AMQP_URL", f":{tls_broker.tls_port}", "'certfile'", why)
    for status, said in (
        gateway(forks, tmp_path / "log", url),
        ended(forks, tmp_path / "log", ["coordinator", "ingress"], AMQP_URL=url, **INGRESS),
    ):
        assert status == 2
        assert len(said.splitlines()) == 1
        assert [each for each in named if each not in said] == []


@WITH_A_BROKER
def test_an_ingress_hands_on_over_tls(
    tls_broker: TlsRabbitMQ, authorities: tuple[Authority, Authority], forks: Forks, tmp_path: Path
) -> None:
    ours, _ = authorities
    url = amqps(tls_broker, ours, ours.issue("client", "DNS:client"))
    queue = queue_name("users")
    with closing(pika.BlockingConnection(*broker_parameters(BrokerSettings(url=url), "test"))) as connection:
        channel = connection.channel()
        channel.exchange_declare(WRITES_EXCHANGE, "direct", durable=True)
        channel.queue_declare(queue)
        channel.queue_bind(queue, WRITES_EXCHANGE, "users")
        ingress = forks.run(["coordinator", "ingress"], tmp_path / "log", INGRESS | {"AMQP_URL": url})
        try:
            wait_until(lambda: '"consuming"' in ingress.log_tail(5), "it consumes", ingress)
            channel.basic_publish("ingress.partner", "users", b"{}", pika.BasicProperties(type="users.none"))
            wait_until(lambda: channel.basic_get(queue, auto_ack=True)[2] == b"{}", "the lane's queue has it", ingress)
            ingress.stop(signal.SIGTERM, 20.0)
            assert ingress.exit_status == 0
        finally:
            ingress.kill()


@WITH_A_BROKER
def test_an_address_without_tls_of_a_broker_s_tls_port_ends_the_process(
    tls_broker: TlsRabbitMQ, forks: Forks, tmp_path: Path
) -> None:
    status, said = gateway(forks, tmp_path / "log", f"amqp://u:hunter2@127.0.0.1:{tls_broker.tls_port}/%2F")
    assert status == 2
    assert [each for each in ("AMQP_URL", "has TLS at this port", "amqps://") if each not in said] == []
    assert "hunter2" not in said


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
