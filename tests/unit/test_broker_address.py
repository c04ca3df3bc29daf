"""The broker's address, by which of the two names it is given, and what it may be."""

import pytest

from coordinator.runtime.loading import load
from coordinator.runtime.settings import BrokerSettings
from coordinator.service.errors import ConfigurationError
from coordinator.transports.open import open_transport
from coordinator.transports.rabbitmq.driver_arguments import broker_parameters
from coordinator.transports.rabbitmq.transport import RabbitTransport
from coordinator.transports.redis.driver_arguments import redis_address
from coordinator.transports.redis.transport import RedisTransport


@pytest.fixture(autouse=True)
def _not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AMQP_URL", "BROKER_URL", "AMQP_URL_FILE", "BROKER_URL_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", ["AMQP_URL", "BROKER_URL"])
@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("amqps://a:b@h", RabbitTransport),
        ("redis://:secret@h:1/3", RedisTransport),
        ("rediss://a:b@h?ssl_cert_reqs=none", RedisTransport),
        ("redis+sentinel://a:b@one,two:7,three/main", RedisTransport),
    ],
)
def test_its_scheme_says_which_broker_it_is(monkeypatch: pytest.MonkeyPatch, name: str, url: str, kind: type) -> None:
    monkeypatch.setenv(name, url)
    assert type(open_transport(load(BrokerSettings))) is kind


def test_both_names_are_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMQP_URL", "amqp://h")
    monkeypatch.setenv("BROKER_URL", "redis://h")
    with pytest.raises(ConfigurationError, match=r"^BROKER_URL and AMQP_URL are both set: set one of them$"):
        load(BrokerSettings)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://h", "BROKER_URL: it must begin with amqp://, amqps://, redis://, rediss:// or redis"),
        ("redis://one,two/0", "BROKER_URL: it must have one host"),
        ("redis://user@h", "BROKER_URL: it must have a user and a password"),
        (f"amqp://o:o@h/{'v' * 256}", "BROKER_URL: its user and its vhost must each have at most 255 bytes"),
        (f"amqp://{'%C3%BC' * 128}:o@h/v", "BROKER_URL: its user and its vhost must each have at most 255 bytes"),
    ],
)
def test_an_error_names_the_variable_that_has_it(monkeypatch: pytest.MonkeyPatch, url: str, says: str) -> None:
    monkeypatch.setenv("BROKER_URL", url)
    with pytest.raises(ConfigurationError, match=f"^{says}"):
        load(BrokerSettings)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://h/none", "number of a database"),
        ("redis://h/9999999999", "number of a database"),
        ("redis://h?db=1", "'db' is one that the coordinator sets itself"),
        ("redis://h?ssl_cert_reqs=none", "'ssl_cert_reqs' is not supported"),
        ("redis://h?allow_unsynced=perhaps", "'allow_unsynced' must be one of true, false"),
        ("redis+sentinel://h", "the name of the master"),
        ("rediss://h?ssl_ca_certs=/nowhere", "names a file that cannot be read"),
    ],
)
def test_what_redis_cannot_take_is_refused_by_name(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^BROKER_URL: .*{says}"):
        redis_address(BrokerSettings(url=url))


@pytest.mark.parametrize("name", ["AMQP_URL", "BROKER_URL", "broker_url"])
@pytest.mark.parametrize("url", ["redis://h/none", "amqp://o:o@h/v?nosuch=1"])
def test_what_a_driver_cannot_take_has_the_name_of_the_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, url: str
) -> None:
    monkeypatch.setenv(name, url)
    settings = load(BrokerSettings)
    with pytest.raises(ConfigurationError, match=f"^{name.upper()}: "):
        _ = broker_parameters(settings, "name") if settings.is_rabbitmq else redis_address(settings)


def test_a_name_of_rabbitmq_may_have_255_bytes() -> None:
    assert BrokerSettings(url=f"amqp://{'u' * 255}:o@h/{'v' * 255}").is_rabbitmq


def test_sentinels_and_their_master() -> None:
    address = redis_address(
        BrokerSettings(url="redis+sentinel://a:b@one,two:7/main?allow_unsynced=true&sentinel_password=c")
    )
    assert [str(host) for host in address.hosts] == ["one:26379", "two:7"]
    assert (address.master, address.arguments, address.allows_unsynced) == (
        *("main", {"username": "a", "password": "b"}),
        True,
    )
    assert address.sentinel_arguments == {"username": None, "password": "c"}
