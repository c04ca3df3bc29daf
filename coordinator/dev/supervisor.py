"""`coordinator dev`: the whole system on one machine, until Ctrl-C.

The main thread only waits (watch.py) and decides. Blocking work is done in another thread, and a signal calls it
off. Servers start first and stop last; in between every process that dies is reported and started again.
"""

import collections
import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Literal, TypeVar

from coordinator.access.opening import check_access
from coordinator.access.settings import AccessSettings
from coordinator.dev import docker, helpers, install, programs
from coordinator.dev.key import development_key, page_of
from coordinator.dev.members import Member, Servers, end_of_log, report, say
from coordinator.dev.plan import Plan, check_ports, kept_names, plan_of, server_ports
from coordinator.dev.servers.addresses import BROKER_SETTINGS, COMPOSE_FILE
from coordinator.dev.servers.server_set import ServerSet
from coordinator.dev.services import BrokerKind
from coordinator.dev.settings import DevSettings, check_speaks_http, load_settings
from coordinator.dev.watch import Watch
from coordinator.dev.workspace import Workspace
from coordinator.registry import APP_SETTING, registry
from coordinator.runtime.settings import GatewaySettings, TelemetrySettings, load
from coordinator.service.errors import ConfigurationError
from coordinator.service.lane_names import settings_prefix
from coordinator.service.unhandled import how_to_handle, unhandled_commands
from coordinator.transports.rabbitmq.rights import OPERATOR

DEATHS_MAX = 3
DEATHS_WINDOW_S = 60.0
READY_TIMEOUT_S = 60.0
MIGRATE_TIMEOUT_S = 120.0
_READY_INTERVAL_S = 0.1

_Result = TypeVar("_Result")


class _StopRequested(Exception):
    """A signal came."""


class _GaveUp(Exception):
    """A process does not live. It has been reported."""


def run(servers: Literal["auto", "docker", "native"], directory: Path) -> int:
    """Run the system in the foreground; return the exit status: 0 when a signal ended it, 1 when it gave up.

    No process of it runs when this returns. Raises ConfigurationError if it cannot start.
    """
    settings = load_settings()
    if settings.elsewhere:
        raise ConfigurationError(
            "DEV_ELSEWHERE is for a run in one process (`coordinator dev module:NAME`), and this one starts all "
            "services on servers: unset it"
        )
    check_speaks_http("coordinator dev", GatewaySettings, TelemetrySettings)
    check_access(load(AccessSettings), settings.host)
    known = registry()
    workspace = Workspace(directory, kept_names(known))
    with workspace.locked(), Watch() as watch:
        try:
            plan = plan_of(known, settings, workspace.directory, os.environ)
            in_docker = _use_docker(servers, plan.broker_kind)
            # In Docker they publish their ports by themselves.
            check_ports([*([] if in_docker else server_ports(settings, plan.wanted)), *plan.ports])
        except ConfigurationError:
            if workspace.is_new:
                workspace.remove()
            raise
        return Supervisor(settings, plan, workspace, watch, in_docker=in_docker).run()


