"""One running system for all acts."""

from collections.abc import Iterator
from typing import Final

import pytest

from tests.support.accounts import as_account
from tests.support.databases import FreshDatabases
from tests.support.forks import Forks
from tests.support.issuer import AUDIENCE, ISSUER, SigningKey, key_set
from tests.support.servers import Environment
from tests.support.system import System

LANES: Final = ("users", "items", "payments")
ACCOUNTS: Final = {
    "outside": "partner",
    "ingress": "ingress",
    "public": "public",
    "gateway": "users_gateway",
    "webhooks": "payments_gateway",
    "lane": "notes_lane",
    "another lane": "users_lane",
    "effects": "payments_effects",
    "operator": "operator",
}
"""RabbitMQ's, by role."""
ISSUER_KEY: Final = SigningKey("one")
TOKENS: Final = {
    "ACCESS_METHODS": "keys tokens",
    "ACCESS_TOKEN_ISSUER": ISSUER,
    "ACCESS_TOKEN_AUDIENCE": AUDIENCE,
}
"""The settings of gateways that also take the issuer's tokens, beside those that say where its keys are."""


@pytest.fixture(scope="package")
def accounts(server_environment: Environment, administrators: Environment) -> dict[str, str]:
    """The broker's address by role; a stranger's account does not exist."""
    url = server_environment["AMQP_URL"]
    known = {role: as_account(url, account) for role, account in ACCOUNTS.items()}
    return known | {"stranger": as_account(url, "stranger"), "administrator": administrators["AMQP_URL"]}


@pytest.fixture(scope="package")
def running(
    server_environment: Environment, administrators: Environment, forks: Forks, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[System]:
    """Every lane and every gateway of the reference system, each with its own accounts."""
    made = FreshDatabases(server_environment, administrators)
    directory = tmp_path_factory.mktemp("who_may")
    system = System(*made.environments(), directory, forks)
    (directory / "issuer.json").write_bytes(key_set(ISSUER_KEY))
    system.environment["ACCESS_TOKEN_KEYS"] = str(directory / "issuer.json")
    try:
        system.prepare(*LANES)
        system.start_sandbox()
        believed = " ".join((*(f"{lane}_gateway" for lane in LANES), "ingress"))
        for lane in LANES:
            told = {"LANE_REPLY_QUEUES": "administrator=administrator.told"}
            system.launch_coordinator(lane, {"LANE_GATEWAY_ACCOUNTS": believed} | told)
        for lane in LANES:
            system.start_gateway(lane, **TOKENS)
        yield system
        system.stop()
    finally:
        made.drop()
