"""The composition root: one gateway with its database, its broker and its port, all from the environment."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Final

import click
import structlog
from aiohttp import web

from coordinator.access.opening import asks_who_asks, check_access, is_own_machine, open_authenticator, tables_for
from coordinator.access.settings import AccessSettings
from coordinator.client.api_keys import ApiKeysReader
from coordinator.client.database import close_database, is_replica, open_database, reading_problem
from coordinator.http.app import Gateway, ServedGateway, create_joint_app
from coordinator.http.certificate import serve_certificate
from coordinator.http.database_part import CONNECTIONS
from coordinator.http.own_machine import OWN_MACHINE
from coordinator.http.server import serve_until_stopped
from coordinator.runtime.addresses import WITHOUT_SERVER, address_of, parse_address
from coordinator.runtime.cache_settings import check_cache_is_shared
from coordinator.runtime.event_loop import new_event_loop
from coordinator.runtime.fit import check_fit
from coordinator.runtime.loading import check_all
from coordinator.runtime.log_lines import configure_logging
from coordinator.runtime.misspelt import warn_of_unknown
from coordinator.runtime.server_tls import ServerTls
from coordinator.runtime.settings import (
    BrokerSettings,
    GatewaySettings,
    LaneSettings,
    ReaderSettings,
    TelemetrySettings,
    load,
)
from coordinator.runtime.tracing import recording_spans
from coordinator.service.errors import BrokerUnavailable, ConfigurationError, DatabaseUnavailable
from coordinator.service.lane_names import settings_prefix, tenant_of
from coordinator.service.rules import check_decided, ruled_rows
from coordinator.service.service import Service
from coordinator.stores.kinds import Database
from coordinator.stores.lane_tables import ApiKey
from coordinator.transports.open import open_transport

FIRST_CONNECTION_WAIT_S: Final = 3.0
"""How long a gateway waits for the broker before it listens: a client that finds the port open finds writes taken, too.

