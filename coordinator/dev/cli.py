"""The command `coordinator dev`."""

import sys
from pathlib import Path
from typing import Literal

import click

from coordinator.arguments import APP, FOLDER, TEXT
from coordinator.exemplified import Exemplified
from coordinator.registry import use
from coordinator.service.errors import ConfigurationError


@click.command(cls=Exemplified, example="dev seats:seats")
@click.argument("target", metavar="[MODULE:NAME]", required=False, type=TEXT)
@APP
@click.option(
    "--servers",
    type=click.Choice(["auto", "docker", "native"]),
    default=None,
    help="Where RabbitMQ and the databases run; auto: in Docker, if it answers and is new enough.  "
    "[default: auto, and without any server for MODULE:NAME]",
)
@click.option(
    "--dir",
    "directory",
    type=FOLDER,
    default=None,
    help="Data, logs and addresses.  [default: DEV_DIRECTORY, or .dev]",
)
@click.option("--clean", is_flag=True, help="Remove the data of earlier runs, and do not run.")
def dev(
    target: str | None, servers: Literal["auto", "docker", "native"] | None, directory: Path | None, *, clean: bool
) -> None:
    """Run the whole system on this machine: servers, coordinators, gateways. Ctrl-C stops it.

    With MODULE:NAME, a service or an application, it is one process on SQLite files, and needs no server; with
    --servers too, that service is run on servers.
    """
    from coordinator.dev.settings import load_settings  # noqa: PLC0415

    try:
        if target is not None:
            use(target)
        where = directory or load_settings().directory
        if clean:
            from coordinator.dev import cleaning  # noqa: PLC0415 - what cleans loads what runs

            cleaning.clean(where)
        elif target is not None and servers is None:
            from coordinator.dev import one_process  # noqa: PLC0415 - nor does it load those of servers

            sys.exit(one_process.run(where))
        else:
            from coordinator.dev import supervisor  # noqa: PLC0415 - its drivers are many, and other commands need none

            sys.exit(supervisor.run(servers or "auto", where))
    except ConfigurationError as error:
        click.echo(str(error), err=True)
        sys.exit(2)
