"""The command `coordinator dev`."""

import sys
from pathlib import Path
from typing import Literal

import click

from coordinator.arguments import APP
from coordinator.service.errors import ConfigurationError


@click.command()
@APP
@click.option(
    "--servers",
    type=click.Choice(["auto", "docker", "native"]),
    default="auto",
    show_default=True,
    help="Where RabbitMQ and the databases run; auto: in Docker, if it answers and is new enough.",
)
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Data, logs and addresses.  [default: DEV_DIRECTORY, or .dev]",
)
@click.option("--clean", is_flag=True, help="Remove the data of earlier runs, and do not run.")
def dev(servers: Literal["auto", "docker", "native"], directory: Path | None, *, clean: bool) -> None:
    """Run the whole system on this machine: servers, coordinators, gateways. Ctrl-C stops it."""
    from coordinator.dev import supervisor  # noqa: PLC0415 - its drivers are many, and other commands need none
    from coordinator.dev.settings import load_settings  # noqa: PLC0415

    try:
        where = directory or load_settings().directory
        if clean:
            supervisor.clean(where)
        else:
            sys.exit(supervisor.run(servers, where))
    except ConfigurationError as error:
        click.echo(str(error), err=True)
        sys.exit(2)
