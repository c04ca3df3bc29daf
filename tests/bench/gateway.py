"""`python -m tests.bench.gateway MODE LANE PORT`: the project's gateway, over the lane or over SELECT … FOR UPDATE.

All are the same aiohttp application with the same checks, middleware and responses; only what a write does differs.
MODE is `lane`, `for-update`, or `tokens`: over the lane, and for those only who have a token.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, ClassVar, Final, NoReturn, Self

import uvloop
from aiohttp import web
from psycopg_pool import AsyncConnectionPool

from coordinator.access.opening import open_authenticator
from coordinator.access.settings import AccessSettings
from coordinator.client.command_log import open_command_log
from coordinator.client.database import close_database, open_database
from coordinator.client.writes import WriteOptions, Writes, Written, execute
from coordinator.http.app import Dependencies, Gateway, create_app
from coordinator.http.requests import issue, path_id, read_command
from coordinator.http.responses import written_response
from coordinator.http.server import serve_until_stopped
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.log_lines import configure_logging
from coordinator.runtime.settings import BrokerSettings, GatewaySettings, ReaderSettings, TelemetrySettings, load
from coordinator.runtime.tracing import recording_spans
from coordinator.service.errors import CommandRejected
from coordinator.service.outcome import Outcome
from coordinator.transports.port import CommandTransport
from coordinator.transports.rabbitmq.writes import RabbitWrites
from tests.bench.service import Account, credit_command

POOL = 16
"""Connections of the gateway that writes by itself: more of them only wait for the same row."""

Credit = Callable[[Any, WriteOptions], Awaitable[Written[Account]]]
CREDIT: Final = web.AppKey[Credit]("CREDIT")


class NoWrites:
    """Stands where a gateway expects a transport, in one that does not use it."""

    connected: ClassVar[bool] = True
    problem: ClassVar[str | None] = None
    unready_reason: ClassVar[str] = ""
    account: ClassVar[str | None] = None

    def pending(self, command_id: str) -> bool:
        return False

    def settled_place(self, command_id: str) -> tuple[str, int] | None:
        return None

    async def waiting(self, lane: str) -> int | None:
        return None

    async def start(self) -> None: ...

    async def wait_connected(self, timeout_s: float) -> None: ...

    async def failed(self) -> NoReturn:
        await asyncio.Event().wait()
        raise NotImplementedError

    async def close(self) -> None: ...

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def issue(self, lane: str, message: CommandMessage, wait_s: float | None) -> Outcome:
        raise NotImplementedError


def for_update(pool: "AsyncConnectionPool[Any]") -> Credit:
    """Credits an account in a transaction of its own."""

    async def credit(command: Any, options: WriteOptions) -> Written[Account]:
        async with pool.connection() as connection:
            row = await (
                await connection.execute(
                    "SELECT balance, version FROM accounts WHERE id = %s FOR UPDATE", (command.id,)
                )
            ).fetchone()
            if row is None:
                raise CommandRejected(options.command_id or "", "account_not_found", "there is no such account")
            account = Account(id=command.id, balance=row[0] + command.amount, version=row[1] + 1)
            await connection.execute(
                "UPDATE accounts SET balance = %s, version = %s WHERE id = %s",
                (account.balance, account.version, account.id),
            )
        return Written(account, options.command_id or "", 0, replayed=False)

    return credit


def over(writes: Writes) -> Credit:
    """Has the lane credit an account."""

    async def credit(command: Any, options: WriteOptions) -> Written[Account]:
        return await execute(writes, command, Account, options)

    return credit


def gateway_of(lane: str, credit_by: Callable[[Writes], Credit]) -> Gateway:
    model = credit_command(lane)
    routes = web.RouteTableDef()

    @routes.post("/accounts/{id}/credit")
    async def credit_account(request: web.Request) -> web.Response:
        command = await read_command(request, model, {"id": path_id(request, "id", "account_not_found")})
        return written_response(await issue(request, request.app[CREDIT], command))

    def attach(app: web.Application, dependencies: Dependencies) -> None:
        # With what every gateway's writes pass through: the application's hooks, and who asks.
        app[CREDIT] = credit_by(dependencies.writes)

    return Gateway(name=lane, routes=routes, attach=attach)


async def serve(mode: str, lane: str, port: int) -> None:
    settings = load(GatewaySettings)
    url = load(ReaderSettings, prefix=f"{lane.upper()}_").url(lane)
    database = open_database(url, settings.read_pool_max)
    command_log = open_command_log(database)
    writes: CommandTransport
    credit_by: Callable[[Writes], Credit]
    authenticator = open_authenticator(load(AccessSettings), "127.0.0.1", database) if mode == "tokens" else None
    over_lane = mode in ("lane", "tokens")
    if over_lane:
        writes = RabbitWrites(
            load(BrokerSettings),
            confirm_timeout_s=settings.confirm_timeout_s,
            wait_s=settings.wait_s,
            in_flight_max=settings.in_flight_max,
            log=command_log,
        )
        credit_by = over
    else:
        writes = NoWrites()
        pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
            url, min_size=POOL, max_size=POOL, open=False, kwargs={"prepare_threshold": 0}
        )
        by_itself = for_update(pool)

        def credit_by(_: Writes) -> Credit:
            return by_itself

    async def connections(_: web.Application) -> AsyncIterator[None]:
        await (writes.start() if over_lane else pool.open(wait=True))
        yield
        await (writes.close() if over_lane else pool.close())
        await close_database(database)

    gateway = gateway_of(lane, credit_by)
    app = create_app(
        gateway,
        transport=writes,
        database=database,
        command_log=command_log,
        settings=settings,
        authenticator=authenticator,
    )
    app.cleanup_ctx.append(connections)
    await serve_until_stopped(app, "127.0.0.1", port, writes.failed)


def main(mode: str, lane: str, port: str) -> None:
    configure_logging(load(TelemetrySettings), f"gateway-{lane}")
    with recording_spans(f"gateway-{lane}"), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(mode, lane, int(port)))


if __name__ == "__main__":
    main(*sys.argv[1:4])