It listens then in any case. What it can say of a broker that is away, and what it can read meanwhile, is of use.
"""

log = structlog.get_logger("gateway")


def serve(
    gateway: Gateway, host: str, port: int, services: Sequence[Service] = (), metrics_port: int | None = None
) -> int:
    """Serve one gateway until SIGTERM, SIGINT or SIGHUP; return the exit status.

    `services` are those of the application: where callers must prove who they are, the one of the gateway, and those
    whose commands it takes, must say who may do what. `metrics_port`: `/metrics` is there, and not at `port`.

    Its settings are environment variables: docs/OPERATING.md lists them.
    """
    try:
        configure_logging(load(TelemetrySettings), f"gateway-{gateway.name}")
        with recording_spans(f"gateway-{gateway.name}"), asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(_serve(gateway, host, port, services, metrics_port))
    except ConfigurationError as error:
        click.echo(f"gateway {gateway.name}: {error}", err=True)
        return 2
    except (Exception, SystemExit):
        # Nothing of ours raises SystemExit here: with its status, a defect of a route or a hook would look like a stop.
        log.exception("process_failed", service=gateway.name)
        return 1
    return 0


async def _serve(
    gateway: Gateway, host: str, port: int, services: Sequence[Service] = (), metrics_port: int | None = None
) -> None:
    own = settings_prefix(gateway.name)
    groups = (GatewaySettings, BrokerSettings, AccessSettings, LaneSettings)
    check_all(*((group, None) for group in groups), (ReaderSettings, own))
    settings, broker = load(GatewaySettings), load(BrokerSettings)
    access = load(AccessSettings)
    check_access(access, host)
    if asks_who_asks(access):
        check_decided(gateway.name, gateway.commands, services)
    else:
        warn_of_unasked_rules(gateway.name, services)
    check_fit(broker, settings, load(LaneSettings))
    check_cache_is_shared()
    warn_of_unknown(broker, settings, access)
    tls = None if settings.server_files is None else ServerTls("gateway", settings.server_files)
    reader = load(ReaderSettings, prefix=own)
    served = _open(gateway, reader, settings)
    transport = open_transport(broker).commands(
        f"gateway.{gateway.name}",
        confirm_timeout_s=settings.confirm_timeout_s,
        wait_s=settings.wait_s,
        in_flight_max=settings.in_flight_max,
        # An outcome that was lost on its way is there at once.
        log=served.primary_log,
        is_system=gateway.is_system,
    )

    async def connections(_app: web.Application) -> AsyncIterator[None]:
        await transport.start()
        try:
            with contextlib.suppress(BrokerUnavailable):
                await transport.wait_connected(FIRST_CONNECTION_WAIT_S)
            yield
        finally:
            try:
                await transport.close()
            finally:
                await _close(*served.databases)

    try:
        with address_of(reader.setting(gateway.name)):
            await _check_reads(served.asked, gateway, tables_for(access))
        if served.own_primary is not None:
            # Secrets and keys of another lane would count here.
            with address_of(f"{own}PRIMARY_URL"):
                await _check_reads(served.own_primary, gateway, tables_for(access))
        elif asks_who_asks(access):
            await _warn_of_replica(served.asked, reader.url(gateway.name), gateway.name)
        app = create_joint_app(
            gateway.name,
            [served],
            transport=transport,
            settings=settings,
            authenticator=open_authenticator(
                access, host, served.database, _keys_reader(gateway, reader, access), tenant_of(gateway.name)
            ),
            access_tables=tables_for(access),
            services=services,
            shows_metrics=metrics_port is None,
        )
    except ConfigurationError:
        await _close(*served.databases)
        raise
    app[OWN_MACHINE] = is_own_machine(access, host)
    app.cleanup_ctx.append(connections)
    if tls is not None:
        serve_certificate(app, tls)
    await serve_until_stopped(app, host, port, transport.failed, metrics_port=metrics_port)


def _open(gateway: Gateway, reader: ReaderSettings, settings: GatewaySettings) -> ServedGateway:
    """A gateway with the databases that it reads. Raises ConfigurationError."""
    url, primary, own_primary = reader.url(gateway.name), None, None
    with address_of(reader.setting(gateway.name)):
        if reader.reader_url is None and parse_address(url).scheme not in WITHOUT_SERVER:
            warn_of_writing_role(gateway.name)
        database, own_database = open_database(url, settings.read_pool_max), open_database(url, CONNECTIONS)
    if reader.primary_url is not None:
        with address_of(f"{settings_prefix(gateway.name)}PRIMARY_URL"):
            primary = open_database(reader.primary_url, settings.read_pool_max, must_lead=True)
            own_primary = open_database(reader.primary_url, CONNECTIONS, must_lead=True)
    return ServedGateway(
        gateway=gateway,
        database=database,
        command_log=gateway.open_log(database),
        own_database=own_database,
        primary=primary,
        own_primary=own_primary,
    )


def _keys_reader(gateway: Gateway, reader: ReaderSettings, access: AccessSettings) -> ApiKeysReader | None:
    if ApiKey.table not in tables_for(access):
        return None
    return ApiKeysReader(reader.primary_url or reader.url(gateway.name), must_lead=reader.primary_url is not None)


async def _close(*databases: Database) -> None:
    for each in databases:
        await close_database(each)


def warn_of_unasked_rules(name: str, services: Sequence[Service]) -> None:
    """Log that the rows of the service of this name have rules, and that its gateway shows all rows: it asks nobody."""
    tables = [model.table for each in services if each.lane == name for model in ruled_rows(each)]
    if tables:
        log.warning(
            "rules_not_asked",
            service=name,
            tables=tables,
            setting="ACCESS_METHODS",
            what_to_do="set ACCESS_METHODS=keys or tokens: whoever reaches this gateway is shown all of these rows",
        )


def warn_of_writing_role(name: str) -> None:
    """Log that a gateway reads by the lane's address: as a role that may write."""
    log.warning(
        "reads_as_the_lane",
        service=name,
        setting=f"{settings_prefix(name)}READER_URL",
        what_to_do="set it to a role that cannot write: a gateway needs no more, and whoever takes it over has no more",
    )


async def _warn_of_replica(database: Database, url: str, lane: str) -> None:
    try:
        async with asyncio.timeout(FIRST_CONNECTION_WAIT_S):
            lags = await is_replica(database, url)
    except (TimeoutError, DatabaseUnavailable):
        return
    if lags:
        # A revoked key counts for as long as the replica lags.
        log.warning("secrets_read_from_replica", lane=lane, setting=f"{settings_prefix(lane)}PRIMARY_URL")


async def _check_reads(database: Database, gateway: Gateway, others: Sequence[str]) -> None:
    """Raises ConfigurationError that names what the server refuses; one that is away is waited for by readiness."""
    try:
        async with asyncio.timeout(FIRST_CONNECTION_WAIT_S):
            problem = await reading_problem(database, gateway.name, (*gateway.tables, *others))
    except (TimeoutError, DatabaseUnavailable):
        return
    if problem is not None:
        raise ConfigurationError(problem)
