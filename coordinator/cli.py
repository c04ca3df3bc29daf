"""The command line: what runs the system. `commands_elsewhere` has the operator's commands, and an administrator's.

A command's imports happen when it is run: a lane that runs for months has no drivers but its own in memory, and whoever
asks for help waits for nothing.
"""

import sys

import click

from coordinator.arguments import (
    ANNOUNCED,
    APP,
    CALLING_SERVICE,
    COORDINATORS,
    GATEWAY,
    LANE,
    TEXT,
    Whole,
    listening_options,
)
from coordinator.commands_elsewhere import LoadingGroup
from coordinator.ending import run as run_command
from coordinator.ending import say_on_error
from coordinator.registry import registry
from coordinator.runtime.extras import naming_the_extra
from coordinator.runtime.standard_streams import keep_standard_descriptors
from coordinator.runtime.tracing import recording_spans
from coordinator.service.errors import ConfigurationError
from coordinator.service.lane_names import service_of, settings_prefix
from coordinator.service.targets import Targets

# ruff: noqa: PLC0415

EXIT_CONFIGURATION = 2


@click.group(cls=LoadingGroup, context_settings={"help_option_names": ["-h", "--help"]}, example="dev seats:seats")
@click.version_option(package_name="write-coordinator")
@APP
def cli() -> None:
    """Ordered, exactly-once writes: one lane per database."""


@cli.command(example="run seats --metrics-port 9101", short_help="Apply the commands of LANES.")
@click.argument("lanes", nargs=-1, required=True, type=LANE)
@click.option("--metrics-port", type=Whole(1, 65535), help="Serve /healthz, /readyz and /metrics there.")
def run(lanes: tuple[str, ...], metrics_port: int | None) -> None:
    """Apply the commands of LANES. Started more than once, the others stand by.

    Several lanes in one process share its memory and its metrics port; one that ends leaves the others running.
    """
    from coordinator.worker.lanes_together import run as run_together
    from coordinator.worker.process import run as run_alone

    services = [registry().service(lane) for lane in dict.fromkeys(lanes)]
    process = f"coordinator {services[0].name}" if len(services) == 1 else "coordinator"
    _log_as(process)
    with recording_spans(process):
        status = run_alone(services[0], metrics_port) if len(services) == 1 else run_together(services, metrics_port)
    sys.exit(status)


@cli.command(example="effects orders --metrics-port 9111", short_help="Make the calls to the outside for SERVICE.")
@click.argument("service", type=CALLING_SERVICE)
@click.option("--metrics-port", type=Whole(1, 65535), help="Serve /healthz, /readyz and /metrics there.")
def effects(service: str, metrics_port: int | None) -> None:
    """Make the calls to the outside that SERVICE's lane asks for. Started more than once, all of them work."""
    from coordinator.effects.process import run as run_effects

    _log_as(f"effects {service}")
    with recording_spans(f"effects {service}"):
        status = run_effects(registry().service(service), metrics_port)
    sys.exit(status)


@cli.command(example="ingress --metrics-port 9121", short_help="Hand on commands of outside accounts.")
@click.option("--metrics-port", type=Whole(1, 65535), help="Serve /healthz, /readyz and /metrics there.")
def ingress(metrics_port: int | None) -> None:
    """Hand on to lanes what the accounts of INGRESS_ACCOUNTS publish, within their limits.

    They are accounts of RabbitMQ whose owners are not trusted with the exchange `writes`. Started more than once, the
    others stand by.
    """
    from coordinator.ingress.process import run as run_ingress

    _log_as("ingress")
    with recording_spans("ingress"):
        status = run_ingress(metrics_port)
    sys.exit(status)


@cli.command(example="migrate", short_help="Bring the databases of LANES to the schema they need.")
@click.argument("lanes", nargs=-1, type=LANE)
@click.option(
    "--withdraw",
    "withdrawn",
    multiple=True,
    type=ANNOUNCED,
    help="Take back that a release has TYPE, or versions of it above VERSION: none is left. May be given again.",
)
@click.option("--reason", type=TEXT, help="Why: kept with who does it, for `audit --operators`.")
@click.option(
    "--print-revision", is_flag=True, help="Only print which revisions they have, and which this release wants."
)
def migrate(
    lanes: tuple[str, ...], withdrawn: tuple[tuple[str, int | None], ...], reason: str | None, *, print_revision: bool
) -> None:
    """Bring the databases of LANES (all, if none is named) to the schema that this release needs.

    With --print-revision nothing is changed, and the exit status is 1 where a database has another revision.
    """
    from coordinator.migrations.migrate import migrate as migrate_service
    from coordinator.operate.migrated import record_migration
    from coordinator.operate.output import reason as checked_reason
    from coordinator.runtime.loading import check_all, fitting
    from coordinator.runtime.settings import DatabaseSettings, load
    from coordinator.stores.announcements import Withdrawal, check_withdrawals

    if print_revision and (withdrawn or reason is not None):
        raise click.UsageError("--print-revision changes nothing: leave --withdraw and --reason out")
    reason = None if reason is None else checked_reason(reason)
    _log_as("migrate")
    known = registry()
    withdrawals: dict[str, list[Withdrawal]] = {name: [] for name in known.names if not lanes or name in lanes}
    for kind, version in withdrawn:
        service = kind.partition(".")[0]
        its_lanes = [lane for lane in withdrawals if service_of(lane) == service]
        if not its_lanes:
            text = f"{kind} is of service {service}, and no lane of it is among LANES."
            raise click.BadParameter(text, param_hint="'--withdraw'")
        for lane in its_lanes:
            withdrawals[lane].append(Withdrawal(kind, version))
    # All of them, before any database is changed.
    for name, of_lane in withdrawals.items():
        check_withdrawals(known.service(name), of_lane)
    try:
        check_all(*((DatabaseSettings, settings_prefix(name)) for name in withdrawals))
    except ConfigurationError as error:
        alone = [] if lanes else fitting(DatabaseSettings, *map(settings_prefix, withdrawals))
        names = " ".join(name for name in withdrawals if settings_prefix(name) in alone)
        hint = f"; no lane was named, so all are meant: `coordinator migrate {names}` leaves out the rest"
        raise ConfigurationError(f"{error}{hint if names else ''}") from None
    if print_revision:
        from coordinator.operate.migrated import print_revisions

        sys.exit(print_revisions([known.service(name) for name in withdrawals]))
    for name, of_lane in withdrawals.items():
        settings = load(DatabaseSettings, prefix=settings_prefix(name))
        migrate_service(known.service(name), settings, of_lane)
        record_migration(known.service(name), settings, of_lane, reason)


