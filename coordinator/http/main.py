"""The composition root: a gateway, or those of several tenants, with a port, all from the environment."""

import asyncio
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack

import click
import structlog
from msgspec import Struct

from coordinator.access.opening import asks_who_asks, check_access
from coordinator.access.settings import AccessSettings
from coordinator.http.app import Gateway
from coordinator.http.certificate import serve_certificate
from coordinator.http.hosts import TenantOfHost, tenant_by_host, tenants_hosts
from coordinator.http.opening import OfProcess, OpenGateway
from coordinator.http.secrets import watch_secrets
from coordinator.http.server import serve_until_stopped
from coordinator.http.tenants import TenantApps, front_app, settings_of_one
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
from coordinator.service.errors import ConfigurationError
from coordinator.service.lane_names import service_of, settings_prefix, tenant_of
from coordinator.service.rules import check_decided, ruled_rows
from coordinator.service.service import Service

log = structlog.get_logger("gateway")


class Offered(Struct, frozen=True):
    """A gateway to serve, and the services of its application whose commands it takes, its own among them.

    Where callers must prove who they are, these must say who may do what.
    """

    gateway: Gateway
    services: Sequence[Service] = ()


class Tenants(Struct, frozen=True):
    """The tenants whose gateways are at one port: all that the application has, and whose a host is, if it says so."""

    known: Collection[str]
    of_host: TenantOfHost | None = None


def serve(
    offered: Sequence[Offered], host: str, port: int, tenants: Tenants | None = None, metrics_port: int | None = None
) -> int:
    """Serve one gateway until SIGTERM, SIGINT or SIGHUP; return the exit status.

    With `tenants` there may be several, one of each tenant, at his hosts. `metrics_port`: `/metrics` is there, and not
    at `port`; where there are tenants it is nowhere else.

    Its settings are environment variables: docs/OPERATING.md lists them.
    """
    name = _name(offered, tenants)
    try:
        configure_logging(load(TelemetrySettings), f"gateway-{name}")
        with recording_spans(f"gateway-{name}"), asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(_serve(offered, host, port, tenants, metrics_port))
    except ConfigurationError as error:
        click.echo(f"gateway {name}: {error}", err=True)
        return 2
    except (Exception, SystemExit):
        # Nothing of ours raises SystemExit here: with its status, a defect of a route or a hook would look like a stop.
        log.exception("process_failed", service=name)
        return 1
    return 0


def _name(offered: Sequence[Offered], tenants: Tenants | None) -> str:
    """Of the process: that of a tenant's lane is his alone."""
    lane = offered[0].gateway.name
    return lane if tenants is None else service_of(lane)


async def _serve(
    offered: Sequence[Offered],
    host: str,
    port: int,
    tenants: Tenants | None = None,
    metrics_port: int | None = None,
) -> None:
    groups = (GatewaySettings, BrokerSettings, AccessSettings, LaneSettings)
    readers = ((ReaderSettings, settings_prefix(each.gateway.name)) for each in offered)
    check_all(*((group, None) for group in groups), *readers)
    settings, broker = load(GatewaySettings), load(BrokerSettings)
    access = load(AccessSettings)
    check_access(access, host)
    for each in offered:
        if asks_who_asks(access):
            check_decided(each.gateway.name, each.gateway.commands, each.services)
        else:
            warn_of_unasked_rules(each.gateway.name, each.services)
    check_fit(broker, settings, load(LaneSettings))
    check_cache_is_shared()
    warn_of_unknown(broker, settings, access)
    tls = None if settings.server_files is None else ServerTls("gateway", settings.server_files)
    whose = None
    if tenants is not None:
        whose = tenant_by_host(tenants_hosts(settings.tenant_hosts, tenants.known), tenants.of_host)
    process = OfProcess(
        name=_name(offered, tenants),
        settings=settings if whose is None else settings_of_one(settings),
        broker=broker,
        access=access,
        host=host,
        shows_metrics=whose is None and metrics_port is None,
    )
    async with AsyncExitStack() as stack:
        gateways = []
        for each in offered:
            gateways.append(OpenGateway(process, each.gateway, each.services))
            stack.push_async_callback(gateways[-1].close)
        if whose is None:
            (one,) = gateways
            await one.check()
            app, failed = one.app, one.failed
        else:
            apps = TenantApps({tenant_of(each.name) or "": each for each in gateways}, whose, settings.connections_max)
            app, failed = front_app(process.name, apps, settings), apps.failed
        if tls is not None:
            serve_certificate(app, tls)
        watch_secrets(app)
        await serve_until_stopped(app, host, port, failed, metrics_port=metrics_port, gateways=len(gateways))


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
