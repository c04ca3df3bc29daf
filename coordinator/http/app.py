"""Applications: the parts of a gateway, and the factory that puts one together.

This module opens no connection.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from aiohttp import web
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.access.authenticator import Authenticator
from coordinator.access.keyed_ids import KeyedIds
from coordinator.client.command_log import CommandLog, open_command_log
from coordinator.client.hooks import HookedWrites, Hooks
from coordinator.client.idempotency_secrets import read_idempotency_secrets
from coordinator.client.publish_spans import TracedWrites, messaging
from coordinator.client.writes import Writes
from coordinator.http.authentication import AUTHENTICATION, Authentication
from coordinator.http.command_ids import OWN_KEYS, OwnKeys
from coordinator.http.commands import COMMANDS, WRITES
from coordinator.http.commands import routes as command_routes
from coordinator.http.contract.problem_codes import PROBLEM_CODES, ProblemCode
from coordinator.http.contract.served import CONTRACT, ServedContract
from coordinator.http.contract.served import routes as contract_routes
from coordinator.http.database_part import DatabasePart
from coordinator.http.hooks import HOOKS, GatewayHooks
from coordinator.http.keys import SERVICE_NAME, SETTINGS, UPGRADES
from coordinator.http.middleware import serve
from coordinator.http.operations import (
    CHECKS,
    COMMAND_LOG,
    LOOKS,
    OPEN_TYPES,
    PARTS,
    TRANSPORT,
    Check,
    Looks,
    watch_parts,
)
from coordinator.http.operations import routes as operation_routes
from coordinator.http.pool_gauges import show_pool
from coordinator.http.principal_limits import PrincipalLimits
from coordinator.http.receipts import RECEIPTS, Receipts
from coordinator.http.shown_results import SHOWN_RESULTS, ShownResults
from coordinator.http.waiting_requests import WAITING_REQUESTS, WaitingRequests
from coordinator.runtime.build_info import show_build
from coordinator.runtime.recording import recorder
from coordinator.runtime.settings import GatewaySettings
from coordinator.service.allowing import anybody
from coordinator.service.commands import Command
from coordinator.service.errors import ConfigurationError
from coordinator.service.rows import Row
from coordinator.service.service import Service
from coordinator.service.upgrades import Upgrade, by_type
from coordinator.stores.kinds import Database
from coordinator.stores.lane_tables import LogEntry
from coordinator.stores.mongodb.documents import Documents
from coordinator.transports.port import CommandTransport

common_routes: Final = (*command_routes, *operation_routes, *contract_routes)
"""Those of every gateway, behind its own."""


class Dependencies(Struct, frozen=True, kw_only=True):
    """What a gateway's service is made of. `writes` has the hooks of its application."""

    service: str
    database: Database
    writes: Writes
    command_log: CommandLog
    settings: GatewaySettings

    def sql(self) -> AsyncEngine:
        """The SQL database. Raises ConfigurationError if it is of another kind."""
        if not isinstance(self.database, AsyncEngine):
            raise self._of_another_kind("an SQL database", "MongoDB")
        return self.database

    def documents(self) -> Documents:
        """The MongoDB database. Raises ConfigurationError if it is of another kind."""
        if isinstance(self.database, AsyncEngine):
            raise self._of_another_kind("MongoDB", "an SQL database")
        return self.database

    def _of_another_kind(self, needed: str, given: str) -> ConfigurationError:
        prefix = self.service.upper()
        setting = f"{prefix}_READER_URL, or where that is not set {prefix}_DATABASE_URL,"
        return ConfigurationError(f"{setting} must name {needed}, and names {given}")


class Gateway(Struct, frozen=True, kw_only=True):
    """One service's gateway.

    `attach` makes the service from the dependencies and puts it under the key that its routes use. `POST /commands`
    takes `commands`; `upgrades` are those of the service (`Service.declared_upgrades`), for older arguments that
    clients still send. `open_log` opens the log that `GET /commands/…` reads. `reads` are the models of all rows that
    it reads: without the right to one of them it does not start. `service` is the one that it was made from. `problems`
    say what the codes mean that are the service's own: each is the text at its `/problems/<code>`.
    """

    name: str
    routes: Sequence[web.AbstractRouteDef]
    attach: Callable[[web.Application, Dependencies], None]
    commands: tuple[type[Command], ...] = ()
    upgrades: tuple[Upgrade, ...] = ()
    reads: tuple[type[Row], ...] = ()
    open_log: Callable[[Database], CommandLog] = open_command_log
    is_system: bool = False
    service: Service | None = None
    problems: tuple[ProblemCode, ...] = ()

    @property
    def tables(self) -> tuple[str, ...]:
        """All that it reads, with the command log."""
        return (*(model.table for model in self.reads), LogEntry.table)