class Supervisor:
    """One run."""

    def __init__(
        self, settings: DevSettings, plan: Plan, workspace: Workspace, watch: Watch, *, in_docker: bool
    ) -> None:
        self._settings = settings
        self._plan = plan
        self._workspace = workspace
        self._watch = watch
        self._in_docker = in_docker
        self._servers: Servers | None = None
        self._helpers = helpers.programs(plan.helpers, workspace.logs)
        self._coordinators = programs.coordinators(plan.services, workspace.logs)
        self._workers = programs.effect_workers(plan.services, workspace.logs)
        self._ingresses = programs.ingresses(plan.ingress, workspace.logs)
        self._gateways = programs.gateways(plan.services, workspace.logs)
        self._operations = programs.operations(plan.services, plan.operations, workspace.logs)
        self._watched: list[Member] = []
        self._deaths: dict[str, collections.deque[float]] = {}

    def run(self) -> int:
        """Start, supervise, stop."""
        try:
            self._start()
            self._supervise()
        except _StopRequested:
            return 0
        except _GaveUp:
            return 1
        except ConfigurationError as error:
            # Before all that is said of the end.
            say(str(error), is_error=True)
            return 2
        finally:
            self._stop()
        return 0

    def _start(self) -> None:
        say(f"logs are in {self._workspace.logs}")
        self._servers = self._make_servers()
        self._aside(functools.partial(self._servers.start, report), self._servers.kill)
        for note in self._servers.notes:
            say(f"note: {note}")
        others = helpers.environment(self._plan.helpers)
        others |= {APP_SETTING: os.environ.get(APP_SETTING, "")} | self._plan.account_settings
        with self._workspace.used():
            others |= helpers.kept_environment(self._plan.secrets, self._workspace.directory, os.environ)
        key = development_key(registry().services, self._workspace)
        if key is not None:
            others |= key.environment
        # With the owner's addresses, which no process below gets: `coordinator migrate` is done by hand, too.
        migrating = self._servers.environment() | self._servers.migration_environment() | others
        # For `coordinator find`: our processes have each other's addresses as arguments, where they need them.
        health = {"OPERATIONS_COORDINATORS": " ".join(programs.health_endpoints(self._plan.services))}
        self._workspace.write_environment(migrating | health)
        self._watched += self._servers.servers
        self._migrate(migrating)
        if key is not None:
            key.give_to({name: migrating[f"{settings_prefix(name)}DATABASE_URL"] for name in registry().names})
        started = time.monotonic()
        inner = [*self._helpers, *self._coordinators, *self._workers]
        members = [*inner, *self._ingresses, *self._gateways, self._operations]
        own = {program.name: self._servers.environment(program.account or OPERATOR) for program in members}
        addresses = set(BROKER_SETTINGS).union(*own.values(), self._servers.migration_environment())
        for program in members:
            program.withheld = frozenset(addresses)
            program.environment = programs.own_environment(program, own[program.name], others)
            self._workspace.write_program(program.name, program.environment, addresses.difference(program.environment))
        for program in members:
            program.start()
            self._watched.append(program)
        self._supervise(until_ready=members)
        report(
            f"{_counted(self._coordinators, 'coordinator')}, {_counted(self._workers, 'effect worker')}, "
            f"{_counted(self._gateways, 'gateway')}",
            time.monotonic() - started,
        )
        for service in registry().services:
            for command in unhandled_commands(service):
                say(f"note: {command.type} has no handler: {how_to_handle(service, command)}")
        say(f"  {self._operations.name:<20} {page_of(self._operations.shown_url, key)}")
        for program in (*self._gateways, *self._coordinators, *self._workers, *self._ingresses, *self._helpers):
            say(f"  {program.name:<20} {program.shown_url}")
        if key is not None:
            say(f"callers need a key, since rules ask who they are: Authorization: Bearer {key.text}")
        say(f"addresses of the servers, an operator's and the owner's: {self._workspace.sourcing}")
        say(f"as another process has them: {self._workspace.sourcing_of('NAME')}, such as {self._coordinators[0].name}")
        say("Ctrl-C stops everything; a second Ctrl-C kills it")

    def _make_servers(self) -> Servers:
        ports, wanted = self._settings.server_ports(), self._plan.wanted
        if self._in_docker:
            return docker.DockerServers(
                COMPOSE_FILE, self._settings.docker_project, wanted, ports, self._workspace.docker_log
            )
        installation = install.Installation(say, self._workspace.logs / "apt.log", install.needed(wanted))
        self._aside(installation.run, installation.kill)
        with self._workspace.used():
            owner_password = self._workspace.owner_password()
        return ServerSet.native(self._workspace.servers, wanted, ports, owner_password=owner_password)

    def _migrate(self, environment: dict[str, str]) -> None:
        """And then the least rights of the roles, which migrations leave to an administrator."""
        started = time.monotonic()
        self._run_to_end("migrate", programs.migrate_command(), environment)
        report("migrations", time.monotonic() - started)
        if lanes := self._plan.wanted.with_roles:
            started = time.monotonic()
            self._run_to_end("database-accounts", programs.accounts_command(lanes), environment)
            report(f"roles of {', '.join(lanes)}", time.monotonic() - started)

    def _run_to_end(self, name: str, argv: list[str], environment: dict[str, str]) -> None:
        """As the owner of the databases, and without the broker."""
        log_path = self._workspace.logs / f"{name}.log"
        program = programs.Program(name, argv, base_url="", log_path=log_path, stop_timeout_s=0)
        program.environment, program.withheld = environment, BROKER_SETTINGS
        program.start()
        ended = self._aside(functools.partial(program.wait, MIGRATE_TIMEOUT_S), program.kill)
        if not ended or program.status != "exit status 0":
            self._report_death(program)
            program.kill()
            raise _GaveUp

    def _supervise(self, until_ready: Sequence[programs.Program] | None = None) -> None:
        """Keep everything alive: until these are ready, or for ever."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        waiting = list(until_ready or ())
        while until_ready is None or waiting:
            for member in self._watched:
                if not member.alive:
                    self._revive(member)
            waiting = [program for program in waiting if not program.ready]
            if waiting and time.monotonic() > deadline:
                for program in waiting:
                    say(f"{program.title} is not ready after {READY_TIMEOUT_S:.0f} s; {end_of_log(program)}")
                raise _GaveUp
            pids = [pid for member in self._watched for pid in member.pids]
            self._watch.wait(pids, None if until_ready is None else _READY_INTERVAL_S)
            self._check_stop()

    def _revive(self, member: Member) -> None:
        self._report_death(member)
        if isinstance(member, programs.Program) and member.status == programs.REFUSED:
            say(f"{member.title} cannot run as it is configured, and starting it again changes nothing: giving up")
            raise _GaveUp
        now = time.monotonic()
        deaths = self._deaths.setdefault(member.name, collections.deque(maxlen=DEATHS_MAX + 1))
        deaths.append(now)
        if len(deaths) > DEATHS_MAX and now - deaths[0] <= DEATHS_WINDOW_S:
            say(
                f"{member.title} died {len(deaths)} times within {DEATHS_WINDOW_S:.0f} s: giving up (one that you kill "
                "yourself counts, too)"
            )
            raise _GaveUp
        try:
            self._aside(member.start, member.kill)
        except ConfigurationError as error:
            say(str(error))
            raise _GaveUp from None
        report(f"{member.title} started again", time.monotonic() - now)

    def _report_death(self, member: Member) -> None:
        say(f"{member.title} died: {member.status}; {end_of_log(member)}")

    def _aside(self, work: Callable[[], _Result], call_off: Callable[[], None]) -> _Result:
        """Do blocking work in another thread. When a signal comes, call it off."""
        with ThreadPoolExecutor(1) as thread:
            future = thread.submit(work)
            future.add_done_callback(lambda _: self._watch.wake())
            while not future.done():
                self._watch.wait()
                if self._watch.stop_requested:
                    # Repeated, since the work may be between two steps, with nothing to call off yet.
                    while wait([future], timeout=0.1).not_done:
                        call_off()
            self._check_stop()
            return future.result()

    def _check_stop(self) -> None:
        if self._watch.stop_requested:
            raise _StopRequested

    def _stop(self) -> None:
        """Gateways, workers, coordinators, helpers, then servers; at the second signal, all at once by SIGKILL."""
        say(f"stopping: {self._watch.stop_signal or 'giving up'}")
        started = time.monotonic()
        with ThreadPoolExecutor(1) as thread:
            stopping = thread.submit(self._stop_in_order)
            stopping.add_done_callback(lambda _: self._watch.wake())
            while not stopping.done():
                self._watch.wait()
                if self._watch.kill_requested:
                    while wait([stopping], timeout=0.1).not_done:
                        self._kill()
            with contextlib.suppress(ConfigurationError):
                stopping.result()
        report("stopped", time.monotonic() - started)

    def _stop_in_order(self) -> None:
        _stop_all([*self._gateways, *self._ingresses, self._operations])
        _stop_all(self._workers)
        _stop_all(self._coordinators)
        _stop_all(self._helpers)
        if self._servers is not None:
            self._servers.stop()

    def _kill(self) -> None:
        outer = (self._operations, *self._gateways, *self._ingresses)
        for program in (*outer, *self._workers, *self._coordinators, *self._helpers):
            program.kill()
        if self._servers is not None:
            self._servers.kill()


def _counted(members: Sequence[Member], what: str) -> str:
    return f"{len(members)} {what}{'' if len(members) == 1 else 's'}"


def _stop_all(members: Iterable[Member]) -> None:
    with ThreadPoolExecutor() as threads:
        for stopped in [threads.submit(member.stop) for member in members]:
            stopped.result()


def _use_docker(servers: Literal["auto", "docker", "native"], broker: BrokerKind) -> bool:
    if servers == "docker" and broker != "rabbitmq":
        raise ConfigurationError(
            f"DEV_BROKER={broker}: {COMPOSE_FILE.name} has RabbitMQ as the broker; use --servers native"
        )
    if servers == "native" or broker != "rabbitmq":
        return False
    answers = COMPOSE_FILE.exists() and docker.engine_answers()
    if servers == "docker" and not answers:
        raise ConfigurationError(
            "Docker does not answer or is older than 25, or its compose plugin is missing or older than 2.24, or there "
            f"is no {COMPOSE_FILE}; start it, or use --servers native"
        )
    return answers
