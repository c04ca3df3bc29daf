"""A gateway of each service on a free port of the loopback interface, over fakes."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web

import gateways.items
from coordinator.access.authenticator import Authenticator
from coordinator.client.database import close_database, open_database
from coordinator.http.app import Gateway, contract_of, create_app
from coordinator.http.operations import CHECKS, Check
from coordinator.http.server import create_runner
from coordinator.registry import registry
from coordinator.runtime.settings import GatewaySettings
from gateways.items import ITEMS
from gateways.payments import PAYMENTS
from gateways.shown_users import USERS
from tests.support.documented_answers import DocumentedAnswers
from tests.unit.gateways.gateway_fakes import ITEM, USER, FakeCache, FakeLog, FakePayments, FakeRows, FakeWrites

# Nothing listens on port 9; connections are made at first use, and no test here has one.
DATABASES = {
    "users": "postgresql://nobody@127.0.0.1:9/users",
    "items": "mongodb://127.0.0.1:9/items",
    "payments": "mysql://nobody@127.0.0.1:9/payments",
}


class RunningGateway:
    """A gateway that serves, a client of it, and the fakes behind it."""

    def __init__(self, writes: FakeWrites, log: FakeLog, rows: FakeRows, cache: FakeCache) -> None:
        self.writes = writes
        self.log = log
        self.rows = rows
        self.cache = cache
        self.database_is_up = True
        self.runner: web.AppRunner
        self.session: aiohttp.ClientSession
        self.port = 0

    @property
    def app(self) -> web.Application:
        assert self.runner.app is not None
        return self.runner.app

    @property
    def server(self) -> Any:
        """Ours: aiohttp does not say that its runner has it."""
        return self.runner.server

    async def call(self, method: str, path: str, **options: Any) -> tuple[aiohttp.ClientResponse, Any]:
        """The response, and its JSON where it has a body."""
        async with self.session.request(method, f"http://127.0.0.1:{self.port}{path}", **options) as response:
            body = await response.read()
            is_json = response.content_type.endswith("json")
            return response, await response.json(content_type=None) if body and is_json else body


Start = Callable[..., Awaitable[RunningGateway]]


@pytest.fixture
async def start(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    watched: list[DocumentedAnswers] = []
    async with AsyncExitStack() as stack:

        async def start_gateway(
            service: str | Gateway,
            settings: GatewaySettings | None = None,
            authenticator: Authenticator | None = None,
        ) -> RunningGateway:
            gateway = registry().gateway(service) if isinstance(service, str) else service
            running = RunningGateway(FakeWrites(), FakeLog(), FakeRows(), FakeCache())
            monkeypatch.setattr(gateways.items, "open_cache", lambda *_: running.cache)
            database = open_database(DATABASES.get(gateway.name, DATABASES["users"]))
            stack.push_async_callback(close_database, database)
            app = create_app(
                gateway,
                transport=cast(Any, running.writes),
                database=database,
                command_log=running.log,
                settings=settings or GatewaySettings(),
                authenticator=authenticator,
            )
            services = [*registry().services, *([] if gateway.service is None else [gateway.service])]
            contract = contract_of(
                gateway.name, [gateway], services, settings or GatewaySettings(), asks=authenticator is not None
            )
            watched.append(DocumentedAnswers(app, contract))
            replace_reads(app, gateway.name, running)
            running.runner = create_runner(app)
            await running.runner.setup()
            stack.push_async_callback(running.runner.cleanup)
            site = web.TCPSite(running.runner, "127.0.0.1", 0)
            await site.start()
            running.port = site.port
            running.session = await stack.enter_async_context(
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20))
            )
            return running

        yield start_gateway
    undocumented = {found for each in watched for found in each.undocumented}
    assert undocumented == set(), "answers that the OpenAPI document does not have"


def replace_reads(app: web.Application, service: str, running: RunningGateway) -> None:
    rows = running.rows
    if service == "users":
        rows.rows[USER.id] = USER
        app[USERS]._users = cast(Any, rows)
    elif service == "items":
        rows.rows[ITEM.id] = ITEM
        app[ITEMS]._items = cast(Any, rows)
    elif service == "payments":
        running.rows = FakePayments()
        app[PAYMENTS]._payments = cast(Any, running.rows)

    async def database_problem() -> str | None:
        return None if running.database_is_up else "the database does not answer"

    app[CHECKS][1] = Check("database", database_problem)


@pytest.fixture
async def users(start: Start) -> RunningGateway:
    return await start("users")


@pytest.fixture
async def items(start: Start) -> RunningGateway:
    return await start("items")


@pytest.fixture
async def payments(start: Start) -> RunningGateway:
    return await start("payments")
