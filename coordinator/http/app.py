"""Applications: the parts of a gateway, and the factory that puts one together.

This module opens no connection.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

from aiohttp import web
from msgspec import Struct
from msgspec.structs import force_setattr, replace
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.access.authenticator import Authenticator
from coordinator.access.keyed_ids import KeyedIds
from coordinator.client.command_log import CommandLog, CommandLogs, open_command_log
from coordinator.client.database import Needed
from coordinator.client.hooks import HookedWrites, Hooks
from coordinator.client.idempotency_secrets import read_idempotency_secrets
from coordinator.client.publish_spans import TracedWrites, messaging
from coordinator.client.recency import ReadDatabase
from coordinator.client.writes import Writes
from coordinator.http.authentication import AUTHENTICATION, Authentication
from coordinator.http.command_ids import OWN_KEYS, OwnKeys
from coordinator.http.commands import COMMANDS, WRITES
from coordinator.http.commands import routes as command_routes
from coordinator.http.contract.credentials import BEARER
from coordinator.http.contract.problem_codes import PROBLEM_CODES, ProblemCode
from coordinator.http.contract.served import CONTRACT, ServedContract, page_routes
from coordinator.http.contract.served import routes as contract_routes
from coordinator.http.database_checks import database_checks
from coordinator.http.found_commands import COMMAND_LOGS, PRIMARY_LOGS
from coordinator.http.hooks import HOOKS, GatewayHooks
from coordinator.http.keys import LANES, READ_DATABASES, SERVICE_NAME, SETTINGS, TARGETS, UPGRADES
from coordinator.http.middleware import serve
from coordinator.http.operations import (
    CHECKS,
    OPEN_TYPES,
    TRANSPORT,
    Check,
    health_routes,
    watch_checks,
    without_metrics,
)
from coordinator.http.operations import routes as outcome_routes
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
from coordinator.service.continuation import is_continuation
from coordinator.service.errors import ConfigurationError
from coordinator.service.lane_names import settings_prefix, tenant_of
from coordinator.service.rows import Row
from coordinator.service.service import Service
from coordinator.service.targets import Targets
from coordinator.service.upgrades import Upgrade, by_type
from coordinator.stores.fingerprint_keys import FingerprintKey
from coordinator.stores.kinds import Database
from coordinator.stores.lane_tables import LogEntry
from coordinator.stores.lease_table import LEASE_TABLE
from coordinator.stores.mongodb.documents import Documents
from coordinator.transports.port import CommandTransport

common_routes: Final = (*command_routes, *outcome_routes, *health_routes, *contract_routes, *page_routes)
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
        prefix = settings_prefix(self.service)
        setting = f"{prefix}READER_URL, or where that is not set {prefix}DATABASE_URL,"
        return ConfigurationError(f"{setting} must name {needed}, and names {given}")


class Gateway(Struct, frozen=True, kw_only=True):
    """One service's gateway.

    `attach` makes the service from the dependencies and puts it under the key that its routes use. `POST /commands`
    takes `commands`, without the continuations among them; `upgrades` are those of the service
    (`Service.declared_upgrades`), for older arguments that clients still send. `open_log` opens the log that
    `GET /commands/…` reads. `reads` are the models of all rows that it reads: without the right to one of them it does
    not start. `service` is the one that it was made from. `problems` say what the codes mean that are the service's
    own: each is the text at its `/problems/<code>`.
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

    def __post_init__(self) -> None:
        taken = tuple(each for each in self.commands if not is_continuation(each))
        force_setattr(self, "commands", taken)

    @property
    def tables(self) -> tuple[Needed, ...]:
        """All that it reads whoever may ask: rows, outcomes and how to compare them, and how far the lane is."""
        return (*self.reads, LogEntry.table, LEASE_TABLE, FingerprintKey.table)


class ServedGateway(Struct, frozen=True, kw_only=True):
    """A gateway, with what it reads from.

    `own_database` is the same database, over a connection that no request takes: what the gateway asks for itself, such
    as whether the database answers, does not wait behind a flood of reads. Without one it does. `primary` is the server
    to which the lane writes, where `database` may be a replica of it: reads that must be recent ask it at last, and
    what would be wrong if it were old is read there: secrets, and whether there was a command. `own_primary` is to it
    as `own_database` is to `database`.
    """

    gateway: Gateway
    database: Database
    command_log: CommandLog
    own_database: Database | None = None
    primary: Database | None = None
    own_primary: Database | None = None

    @property
    def secrets_from(self) -> Database:
        """Where secrets are read, which count at every gateway at the same time."""
        known = (each for each in (self.own_primary, self.primary) if each is not None)
        return next(known, self.asked)

    @property
    def databases(self) -> list[Database]:
        """All that are open."""
        every = (self.database, self.own_database, self.primary, self.own_primary)
        return [each for each in every if each is not None]

    @property
    def primary_log(self) -> CommandLog:
        """The log that lags least."""
        return self.command_log if self.primary is None else self.gateway.open_log(self.primary)

    @property
    def asked(self) -> Database:
        """What it asks for itself."""
        return self.database if self.own_database is None else self.own_database


