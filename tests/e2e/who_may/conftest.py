"""One running system for all acts."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from coordinator.dev.servers.server_set import ServerSet
from tests.e2e.test_permissions import LINES, ROLES
from tests.support.databases import FreshDatabases
from tests.support.forks import Forks
from tests.support.rabbitmqctl import delete_users, set_users
from tests.support.servers import Environment
from tests.support.system import System


@pytest.fixture(scope="package")
def accounts(native_servers: ServerSet) -> Iterator[dict[str, str]]:
    """The broker's address by role; a stranger's has a password that is none."""
    broker = native_servers.rabbitmq
    set_users(broker, {role: (configure, write, read) for role, configure, write, read in LINES})
    address = urlsplit(broker.url)
    made = {
        role: address._replace(netloc=f"{role}:{role}@{address.hostname}:{address.port}").geturl()
        for role in (*ROLES, "stranger")
    }
    yield made | {"administrator": broker.url}
    delete_users(broker, ROLES)


@pytest.fixture(scope="package")
def running(
    server_environment: Environment,
    administrators: Environment,
    accounts: dict[str, str],
    forks: Forks,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[System]:
    """Lanes and gateways of users and payments, each with its own account."""
    made = FreshDatabases(server_environment, administrators)
    system = System(*made.environments(), tmp_path_factory.mktemp("who_may"), forks)
    try:
        system.prepare("users", "payments", "items")
        gateways = {"LANE_GATEWAY_ACCOUNTS": "gateway webhooks"}
        for lane in ("users", "payments"):
            system.start_coordinator(lane, AMQP_URL=accounts["lane"], **gateways)
        yield system
        system.stop()
    finally:
        made.drop()
