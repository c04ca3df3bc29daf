"""The command line: `coordinator run`, `migrate`, `dev`, `asyncapi`, and the operator's commands.

What a command needs is imported when it is run: a lane that stays for months holds no drivers but its own.
"""

import sys

import click

from coordinator.dev.cli import dev
from coordinator.runtime.settings import DatabaseSettings, TelemetrySettings, load
from coordinator.runtime.telemetry import configure_logging
from coordinator.service.errors import ConfigurationError
from shared.services import SERVICES, service_named

# ruff: noqa: PLC0415

EXIT_CONFIGURATION = 2


class _Commands(click.Group):
    """Those of this module, and the operator's."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_operators_commands()])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) or _operators_commands().get(cmd_name)


def _operators_commands() -> dict[str, click.Command]:
    from coordinator.operate.cli import COMMANDS

    return {str(command.name): command for command in COMMANDS}


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="write-coordinator")
def cli() -> None:
    """Ordered, exactly-once writes: one lane per database."""


@cli.command()
@click.argument("lane", type=click.Choice([service.name for service in SERVICES]))
@click.option("--metrics-port", type=click.IntRange(1, 65535), help="Serve /healthz, /readyz and /metrics there.")
def run(lane: str, metrics_port: int | None) -> None:
    """Apply the commands of LANE. Started more than once, the others stand by."""
    from coordinator.worker.process import run as run_lane

    configure_logging(load(TelemetrySettings), f"coordinator {lane}")
    sys.exit(run_lane(service_named(lane), metrics_port))


@cli.command()
@click.argument("service", type=click.Choice([service.name for service in SERVICES if service.effects is not None]))
@click.option("--metrics-port", type=click.IntRange(1, 65535), help="Serve /healthz, /readyz and /metrics there.")
def effects(service: str, metrics_port: int | None) -> None:
    """Make the calls to the outside that SERVICE's lane asks for. Started more than once, all of them work."""
    from coordinator.effects.process import run as run_effects

    configure_logging(load(TelemetrySettings), f"effects {service}")
    sys.exit(run_effects(service_named(service), metrics_port))


@cli.command()
@click.argument("lanes", nargs=-1, type=click.Choice([service.name for service in SERVICES]))
def migrate(lanes: tuple[str, ...]) -> None:
    """Bring the databases of LANES (all, if none is named) to the schema that this release needs."""
    from coordinator.migrations.migrate import migrate as migrate_service

    configure_logging(load(TelemetrySettings), "migrate")
    for service in SERVICES:
        if not lanes or service.name in lanes:
            migrate_service(service, load(DatabaseSettings, prefix=f"{service.name.upper()}_"))


@cli.command()
def asyncapi() -> None:
    """Print the wire protocol as an AsyncAPI document."""
    from coordinator.documents.asyncapi import document, to_json

    click.echo(to_json(document()), nl=False)


cli.add_command(dev)


def main() -> None:
    """The console script: errors of configuration are one line on standard error and exit status 2."""
    try:
        cli()
    except ConfigurationError as error:
        click.echo(f"coordinator: {error}", err=True)
        sys.exit(EXIT_CONFIGURATION)