def create_app(
    gateway: Gateway,
    *,
    transport: CommandTransport,
    database: Database,
    command_log: CommandLog,
    settings: GatewaySettings,
    authenticator: Authenticator | None = None,
    access_tables: Sequence[str] = (),
    own_database: Database | None = None,
    primary: Database | None = None,
    services: Sequence[Service] = (),
    shows_metrics: bool = True,
) -> web.Application:
    """The application of one service: `create_joint_app` of one gateway, whose arguments are those of its parts."""
    served = ServedGateway(
        gateway=gateway,
        database=database,
        command_log=command_log,
        own_database=own_database,
        primary=primary,
    )
    return create_joint_app(
        gateway.name,
        [served],
        transport=transport,
        settings=settings,
        authenticator=authenticator,
        access_tables=access_tables,
        services=services,
        shows_metrics=shows_metrics,
    )


def create_joint_app(
    name: str,
    served: Sequence[ServedGateway],
    *,
    transport: CommandTransport,
    settings: GatewaySettings,
    authenticator: Authenticator | None = None,
    access_tables: Sequence[str] = (),
    services: Sequence[Service] = (),
    shows_metrics: bool = True,
) -> web.Application:
    """The application of these gateways, with hooks under HOOKS. It closes only what their `attach` opened.

    They share its hooks, its limits, and `name`, which is in logs and metrics. `authenticator` finds out who asks;
    without one everybody may. The secrets of idempotency keys are those of the first gateway's database, where API keys
    are looked for, too; `access_tables` are the tables that have both, as far as they are read. `services` are those
    whose commands the gateways take: what their results have of rows is shown to those whom the rules of these name.
    `shows_metrics`: `/metrics` is among its routes.
    Raises ConfigurationError for a database that is not of its service's kind, for routes that meet, and for gateways
    of several tenants.
    """
    gateways = [each.gateway for each in served]
    own = [gateway.service for gateway in gateways if gateway.service is not None]
    handling = list(dict.fromkeys([*services, *own]))
    targets = _targets_of(gateways, handling)
    check_routes(gateways)
    common = common_routes if shows_metrics else without_metrics(common_routes)
    app = web.Application(middlewares=[serve], client_max_size=settings.body_bytes_max)
    hooks: GatewayHooks = Hooks()
    has_broker = transport.account is not None
    traced = transport if recorder() is None else TracedWrites(transport, messaging(is_rabbitmq=has_broker))
    writes = HookedWrites(traced, hooks, targets)
    show_build()
    app[HOOKS] = hooks
    app[SERVICE_NAME] = name
    app[LANES] = tuple(gateway.name for gateway in gateways)
    app[TARGETS] = targets
    app[SETTINGS] = settings
    app[READ_DATABASES] = tuple(
        ReadDatabase(lane=each.gateway.name, database=each.database, primary=each.primary) for each in served
    )
    app[WAITING_REQUESTS] = WaitingRequests(settings.connections_max, settings.in_flight_max)
    primary_logs = _note_logs(app, served)
    app[UPGRADES] = by_type(dict.fromkeys(upgrade for gateway in gateways for upgrade in gateway.upgrades))
    app[COMMANDS] = {command.type: command for gateway in gateways for command in gateway.commands}
    app[WRITES] = writes
    app[TRANSPORT] = transport
    app[RECEIPTS] = Receipts()
    app[SHOWN_RESULTS] = ShownResults(handling)
    app[OPEN_TYPES] = frozenset(
        each.command.type for service in own for each in service.public_handlers if each.allow is anybody
    )
    app[CONTRACT] = contract_of(name, gateways, handling, settings, asks=authenticator is not None, common=common)
    app[CHECKS] = [Check("broker", lambda: _problem(transport), reason=lambda: transport.unready_reason)]
    for each in served:
        show_pool(each.gateway.name, each.database, settings.read_pool_max)
        tables = (*each.gateway.tables, *(access_tables if each is served[0] else ()))
        asked = ReadDatabase(lane=each.gateway.name, database=each.asked, primary=each.own_primary)
        checks = database_checks(asked, each.own_primary, tables)
        app[CHECKS] += [_of(app, each.gateway, check) for check in checks]
    if authenticator is not None:
        authentication = app[AUTHENTICATION] = Authentication(authenticator, PrincipalLimits(settings))
        # Who is known already is still served meanwhile, so readiness only shows it.
        app[CHECKS].append(
            Check(
                "authentication",
                authentication.problem,
                required=False,
                needed_now=lambda: authentication.knows_nobody,
            )
        )
        app.cleanup_ctx.append(authentication.running)
        ids = KeyedIds(partial(read_idempotency_secrets, served[0].secrets_from), account=transport.account)
        own_keys = app[OWN_KEYS] = OwnKeys(ids, primary_logs)
        app[CHECKS].append(Check("idempotency", ids.problem, required=False))
        app.cleanup_ctx.append(own_keys.running)
    for each in served:
        dependencies = Dependencies(
            service=each.gateway.name,
            database=each.database,
            writes=writes,
            command_log=each.command_log,
            settings=settings,
        )
        there = len(app[CHECKS])
        each.gateway.attach(app, dependencies)
        app[CHECKS][there:] = [_of(app, each.gateway, check) for check in app[CHECKS][there:]]
    watch_checks(app)
    for gateway in gateways:
        app.add_routes(gateway.routes)
    app.add_routes(common)
    return app