@cli.command(example="gateway seats --port 8081", short_help="Serve SERVICE over REST.")
@click.argument("service", nargs=-1, required=True, type=GATEWAY)
@listening_options("GATEWAY", 8081)
def gateway(service: tuple[str, ...], host: str, port: int, metrics_port: int | None) -> None:
    """Serve SERVICE over REST until SIGTERM, SIGINT or SIGHUP.

    Of a service with tenants, SERVICE is all of them, or several are named: seats-acme seats-bolt. Each request is then
    for the tenant whose name its host begins with, as acme.example.org does, and /metrics is at --metrics-port alone.
    """
    from coordinator.http.main import Offered, Tenants, serve

    known = registry()
    lanes = list(dict.fromkeys(lane for name in service for lane in known.gateways_of(name)))
    if len(set(map(service_of, lanes))) > 1:
        raise click.BadParameter("several must be of tenants of one service.", param_hint="'SERVICE...'")
    offered = []
    for lane in lanes:
        made = known.gateway(lane)
        targets = Targets(lane, known.names)
        taken = dict.fromkeys((lane, *(targets.of(command.lane()) for command in made.commands)))
        offered.append(Offered(made, [known.service(each) for each in taken if each in known.names]))
    tenants = None if lanes == [service[0]] else Tenants(known.tenants, known.tenant_of_host)
    sys.exit(serve(offered, host, port, tenants, metrics_port))


@cli.command(example="operations --coordinator http://10.0.0.5:9101", short_help="Serve the pages for operators.")
@click.argument("lanes", nargs=-1, type=LANE)
@listening_options("OPERATIONS", 8080)
@COORDINATORS
def operations(
    lanes: tuple[str, ...], host: str, port: int, metrics_port: int | None, coordinators: tuple[str, ...]
) -> None:
    """Serve the pages for operators of LANES (all, if none is named) until SIGTERM, SIGINT or SIGHUP.

    They show what waits, what failed and why, and do what `pause`, `resume`, `drain`, `cancel` and `dead` do. Its
    settings are those of the operator's commands: AMQP_URL, and the DATABASE_URL of each lane.
    """
    from coordinator.operations.main import serve

    sys.exit(serve(lanes or registry().names, host, port, coordinators, metrics_port))


@cli.command(example="asyncapi > asyncapi.json", looks=True)
def asyncapi() -> None:
    """Print the wire protocol as an AsyncAPI 3.1 document."""
    from coordinator.documents.asyncapi import document, to_json

    click.echo(to_json(document(registry().services)), nl=False)


@cli.command(example="schemas seats", looks=True, short_help="Print the JSON Schemas of the commands of LANES.")
@click.argument("lanes", nargs=-1, type=LANE)
def schemas(lanes: tuple[str, ...]) -> None:
    """Print the JSON Schemas of the commands of LANES (all, if none is named), by type and version.

    They are those of the commands that anybody may send.
    """
    from coordinator.documents.asyncapi import to_json
    from coordinator.service.json_schemas import schemas_of

    known = registry()
    click.echo(to_json(schemas_of([known.service(lane) for lane in lanes or known.names])), nl=False)


def _log_as(process: str) -> None:
    """Send the log of this process to standard error, as the settings say. Raises ConfigurationError."""
    from coordinator.runtime.log_lines import configure_logging
    from coordinator.runtime.settings import TelemetrySettings, load

    configure_logging(load(TelemetrySettings), process)


def main(command: str | None = None, program: str | None = None) -> None:
    """The console script, or one of its commands as a program of its own, called `program`.

    Errors of configuration are one line on standard error and exit status 2.
    """
    keep_standard_descriptors()
    try:
        with naming_the_extra():
            run_command(cli if command is None else cli.commands[command], program)
    except ConfigurationError as error:
        say_on_error(str(error))
        sys.exit(EXIT_CONFIGURATION)
