"""Applications: what a gateway consists of, and the factory that puts one together.

Nothing here opens a connection.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec
from aiohttp import web
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.client.command_log import CommandLog, open_command_log
from coordinator.client.database import ping
from coordinator.client.hooks import HookedWrites, Hooks
from coordinator.client.writes import Writes
from coordinator.http.commands import COMMANDS, WRITES
from coordinator.http.commands import routes as command_routes
from coordinator.http.hooks import HOOKS, GatewayHooks
from coordinator.http.keys import SERVICE_NAME, SETTINGS
from coordinator.http.middleware import serve
from coordinator.http.operations import CHECKS, COMMAND_LOG, PENDING, Check
from coordinator.http.operations import routes as operation_routes
from coordinator.http.waiting import WAITING, Waiting
from coordinator.runtime.settings import GatewaySettings
from coordinator.service.commands import Command
from coordinator.service.errors import ConfigurationError
from coordinator.stores.kinds import Database
from coordinator.stores.mongodb.documents import Documents


class GatewayWrites(Writes, Protocol):
    """The port for writes, and what operations ask of it."""

    @property
    def connected(self) -> bool:
        """Whether a command could be handed over now."""

    def pending(self, command_id: str) -> bool | None:
        """Whether this process handed this command over and its outcome has not arrived; None: it does not know."""


class _Hooked(HookedWrites):
    """A gateway's writes with its hooks."""

    def __init__(self, writes: GatewayWrites, hooks: GatewayHooks) -> None:
        super().__init__(writes, hooks)
        self._inner = writes

    @property
    def connected(self) -> bool:
        return self._inner.connected

    def pending(self, command_id: str) -> bool | None:
        return self._inner.pending(command_id)


class Dependencies(Struct, frozen=True, kw_only=True):
    """What a gateway is given."""

    database: Database
    writes: GatewayWrites
    command_log: CommandLog
    settings: GatewaySettings

    def sql(self) -> AsyncEngine:
        """The database, where it is an SQL one. Raises ConfigurationError."""
        if not isinstance(self.database, AsyncEngine):
            raise ConfigurationError("this service needs an SQL database, not MongoDB: see its DATABASE_URL")
        return self.database

    def documents(self) -> Documents:
        """The database, where it is MongoDB. Raises ConfigurationError."""
        if isinstance(self.database, AsyncEngine):
            raise ConfigurationError("this service needs MongoDB, not an SQL database: see its DATABASE_URL")
        return self.database


class Gateway(Struct, frozen=True, kw_only=True):
    """One service's gateway.

    `attach` makes the service of the dependencies and puts it under the key that its routes use. `commands` are those
    that `POST /commands` takes; `open_log` opens what `GET /commands/…` reads.
    """

    name: str
    routes: Sequence[web.AbstractRouteDef]
    attach: Callable[[web.Application, Dependencies], None]
    commands: tuple[type[Command], ...] = ()
    open_log: Callable[[Database], CommandLog] = open_command_log
    is_system: bool = False


def create_app(gateway: Gateway, dependencies: Dependencies) -> web.Application:
    """The application of one service, with hooks under HOOKS. It closes what `attach` opened, and nothing else.

    Raises ConfigurationError for dependencies that are not this service's.
    """
    app = web.Application(middlewares=[serve], client_max_size=dependencies.settings.body_bytes_max)
    hooks: GatewayHooks = Hooks()
    app[HOOKS] = hooks
    dependencies = msgspec.structs.replace(dependencies, writes=_Hooked(dependencies.writes, hooks))
    app[SERVICE_NAME] = gateway.name
    app[SETTINGS] = dependencies.settings
    app[WAITING] = Waiting(dependencies.settings.connections_max)
    app[COMMAND_LOG] = dependencies.command_log
    app[COMMANDS] = {command.type: command for command in gateway.commands}
    app[WRITES] = dependencies.writes
    app[PENDING] = dependencies.writes.pending
    app[CHECKS] = [
        Check("broker", lambda: _is_connected(dependencies.writes)),
        Check("database", lambda: _answers(dependencies.database)),
    ]
    gateway.attach(app, dependencies)
    app.add_routes(gateway.routes)
    app.add_routes(command_routes)
    app.add_routes(operation_routes)
    return app


async def _is_connected(writes: GatewayWrites) -> bool:
    return writes.connected


async def _answers(database: Database) -> bool:
    await ping(database)
    return True
