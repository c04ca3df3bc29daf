"""The composition root: one gateway, its database, its broker, its port, all from the environment."""

import asyncio
import sys
from collections.abc import AsyncIterator

import click
import structlog
from aiohttp import web

from coordinator.client.database import close_database, open_database
from coordinator.http.app import Dependencies, Gateway, create_app
from coordinator.http.server import serve_until_stopped
from coordinator.runtime.event_loop import new_event_loop
from coordinator.runtime.fit import check_fit
from coordinator.runtime.settings import (
    BrokerSettings,
    GatewaySettings,
    LaneSettings,
    ReaderSettings,
    TelemetrySettings,
    load,
)
from coordinator.runtime.telemetry import configure_logging
from coordinator.service.errors import ConfigurationError
from coordinator.transports.rabbitmq.writes import RabbitWrites
from gateways.registry import GATEWAYS

log = structlog.get_logger("gateway")


@click.command(context_settings={"auto_envvar_prefix": "GATEWAY"})
@click.argument("service", type=click.Choice(sorted(GATEWAYS)), envvar=())
@click.option("--host", default="127.0.0.1", show_default=True, show_envvar=True, help="The address to listen on.")
@click.option(
    "--port",
    default=8081,
    type=click.IntRange(0, 65535),
    show_default=True,
    show_envvar=True,
    help="The port to listen on; 0 takes a free one and logs it.",
)
def main(service: str, host: str, port: int) -> None:
    """Serve SERVICE over REST until SIGTERM or SIGINT.

    Its settings are environment variables: docs/OPERATING.md lists them.
    """
    try:
        configure_logging(load(TelemetrySettings), f"gateway-{service}")
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(_serve(GATEWAYS[service], host, port))
    except ConfigurationError as error:
        click.echo(f"gateway {service}: {error}", err=True)
        sys.exit(2)
    except Exception:
        log.exception("process_failed", service=service)
        sys.exit(1)


async def _serve(gateway: Gateway, host: str, port: int) -> None:
    settings, broker = load(GatewaySettings), load(BrokerSettings)
    check_fit(broker, settings, load(LaneSettings))
    reader = load(ReaderSettings, prefix=f"{gateway.name.upper()}_")
    database = open_database(reader.url(gateway.name), settings.read_pool_max)
    command_log = gateway.open_log(database)
    writes = RabbitWrites(
        broker,
        confirm_timeout_s=settings.confirm_timeout_s,
        wait_s=settings.wait_s,
        in_flight_max=settings.in_flight_max,
        log=command_log,
        name=f"gateway.{gateway.name}",
        is_system=gateway.is_system,
    )

    async def connections(_app: web.Application) -> AsyncIterator[None]:
        await writes.start()
        yield
        try:
            await writes.close()
        finally:
            await close_database(database)

    app = create_app(
        gateway,
        Dependencies(database=database, writes=writes, command_log=command_log, settings=settings),
    )
    app.cleanup_ctx.append(connections)
    await serve_until_stopped(app, host, port, writes.failed)
