"""The gateway of a tenant: the paths are the service's, and the lane, the database and the callers are the tenant's."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from coordinator.access.authenticator import NotAuthentic
from coordinator.access.settings import AccessSettings
from coordinator.access.tokens import Tokens
from coordinator.client.database import close_database, open_database
from coordinator.http.app import create_app, create_joint_app
from coordinator.migrations.migrate import migrate
from coordinator.reading import open_command_log
from coordinator.registry import Registry
from coordinator.runtime.settings import DatabaseSettings, GatewaySettings
from coordinator.service.errors import ConfigurationError
from coordinator.stores.open import open_store
from coordinator.worker.inprocess import InProcessWrites
from tests.support.halls import APP

Client = TestClient[Any, Any]
KNOWN = Registry(APP)


@pytest.fixture
async def clients(tmp_path: Path) -> AsyncIterator[dict[str, Client]]:
    """Of all gateways, with their lanes in the same process."""
    urls = {lane: f"sqlite:///{tmp_path}/{lane}.sqlite" for lane in KNOWN.names}
    for service in KNOWN.services:
        migrate(service, DatabaseSettings(database_url=urls[service.lane]))
    stores = {service.lane: open_store(urls[service.lane], service) for service in KNOWN.services}
    async with AsyncExitStack() as stack:
        writes = await stack.enter_async_context(InProcessWrites(stores, KNOWN.services))
        found = {}
        for service in KNOWN.services:
            database = open_database(urls[service.lane], 2)
            stack.push_async_callback(close_database, database)
            app = create_app(
                KNOWN.gateway(service.lane),
                transport=writes,
                database=database,
                command_log=open_command_log(database),
                settings=GatewaySettings(),
                services=[service],
            )
            found[service.lane] = await stack.enter_async_context(TestClient(TestServer(app)))
        yield found


async def test_a_request_is_for_the_tenant_of_the_gateway(clients: dict[str, Client]) -> None:
    key = {"Idempotency-Key": "one"}
    for lane, name in (("halls-acme", "ada"), ("halls-bolt", "bob"), ("halls-acme", "ada")):
        answer = await clients[lane].post("/halls/commands/let_in", json={"name": name}, headers=key)
        assert answer.status == 200, await answer.text()
        assert answer.headers["Read-After"] == f"{lane}=1"
        told = await clients[lane].get(answer.headers["Location"])
        assert (await told.json())["status"] == "applied"
    for lane, name in (("halls-acme", "ada"), ("halls-bolt", "bob")):
        read = {"Read-After": f"{lane}=1"}
        page = await (await clients[lane].get("/halls/guests", headers=read)).json()
        assert [row["name"] for row in page["items"]] == [name]


async def test_so_are_several_commands_at_once(clients: dict[str, Client]) -> None:
    commands = [{"type": "halls.let_in", "args": {"name": name}} for name in ("ada", "eve")]
    answer = await clients["halls-bolt"].post("/commands", json=commands, headers={"Idempotency-Key": "two"})
    assert answer.status == 200, await answer.text()
    assert answer.headers["Read-After"] == "halls-bolt=2"
    page = await (await clients["halls-acme"].get("/halls/guests")).json()
    assert page["items"] == []


def test_one_application_serves_one_tenant() -> None:
    served: Any = [_Served("posters"), _Served("halls-acme"), _Served("halls-bolt")]
    with pytest.raises(ConfigurationError, match="halls-acme and halls-bolt are of two tenants"):
        create_joint_app("all", served, transport=None, settings=GatewaySettings())  # type: ignore[arg-type]


class _Served:
    def __init__(self, lane: str) -> None:
        self.gateway = KNOWN.gateway(lane)


@pytest.mark.parametrize("tenant", [None, "bolt", "acme"])
def test_a_token_counts_at_the_gateway_of_its_own_tenant_alone(tenant: str | None) -> None:
    settings = AccessSettings(
        methods="tokens", token_issuer="https://issuer.example", token_audience="halls", token_keys="/nowhere.json"
    )
    tokens, claims = Tokens(settings, "acme"), {"sub": "ada"} | ({} if tenant is None else {"tenant": tenant})
    if tenant == "acme":
        assert tokens._principal(claims).tenant == "acme"
    else:
        with pytest.raises(NotAuthentic, match="of no principal of this tenant"):
            tokens._principal(claims)
    assert Tokens(settings)._principal(claims).tenant == tenant