def create_app(
    gateway: Gateway,
    *,
    transport: CommandTransport,
    database: Database,
    command_log: CommandLog,
    settings: GatewaySettings,
    authenticator: Authenticator | None = None,
    own_database: Database | None = None,
    services: Sequence[Service] = (),
) -> web.Application:
    """The application of one service, with hooks under HOOKS. It closes only what `attach` opened.

    `authenticator` finds out who asks; without one everybody may. `own_database` is the same database, over a
    connection that no request takes: what the gateway asks for itself, such as whether the database answers, does not
    wait behind a flood of reads. Without one it does. `services` are those whose commands the gateway takes: what
    their results have of rows is shown to those whom the rules of these name.
    Raises ConfigurationError for a database that is not of this service's kind.
    """
    app = web.Application(middlewares=[serve], client_max_size=settings.body_bytes_max)
    hooks: GatewayHooks = Hooks()
    has_broker = transport.account is not None
    traced = transport if recorder() is None else TracedWrites(transport, messaging(is_rabbitmq=has_broker))
    writes = HookedWrites(traced, hooks)
    show_build()
    show_pool(gateway.name, database, settings.read_pool_max)
    app[HOOKS] = hooks
    app[SERVICE_NAME] = gateway.name
    app[SETTINGS] = settings
    app[WAITING_REQUESTS] = WaitingRequests(settings.connections_max, settings.in_flight_max)
    app[COMMAND_LOG] = command_log
    app[UPGRADES] = by_type(gateway.upgrades)
    app[COMMANDS] = {command.type: command for command in gateway.commands}
    app[WRITES] = writes
    app[TRANSPORT] = transport
    app[RECEIPTS] = Receipts()
    handling = list(dict.fromkeys([*services, *([] if gateway.service is None else [gateway.service])]))
    app[SHOWN_RESULTS] = ShownResults(handling)
    own = () if gateway.service is None else gateway.service.public_handlers
    app[OPEN_TYPES] = frozenset(each.command.type for each in own if each.allow is anybody)
    app[CONTRACT] = contract_of(gateway, handling, settings, asks=authenticator is not None)
    asked = database if own_database is None else own_database
    part = DatabasePart(asked, gateway.name, gateway.tables)
    app[PARTS] = {}
    app[LOOKS] = Looks()
    app[CHECKS] = [
        Check("broker", lambda: _problem(transport), reason=lambda: transport.unready_reason),
        Check("database", part.problem, reason=lambda: part.reason),
    ]
    dependencies = Dependencies(
        service=gateway.name, database=database, writes=writes, command_log=command_log, settings=settings
    )
    if authenticator is not None:
        authentication = app[AUTHENTICATION] = Authentication(authenticator, PrincipalLimits(settings))
        # Who is known already is still served meanwhile, so readiness only shows it.
        app[CHECKS].append(Check("authentication", authentication.problem, required=False))
        app.cleanup_ctx.append(authentication.running)
        ids = KeyedIds(partial(read_idempotency_secrets, asked), account=transport.account)
        own_keys = app[OWN_KEYS] = OwnKeys(ids, command_log)
        app[CHECKS].append(Check("idempotency", ids.problem, required=False))
        app.cleanup_ctx.append(own_keys.running)
    gateway.attach(app, dependencies)
    app.cleanup_ctx.append(watch_parts)
    app.add_routes(gateway.routes)
    app.add_routes(common_routes)
    return app


def contract_of(
    gateway: Gateway, services: Sequence[Service], settings: GatewaySettings, *, asks: bool
) -> ServedContract:
    """What a gateway says of itself. `services` are those whose commands it takes; `asks`: it asks who asks."""
    return ServedContract(
        gateway.name,
        own=tuple(gateway.routes),
        common=common_routes,
        services=services,
        commands=gateway.commands,
        commands_max=settings.commands_max,
        problems=(*PROBLEM_CODES, *gateway.problems),
        asks=asks,
    )


async def _problem(transport: CommandTransport) -> str | None:
    return transport.problem
