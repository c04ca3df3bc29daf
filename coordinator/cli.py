"""The command line: `coordinator run`, `migrate`, `dev`, `asyncapi`, and the operator's commands."""

import sys

import click

from coordinator.asyncapi import document, to_json
from coordinator.dev.cli import dev
from coordinator.effects.process import run as run_effects
from coordinator.migrate import migrate as migrate_service
from coordinator.operate.cli import COMMANDS as OPERATORS_COMMANDS
from coordinator.process import run as run_lane
from shared.errors import ConfigurationError
from shared.services import SERVICES, service_named
from shared.settings import DatabaseSettings, TelemetrySettings, load
from shared.telemetry import configure_logging

EXIT_CONFIGURATION = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="write-coordinator")
def cli() -> None:
    """Ordered, exactly-once writes: one lane per database."""


@cli.command()
@click.argument("lane", type=click.Choice([service.name for service in SERVICES]))
@click.option("--metrics-port", type=click.IntRange(1, 65535), help="Serve /healthz, /readyz and /metrics there.")
def run(lane: str, metrics_port: int | None) -> None:
    """Apply the commands of LANE. Started more than once, the others stand by."""
    configure_logging(load(TelemetrySettings), f"coordinator {lane}")
    sys.exit(run_lane(service_named(lane), metrics_port))


@cli.command()
@click.argument("service", type=click.Choice([service.name for service in SERVICES if service.effects is not None]))
@click.option("--metrics-port", type=click.IntRange(1, 65535), help="Serve /healthz, /readyz and /metrics there.")
def effects(service: str, metrics_port: int | None) -> None:
    """Make the calls to the outside that SERVICE's lane asks for. Started more than once, all of them work."""
    configure_logging(load(TelemetrySettings), f"effects {service}")
    sys.exit(run_effects(service_named(service), metrics_port))


@cli.command()
@click.argument("lanes", nargs=-1, type=click.Choice([service.name for service in SERVICES]))
def migrate(lanes: tuple[str, ...]) -> None:
    """Bring the databases of LANES (all, if none is named) to the schema that this release needs."""
    configure_logging(load(TelemetrySettings), "migrate")
    for service in SERVICES:
        if not lanes or service.name in lanes:
            migrate_service(service, load(DatabaseSettings, prefix=f"{service.name.upper()}_"))


@cli.command()
def asyncapi() -> None:
    """Print the wire protocol as an AsyncAPI document."""
    click.echo(to_json(document()), nl=False)


cli.add_command(dev)
for operators_command in OPERATORS_COMMANDS:
    cli.add_command(operators_command)


def main() -> None:
    """The console script: errors of configuration are one line on standard error and exit status 2."""
    try:
        cli()
    except ConfigurationError as error:
        click.echo(f"coordinator: {error}", err=True)
        sys.exit(EXIT_CONFIGURATION)
