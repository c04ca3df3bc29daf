"""`coordinator dev module:NAME`: a service, or all services of an application, in this process, without a server.

Each has its lane on an SQLite file, with its effects beside it. One gateway serves the routes of all; a cache is in
memory, and what stands in for systems outside is in threads. What is acknowledged is on disk, as with servers. There is
no standby: a second process is refused.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from time import monotonic
from typing import Final, NoReturn

from aiohttp import web

from coordinator.access.opening import asks_who_asks, check_access, open_authenticator, tables_for
from coordinator.access.settings import AccessSettings
from coordinator.client.database import close_database, open_database
from coordinator.dev import helpers
from coordinator.dev.inside import served_inside
from coordinator.dev.key import DevelopmentKey, development_key, making_another, page_of
from coordinator.dev.members import report, say
from coordinator.dev.plan import PlanOfOne, check_ports, kept_names, plan_of_one
from coordinator.dev.settings import check_speaks_http, load_settings
from coordinator.dev.tenants_inside import TenantInside, TenantWrites, name_of, services_for, shown_url, tenants_of
from coordinator.dev.workspace import Workspace
from coordinator.http.app import Gateway, ServedGateway, create_joint_app
from coordinator.http.database_part import CONNECTIONS
from coordinator.http.hosts import tenant_by_host, tenants_hosts
from coordinator.http.operations import CHECKS, Check
from coordinator.http.own_machine import ASKED_AS, asked_as
from coordinator.http.server import listening, stopped
from coordinator.http.tenants import TenantApps, front_app, settings_of_one
from coordinator.migrations.migrate import migrate
from coordinator.operations.main import operations_app
from coordinator.registry import APP_SETTING, Registry, registry
from coordinator.runtime.addresses import WITHOUT_SERVER, scheme_of
from coordinator.runtime.cache_settings import IN_MEMORY
from coordinator.runtime.event_loop import new_event_loop
from coordinator.runtime.fit import check_fit
from coordinator.runtime.garbage import spare_the_long_lived
from coordinator.runtime.loading import FILE, setting_value
from coordinator.runtime.log_lines import configure_logging
from coordinator.runtime.misspelt import warn_of_unknown
from coordinator.runtime.settings import (
    BrokerSettings,
    DatabaseSettings,
    EffectSettings,
    GatewaySettings,
    LaneSettings,
    TelemetrySettings,
    load,
)
from coordinator.runtime.stopping import stop_at_signals
from coordinator.runtime.tracing import recording_spans
from coordinator.service.errors import ConfigurationError
from coordinator.service.example import example_of
from coordinator.service.lane_names import settings_prefix
from coordinator.service.rules import check_decided
from coordinator.service.service import Service
from coordinator.service.text import in_quotes
from coordinator.stores.open import open_store
from coordinator.stores.port import OnDisk, Store
from coordinator.stores.sqlite.file import file_of
from coordinator.transports.inprocess.operators_socket import check_path, operators_socket, socket_beside
from coordinator.transports.open import open_transport
from coordinator.worker.inprocess import InProcessWrites

MONOLITH: Final = "monolith"
"""What logs and metrics call the gateway of several services."""
_LISTENERS: Final = 2
_OF_SERVERS: Final = ("DATABASE_URL", "READER_URL", "MIGRATION_URL")


def run(directory: Path) -> int:
    """Run the services of this process's application until SIGTERM, SIGINT or SIGHUP; return the exit status.

    Raises ConfigurationError if it cannot start, also where a setting names a server.
    """
    began_s = monotonic()
    _configure_logging()
    whole, settings = registry(), load_settings()
    elsewhere = _elsewhere(whole, settings.elsewhere.split())
    known = whole.without(elsewhere)
    workspace = Workspace(directory, kept_names(whole))
    plan = plan_of_one(known, settings, workspace.data, os.environ)
    check_speaks_http("coordinator dev module:NAME", GatewaySettings)
    check_access(load(AccessSettings), settings.host)
    # What is wrong with it counts before the lengths of what would be in it.
    workspace.check()
    addresses = _addresses(known.services, workspace.data)
    broker = load(BrokerSettings) if elsewhere else None
    for url in addresses.values():
        # Before anything is made.
        if (path := url.partition(":///")[2]) not in ("", ":memory:"):
            check_path(socket_beside(Path(file_of(path))))
    with workspace.locked():
        check_ports(plan.ports)
        workspace.make_data()
        environment = {APP_SETTING: os.environ.get(APP_SETTING, "")}
        environment |= {_setting(name, "DATABASE_URL"): url for name, url in addresses.items()}
        environment |= helpers.environment(plan.helpers)
        environment |= helpers.kept_environment(plan.secrets, workspace.directory, os.environ)
        if plan.is_cached and not setting_value("REDIS_URL"):
            environment["REDIS_URL"] = IN_MEMORY
        key = development_key(known.services, workspace)
        if key is not None:
            environment |= key.environment
        workspace.write_environment(environment)
        # Gateways and migrations read their addresses there.
        for name in list(os.environ):
            # What a file has is in there now, and what a name has that is not in capitals.
            if name.upper().removesuffix(FILE) in environment:
                del os.environ[name]
        os.environ.update(environment)
        for service in known.services:
            _migrate(service, workspace)
        if key is not None:
            key.give_to(addresses)
        with recording_spans("coordinator dev"), asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(_Run(known, whole.targets(), addresses, plan, workspace, key, broker).serve(began_s))
    return 0


class _Run:
    """One run, wired together."""

    def __init__(
        self,
        known: Registry,
        targets: Collection[str],
        addresses: Mapping[str, str],
        plan: PlanOfOne,
        workspace: Workspace,
        key: DevelopmentKey | None,
        broker: BrokerSettings | None,
    ) -> None:
        self._key = key
        self._known = known
        self._addresses = addresses
        self._plan = plan
        self._tenants = tenants_of(known.services)
        self._has_broker = broker is not None
        self._workspace = workspace
        self._settings, lane_settings = load(GatewaySettings), load(LaneSettings)
        self._access = load(AccessSettings)
        check_fit(self._settings, lane_settings, *([] if broker is None else [broker]))
        warn_of_unknown(self._settings, lane_settings, self._access)
        self._stores: dict[str, Store] = {
            service.lane: open_store(addresses[service.lane], service, needs_standby=lane_settings.require_sync_standby)
            for service in known.services
        }
        self._writes = InProcessWrites(
            self._stores,
            known.services,
            lane_settings,
            effect_settings=load(EffectSettings),
            targets=targets,
            addresses=addresses,
            broker=None if broker is None else open_transport(broker),
        )

    async def serve(self, began_s: float) -> None:
        """Run until a signal comes."""
        stop = stop_at_signals(services=", ".join(self._known.names))
        async with AsyncExitStack() as stack:
            for helper in self._plan.helpers:
                await stack.enter_async_context(served_inside(helper))
            await stack.enter_async_context(self._writes)
            for store in self._stores.values():
                if isinstance(store, OnDisk) and store.path is not None:
                    await stack.enter_async_context(operators_socket(socket_beside(store.path), self._writes))
            gateway, pages = self._plan.gateway, self._plan.operations
            app, failed = self._application([self._served(service, stack) for service in self._known.services])
            at_gateway = listening(app, gateway.host, gateway.number, _LISTENERS, behind=max(1, len(self._tenants)))
            await stack.enter_async_context(at_gateway)
            operations = operations_app(self._known.names, pages.host, self._settings)
            await stack.enter_async_context(listening(operations, pages.host, pages.number, _LISTENERS))
            spare_the_long_lived()
            self._say(began_s)
            await stopped(stop, failed)
        say("stopped")

    def _served(self, service: Service, stack: AsyncExitStack) -> ServedGateway:
        gateway: Gateway = self._known.gateway(service.lane)
        if asks_who_asks(self._access):
            check_decided(gateway.name, gateway.commands, self._known.services)
        url = self._addresses[service.lane]
        database = open_database(url, self._settings.read_pool_max, lane=service.lane)
        own_database = open_database(url, CONNECTIONS)
        for each in (database, own_database):
            stack.push_async_callback(close_database, each)
        return ServedGateway(
            gateway=gateway, database=database, command_log=gateway.open_log(database), own_database=own_database
        )

    def _application(
        self, served: Sequence[ServedGateway]
    ) -> tuple[web.Application, Callable[[], Awaitable[NoReturn]]]:
        """That of the gateway's port, and what raises once a part of it has ended that must run for ever."""
        services, settings = self._known.services, self._settings
        if not self._tenants:
            tenant = next((each.tenant for each in services if each.tenant is not None), None)
            name = served[0].gateway.name if len(served) == 1 else MONOLITH
            return self._joint(name, served, services, tenant, settings), self._writes.failed
        by_lane = {each.gateway.name: each for each in served}
        gateways = {}
        for tenant in self._tenants:
            own = services_for(tenant, services)
            gateways_of_his = [by_lane[service.lane] for service in own]
            app = self._joint(name_of(MONOLITH, tenant), gateways_of_his, own, tenant, settings_of_one(settings))
            gateways[tenant] = TenantInside(app, self._writes.failed)
        named = tenants_hosts(settings.tenant_hosts, self._known.tenants)
        whose = tenant_by_host(named, self._known.tenant_of_host)
        apps = TenantApps(gateways, whose, settings.connections_max)
        return front_app(MONOLITH, apps, settings), apps.failed

    def _joint(
        self,
        name: str,
        served: Sequence[ServedGateway],
        services: Sequence[Service],
        tenant: str | None,
        settings: GatewaySettings,
    ) -> web.Application:
        host = self._plan.gateway.host
        app = create_joint_app(
            name,
            served,
            transport=TenantWrites(self._writes, [each.lane for each in services]) if self._tenants else self._writes,
            settings=settings,
            authenticator=open_authenticator(self._access, host, served[0].database, tenant=tenant),
            access_tables=tables_for(self._access),
            services=services,
            shows_metrics=not self._tenants,
        )
        if (asked := asked_as(self._access, host)) is not None:
            app[ASKED_AS] = asked
        if self._has_broker:
            # What is here is served without it.
            app[CHECKS].append(Check("services elsewhere", self._bridge_problem, required=False))
        return app

    async def _bridge_problem(self) -> str | None:
        return None if self._writes.bridge_problem is None else "the broker does not answer"

    def _say(self, began_s: float) -> None:
        url = self._plan.gateway.url
        report(f"{', '.join(self._known.names)} in this process", monotonic() - began_s)
        say(f"  {'operations':<12} {page_of(self._plan.operations.url, self._key)}")
        urls = {each.lane: shown_url(url, each, self._tenants) for each in self._known.services}
        for lane, its_url in urls.items():
            say(f"  {lane:<12} {its_url:<24} on {self._addresses[lane].partition(':///')[2]}")
        for planned in self._plan.helpers:
            say(f"  {planned.helper.name:<12} {planned.place.url}{planned.helper.shown_path}")
        for service in self._known.services:
            example = example_of(service.commands)
            if example is not None:
                bearing = "" if self._key is None else f" -H 'Authorization: Bearer {self._key.text}'"
                body = in_quotes(f"[{example}]")
                say(f"  try: curl {urls[service.lane]}/commands{bearing} -H 'Content-Type: application/json' -d {body}")
        for each in dict.fromkeys(urls.values()):
            say(f"  all routes: {each}/docs")
        if self._key is not None:
            another = making_another(self._known.names, of_tenants=bool(self._tenants))
            say(
                f"callers need a key, since rules ask who they are: the one above ($DEV_KEY in the file of the next "
                f"line), or another one (`{another}`)"
            )
        say(f"operator's commands, in another terminal: {self._workspace.sourcing}")
        say("Ctrl-C stops it")


