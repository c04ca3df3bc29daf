"""Gateways in this process, over lanes in memory, each at a port: for tests that send them whatever there is."""

import asyncio
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast

import pytest
from aiohttp import web

import gateways.items
from coordinator.access.authenticator import NotAuthentic
from coordinator.client.command_log import Asked, Passed
from coordinator.client.database import close_database, open_database
from coordinator.client.idempotency_secrets import LaneSecrets
from coordinator.http import app as http_app
from coordinator.http.app import Gateway, create_app
from coordinator.http.operations import CHECKS, Check
from coordinator.http.server import create_runner
from coordinator.http.service_gateway import REPOSITORIES, gateway_of
from coordinator.protocol.fingerprints import UNKEYED, Fingerprints
from coordinator.registry import registry
from coordinator.runtime.settings import GatewaySettings
from coordinator.service.paging import Page, page_of
from coordinator.service.principal import Principal
from coordinator.service.rows import key_of
from coordinator.service.saga_timeline import SagaStep
from coordinator.service.service import Service
from coordinator.stores.lane_tables import IdempotencySecret, LogEntry
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from coordinator.writing import InProcessWrites
from gateways.items import ITEMS
from gateways.payments import PAYMENTS
from gateways.purchases import PURCHASES
from gateways.shown_users import USERS
from shared.items.model import Item
from shared.payments.model import Payment, Refund
from shared.users.model import User
from shared.users.purchases.model import Purchase, PurchaseTotal
from tests.support.callers import SCOPES
from tests.support.passed_entries import passed
from tests.support.seats import seats

# Nothing listens on port 9; connections are made at first use, and none is made here.
NOWHERE = {"items": "mongodb://127.0.0.1:9/items", "payments": "mysql://nobody@127.0.0.1:9/payments"}
ELSEWHERE = "postgresql://nobody@127.0.0.1:9/users"


NOBODY: Final = "nobody"


class Everybody:
    """Implements `Authenticator`: any credential but NOBODY is that of somebody with all scopes."""

    knows_anybody = True

    def known(self, _authorization: str, /) -> Principal | None:
        return None

    async def principal_of(self, credential: str) -> Principal:
        if credential == NOBODY:
            raise NotAuthentic("it is nobody's")
        return Principal(subject=credential[:20], scopes=frozenset(SCOPES))

    async def problem(self) -> str | None:
        return None

    async def start(self) -> None: ...

    async def close(self) -> None: ...


class MemoryRows:
    """The rows of a model, as a repository of the reference system or a made gateway has them."""

    def __init__(self, database: MemoryDatabase, model: type[Any]) -> None:
        self._database = database
        self._model = model

    @property
    def rows(self) -> list[Any]:
        return sorted(self._database.tables[self._model].values(), key=key_of)

    async def get(self, key: Any) -> Any:
        return next((row for row in self.rows if key_of(row) == key), None)

    latest = get

    async def page(self, *arguments: Any) -> Page[Any]:
        """Of `(after, limit)`, with an owner before or conditions behind them."""
        wheres = [each for each in arguments if isinstance(each, Mapping)]
        *owner, after, limit = [each for each in arguments if not isinstance(each, Mapping)]
        found = [row for row in self.rows if after is None or key_of(row) > after]
        if owner and owner[0] is not None:
            found = [row for row in found if row.user_id == owner[0]]
        return page_of([row for row in found if _has(row, *wheres)], limit)


def _has(row: Any, *wheres: Mapping[str, Any]) -> bool:
    return all(getattr(row, name) == value for where in wheres for name, value in where.items())


class MemoryPayments(MemoryRows):
    async def get_refund(self, payment_id: int, refund_id: int) -> Any:
        rows = MemoryRows(self._database, Refund).rows
        return next((row for row in rows if (row.payment_id, row.id) == (payment_id, refund_id)), None)

    async def known_as(self, provider_id: str) -> Any:
        return next((row for row in self.rows if row.provider_id == provider_id), None)

    async def page_of_refunds(self, payment_id: int, after: int, limit: int) -> Page[Any]:
        rows = [row for row in MemoryRows(self._database, Refund).rows if row.payment_id == payment_id]
        return page_of([row for row in rows if row.id > after], limit)


class MemoryPurchases(MemoryRows):
    async def with_ids(self, ids: Sequence[int]) -> list[Any]:
        return [row for row in self.rows if row.id in ids]

    async def steps(self, purchase_id: int) -> list[Any]:
        return [row for row in MemoryRows(self._database, SagaStep).rows if row.saga_id == purchase_id]

    async def totals(self, user_id: int) -> list[Any]:
        return [row for row in MemoryRows(self._database, PurchaseTotal).rows if row.user_id == user_id]


