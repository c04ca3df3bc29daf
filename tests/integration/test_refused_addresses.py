"""Addresses that no wait makes good: each is refused, where a server that is away is waited for."""

from contextlib import closing
from urllib.parse import quote, urlsplit, urlunsplit

import pytest

from coordinator.dev.servers.redis_broker import RedisBroker
from coordinator.registry import registry
from coordinator.runtime.settings import BrokerSettings
from coordinator.service.errors import ConfigurationError
from coordinator.stores.open import open_store
from coordinator.stores.port import NotAdmitted
from coordinator.transports.redis.connection import RedisConnection
from tests.support.databases import FreshDatabases

NAMES = ("nothing_here", "a" * 64, "a" * 300, "a%2Fb", "a.b", "a%24b", "%20a", "%C3%BC", "a%22b", "a%60b")
OPTIONS = (
    r"search_path=a\ b",
    "nosuch=1",
    "work_mem=much",
    "work_mem=-5",
    "timezone=nowhere",
    "shared_buffers=1",
    "server_version=1",
    "port=1",
    "role=nosuch",
    "default_transaction_read_only=maybe",
    "session_preload_libraries=nosuch",
)


def check(url: str, service: str) -> None:
    declared = registry().service(service)
    with closing(open_store(url, declared)) as store:
        store.check(declared.models)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("service", ["users", "payments"])
def test_a_name_that_no_database_has_is_refused(databases: FreshDatabases, service: str, name: str) -> None:
    url = urlunsplit(urlsplit(databases.new(f"{service.upper()}_DATABASE_URL"))._replace(path=f"/{name}"))
    with pytest.raises((NotAdmitted, ConfigurationError)):
        check(url, service)


@pytest.mark.parametrize("name", ["a" * 64, "a" * 300, "a%2Fb", "a.b", "a%24b", "%20a", "a%22b"])
def test_a_name_that_mongodb_takes_for_none_is_refused(databases: FreshDatabases, name: str) -> None:
    url = urlunsplit(urlsplit(databases.new("ITEMS_DATABASE_URL"))._replace(path=f"/{name}"))
    with pytest.raises((NotAdmitted, ConfigurationError)):
        check(url, "items")


@pytest.mark.parametrize("user", ["nobody", "a" * 64, "a" * 300, "%20a", "%C3%BC"])
@pytest.mark.parametrize("service", ["users", "payments", "items"])
def test_a_user_that_no_server_has_is_refused(databases: FreshDatabases, service: str, user: str) -> None:
    parts = urlsplit(databases.new(f"{service.upper()}_DATABASE_URL"))
    with pytest.raises((NotAdmitted, ConfigurationError)):
        check(urlunsplit(parts._replace(netloc=f"{user}:secret@{parts.hostname}:{parts.port}")), service)


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_that_postgresql_refuses_for_a_session_is_refused(databases: FreshDatabases, option: str) -> None:
    url = databases.new("USERS_DATABASE_URL")
    with pytest.raises((NotAdmitted, ConfigurationError)):
        check(f"{url}?options={quote(f'-c {option}', safe='')}", "users")


async def test_a_number_of_a_database_that_redis_has_not_is_refused(redis_broker: RedisBroker) -> None:
    url = urlunsplit(urlsplit(redis_broker.url)._replace(path="/99999"))
    with pytest.raises(ConfigurationError, match="has no database of this number"):
        await RedisConnection.open(BrokerSettings(url=url), "test")