def _migrate(service: Service, workspace: Workspace) -> None:
    """Raises ConfigurationError, which says how to begin anew where the data of earlier runs are in the way."""
    settings = load(DatabaseSettings, prefix=settings_prefix(service.lane))
    file = Path(file_of(settings.database_url.partition(":///")[2]))
    has_earlier = file.is_relative_to(workspace.data) and file.exists()
    try:
        migrate(service, settings)
    except ConfigurationError as error:
        if not has_earlier:
            raise
        raise ConfigurationError(
            f"{error}\n\nThe data are those of earlier runs, in {workspace.data}. Where you need none of them, "
            f"`coordinator dev --clean --dir {workspace.directory}` removes them all; the next run begins with empty "
            "tables."
        ) from None


def _configure_logging() -> None:
    """In a form for eyes, unless the environment asks for another."""
    settings = load(TelemetrySettings)
    if "log_format" not in settings.model_fields_set:
        settings = settings.model_copy(update={"log_format": "console"})
    configure_logging(settings, "dev")


def _addresses(services: tuple[Service, ...], data: Path) -> dict[str, str]:
    """Where each service's database is. Raises ConfigurationError for an address of a server."""
    addresses = {}
    for service in services:
        urls = {name: setting_value(_setting(service.lane, name)) for name in _OF_SERVERS}
        for name, url in urls.items():
            if url and scheme_of(url) not in WITHOUT_SERVER:
                raise _is_of_a_server(_setting(service.lane, name))
        addresses[service.lane] = _absolute(urls["DATABASE_URL"]) or f"sqlite:///{data / f'{service.lane}.sqlite'}"
    return addresses