class MemoryLog:
    """Implements `CommandLog`."""

    def __init__(self, database: MemoryDatabase) -> None:
        self._entries = database.tables[LogEntry]

    async def find(self, command_id: str) -> LogEntry | None:
        return next((each for each in list(self._entries.values()) if each.command_id == command_id), None)

    async def find_all(self, command_ids: Collection[str]) -> dict[str, LogEntry]:
        entries = [(each, await self.find(each)) for each in command_ids]
        return {each: entry for each, entry in entries if entry is not None}

    async def who_asked(self, command_ids: Collection[str]) -> dict[str, Asked]:
        found = [entry for each in command_ids if (entry := await self.find(each)) is not None]
        return {
            each.command_id: Asked(
                command_id=each.command_id, settled_at=each.settled_at, actor=each.actor, status=each.status
            )
            for each in found
        }

    async def fingerprints(self) -> Fingerprints:
        return UNKEYED

    async def passages(self, first: int, last: int) -> list[Passed]:
        return passed(self._entries.values(), first, last)


@contextmanager
def contract_system(
    directory: Path, settings: GatewaySettings, watch: Callable[[str, web.Application], None] = lambda *_: None
) -> Iterator[dict[str, str]]:
    """The addresses of all gateways, by name, while they serve. `watch` gets each application before it serves."""
    began, addresses = threading.Event(), dict[str, str]()
    failed: list[BaseException] = []
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async with AsyncExitStack() as stack:
            addresses.update(await _serve(stack, directory, settings, watch))
            began.set()
            await stop.wait()

    def run() -> None:
        try:
            loop.run_until_complete(serve())
        except BaseException as error:
            failed.append(error)
            raise
        finally:
            began.set()
            loop.close()

    thread = threading.Thread(target=run, name="gateways")
    thread.start()
    began.wait()
    try:
        assert not failed, failed
        yield addresses
    finally:
        if not failed:
            loop.call_soon_threadsafe(stop.set)
        thread.join()


async def _serve(
    stack: AsyncExitStack,
    directory: Path,
    settings: GatewaySettings,
    watch: Callable[[str, web.Application], None],
) -> dict[str, str]:
    services = [*(service.replace(effects=None) for service in registry().services), seats]
    databases = {service.name: MemoryDatabase() for service in services}
    writes = await stack.enter_async_context(
        InProcessWrites(
            {name: MemoryStore(database) for name, database in databases.items()},
            services,
            targets=registry().targets(seats),
            directory=directory,
        )
    )
    addresses = {}
    for name, database in databases.items():
        gateway = gateway_of(seats) if name == seats.name else registry().gateway(name)
        app = await _application(stack, gateway, writes, services, database, settings)
        watch(name, app)
        runner = create_runner(app)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        addresses[name] = f"http://127.0.0.1:{site.port}"
    return addresses


async def _application(
    stack: AsyncExitStack,
    gateway: Gateway,
    writes: InProcessWrites,
    services: Sequence[Service],
    rows: MemoryDatabase,
    settings: GatewaySettings,
) -> web.Application:
    database = open_database(NOWHERE.get(gateway.name, ELSEWHERE))
    stack.push_async_callback(close_database, database)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gateways.items, "open_cache", _NoCache)
        patch.setattr(http_app, "read_idempotency_secrets", _secrets)
        app = create_app(
            gateway,
            transport=writes,
            database=database,
            command_log=MemoryLog(rows),
            settings=settings,
            authenticator=Everybody(),
            services=services,
        )
    _replace_reads(app, gateway.name, rows)
    app[CHECKS][1] = Check("database", _no_problem)
    return app


async def _secrets(_database: Any) -> LaneSecrets:
    return LaneSecrets([IdempotencySecret(id=1, secret="ab" * 32, made_at=datetime(2026, 1, 1, tzinfo=UTC))])


async def _no_problem() -> str | None:
    return None


class _NoCache:
    def __init__(self, *_: object) -> None: ...

    async def get(self, _key: int) -> None:
        return None

    async def problem(self) -> str | None:
        return None

    async def close(self) -> None: ...


def _replace_reads(app: web.Application, name: str, rows: MemoryDatabase) -> None:
    match name:
        case "users":
            app[USERS]._users = cast(Any, MemoryRows(rows, User))
            app[PURCHASES]._purchases = cast(Any, MemoryPurchases(rows, Purchase))
        case "items":
            app[ITEMS]._items = cast(Any, MemoryRows(rows, Item))
        case "payments":
            app[PAYMENTS]._payments = cast(Any, MemoryPayments(rows, Payment))
        case _:
            app[REPOSITORIES] = {model: MemoryRows(rows, model) for model in seats.public_models}