def _note_logs(app: web.Application, served: Sequence[ServedGateway]) -> CommandLogs:
    """Those that lag least."""
    app[COMMAND_LOGS] = CommandLogs({each.gateway.name: each.command_log for each in served})
    primary_logs = CommandLogs({each.gateway.name: each.primary_log for each in served})
    app[PRIMARY_LOGS] = primary_logs if any(each.primary is not None for each in served) else None
    return primary_logs


def _targets_of(gateways: Sequence[Gateway], services: Sequence[Service]) -> Targets:
    """Raises ConfigurationError for gateways of several tenants, since no request says whose it is."""
    of_tenants = {tenant: gateway.name for gateway in gateways if (tenant := tenant_of(gateway.name)) is not None}
    one, *others = of_tenants.values() or (gateways[0].name,)
    if others:
        raise ConfigurationError(
            f"{one} and {others[0]} are of two tenants, and each has an application of his own: `coordinator gateway`"
            " and `coordinator dev` put them behind one port, by their hosts"
        )
    return Targets(one, {*(gateway.name for gateway in gateways), *(service.lane for service in services)})


def contract_of(
    name: str,
    gateways: Sequence[Gateway],
    services: Sequence[Service],
    settings: GatewaySettings,
    *,
    asks: bool,
    common: Sequence[web.AbstractRouteDef] = common_routes,
) -> ServedContract:
    """What an application of these gateways says of itself.

    `services` are those whose commands it takes; `asks`: it asks who asks; `common` are its routes beside theirs.
    """
    return ServedContract(
        name,
        about=f"The gateway of {_listed(each.name for each in gateways)}. A write becomes a command, which is applied "
        "once, in its turn.",
        own={gateway.name: tuple(gateway.routes) for gateway in gateways},
        common=common,
        problems=(*PROBLEM_CODES, *(problem for gateway in gateways for problem in gateway.problems)),
        credentials=BEARER if asks else None,
        services=services,
        commands=tuple(dict.fromkeys(command for gateway in gateways for command in gateway.commands)),
        upgrades=[upgrade for gateway in gateways for upgrade in gateway.upgrades],
        commands_max=settings.commands_max,
    )


def check_routes(gateways: Sequence[Gateway]) -> None:
    """Raises ConfigurationError for a route that two of them have: the second would never be asked."""
    first: dict[tuple[str, str], Gateway] = {}
    for gateway in gateways:
        for route in gateway.routes:
            if isinstance(route, web.RouteDef):
                other = first.setdefault((route.method, _PLACE.sub("{}", route.path)), gateway)
                if other is not gateway:
                    raise ConfigurationError(
                        f"{route.method} {route.path} of {gateway.name} is a route of {other.name}, too: on one port "
                        "it must have another path"
                    )


def _listed(names: Iterable[str]) -> str:
    """In words."""
    *others, last = (f"`{name}`" for name in names)
    return f"{', '.join(others)} and {last}" if others else last


_PLACE: Final = re.compile(r"\{[^{}]*\}")
"""The part of a path that differs from request to request."""


def _of(app: web.Application, gateway: Gateway, check: Check) -> Check:
    """A check that no other gateway of the application has by this name."""
    return check if len(app[LANES]) == 1 else replace(check, name=f"{check.name} of {gateway.name}")


async def _problem(transport: CommandTransport) -> str | None:
    return transport.problem