def _elsewhere(known: Registry, names: Sequence[str]) -> Sequence[str]:
    """The services that run behind a broker. Raises ConfigurationError for any that is not there to be left out."""
    broker = next(filter(setting_value, ("AMQP_URL", "BROKER_URL")), None)
    if not names:
        if given := broker or next(filter(setting_value, ("DEV_BROKER",)), None):
            raise _is_of_a_server(given)
        return ()
    for name in names:
        if name not in known.names:
            there = ", ".join(known.names)
            raise ConfigurationError(f"DEV_ELSEWHERE names {name!r}, which this application has not: it has {there}")
    if set(names) == set(known.names):
        raise ConfigurationError(
            "DEV_ELSEWHERE names every service, so that none is left for this process: leave one out, or run them all "
            "on your servers (`coordinator run`, `coordinator gateway`)"
        )
    if broker is None:
        raise ConfigurationError(
            f"DEV_ELSEWHERE: {' '.join(names)} can be reached by a broker only: set AMQP_URL, or run all services here"
        )
    return names


def _absolute(url: str) -> str:
    """The address for operators' commands, which run in other folders."""
    path = url.removeprefix("sqlite:///")
    return url if path == url or path in ("", ":memory:") or path.startswith("/") else f"sqlite:///{Path.cwd()}/{path}"


def _setting(service: str, name: str) -> str:
    return f"{settings_prefix(service)}{name}"


def _is_of_a_server(setting: str) -> ConfigurationError:
    return ConfigurationError(
        f"{setting} names a server, and `coordinator dev module:NAME` runs without one: unset it, have this command "
        "start servers of its own (--servers auto), run the processes on your servers (`coordinator run`, "
        "`coordinator gateway`), or name the services that run there (DEV_ELSEWHERE)"
    )
