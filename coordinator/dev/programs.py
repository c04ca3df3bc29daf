"""Our own processes of a run: a coordinator for each database, a gateway for each service."""

import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Collection, Mapping, Sequence
from http import HTTPStatus
from itertools import chain
from pathlib import Path

from coordinator.dev.plan import PlannedPort, PlannedService
from coordinator.dev.servers.addresses import BROKER_SETTINGS, HOST
from coordinator.dev.servers.process import Process
from coordinator.lane.tenancy import PAUSED
from coordinator.runtime.loading import FILE
from coordinator.service.lane_names import settings_prefix
from coordinator.transports.rabbitmq.rights import INGRESS, OPERATOR, effects_account, gateway_account, lane_account

REFUSED = "exit status 2"
"""The exit status of a program of ours with a wrong configuration."""
_COORDINATOR = (sys.executable, "-m", "coordinator")
_PROBE_TIMEOUT_S = 2.0
_GATEWAY_STOP_TIMEOUT_S = 15.0
_COORDINATOR_STOP_TIMEOUT_S = 45.0  # longer than twice LANE_STOP_TIMEOUT_S


class Program:
    """One process. It is ready when `GET {base_url}{ready_path}` answers 200."""

    def __init__(
        self,
        name: str,
        argv: list[str],
        *,
        base_url: str,
        log_path: Path,
        stop_timeout_s: float,
        ready_path: str = "/readyz",
        shown_path: str = "",
        account: str | None = None,
        reaches: Collection[str] = (),
    ) -> None:
        self.name = name
        self.title = name
        self.argv = argv
        self.base_url = base_url
        self.shown_url = f"{base_url}{shown_path}"
        """The address that the user may open."""
        self.log_path = log_path
        self.account = account
        """The broker's account that it has; None: it speaks to no broker."""
        self.reaches = frozenset(reaches)
        """The settings of addresses that it gets, beside the broker's."""
        self.environment: Mapping[str, str] = {}
        self.withheld: Collection[str] = ()
        """The settings that it does not get from our own environment."""
        self._ready_url = f"{base_url}{ready_path}"
        self._stop_timeout_s = stop_timeout_s
        self._process: Process | None = None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.alive

    @property
    def pids(self) -> list[int]:
        return [self._process.pid] if self._process else []

    @property
    def status(self) -> str:
        return self._process.status if self._process else "not started"

    @property
    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(self._ready_url, timeout=_PROBE_TIMEOUT_S) as answer:
                return answer.status == HTTPStatus.OK and self.alive
        except urllib.error.HTTPError as answer:
            # A paused lane stays so until somebody resumes it, for which its servers have to run.
            with answer:
                return PAUSED.encode() in answer.read() and self.alive
        except OSError:  # refused, timed out, or an answer other than 2xx
            return False

    def log_tail(self) -> str:
        return self._process.log_tail() if self._process else ""

    def start(self) -> None:
        """Start it, without waiting until it is ready."""
        # A value of ours takes the place of one that a file has, and of one whose name is not in capitals.
        replaced = {*self.environment, *self.withheld}
        others = {name: value for name, value in os.environ.items() if name.upper().removesuffix(FILE) not in replaced}
        environment = {**others, **self.environment, "PYTHONUNBUFFERED": "1"}
        self._process = Process(self.argv, log_path=self.log_path, environment=environment)

    def wait(self, timeout_s: float) -> bool:
        """Whether it has ended within the time."""
        return self._process is None or self._process.wait(timeout_s)

    def stop(self) -> None:
        """Ask it to stop, and kill it if it takes too long. Idempotent."""
        if self._process is not None:
            self._process.stop(signal.SIGTERM, self._stop_timeout_s)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()


def migrate_command() -> list[str]:
    """Creates the tables and the reader roles of all services."""
    return [*_COORDINATOR, "migrate"]


def accounts_command(lanes: Sequence[str]) -> list[str]:
    """Makes the roles of these lanes and of their readers what the documents say that they are."""
    return [*_COORDINATOR, "database-accounts", *lanes, "--apply"]


def coordinators(services: Sequence[PlannedService], logs: Path) -> list[Program]:
    """A coordinator for each service's database."""
    return [
        Program(
            f"coordinator-{service.name}",
            [*_COORDINATOR, "run", service.name, "--metrics-port", str(service.metrics.number)],
            base_url=f"http://{HOST}:{service.metrics.number}",
            shown_path="/metrics",
            log_path=logs / f"coordinator-{service.name}.log",
            stop_timeout_s=_COORDINATOR_STOP_TIMEOUT_S,
            account=lane_account(service.name),
            reaches={f"{settings_prefix(service.name)}DATABASE_URL", *_cache(service)},
        )
        for service in services
    ]


def effect_workers(services: Sequence[PlannedService], logs: Path) -> list[Program]:
    """An effect worker for each service that makes calls to the outside."""
    return [
        Program(
            f"effects-{service.name}",
            [*_COORDINATOR, "effects", service.name, "--metrics-port", str(service.effects.number)],
            base_url=f"http://{HOST}:{service.effects.number}",
            shown_path="/metrics",
            log_path=logs / f"effects-{service.name}.log",
            stop_timeout_s=_COORDINATOR_STOP_TIMEOUT_S,
            account=effects_account(service.name),
        )
        for service in services
        if service.effects is not None
    ]


def ingresses(port: PlannedPort | None, logs: Path) -> list[Program]:
    """The ingress, where there are outside accounts."""
    if port is None:
        return []
    return [
        Program(
            "ingress",
            [*_COORDINATOR, "ingress", "--metrics-port", str(port.number)],
            base_url=port.url,
            shown_path="/metrics",
            log_path=logs / "ingress.log",
            stop_timeout_s=_COORDINATOR_STOP_TIMEOUT_S,
            account=INGRESS,
        )
    ]


def gateways(services: Sequence[PlannedService], logs: Path) -> list[Program]:
    """A process for each service that has a gateway."""
    return [
        Program(
            f"gateway-{service.name}",
            [
                *(*_COORDINATOR, "gateway", service.name),
                *("--host", service.gateway.host, "--port", str(service.gateway.number)),
            ],
            base_url=service.gateway_url,
            log_path=logs / f"gateway-{service.name}.log",
            stop_timeout_s=_GATEWAY_STOP_TIMEOUT_S,
            account=gateway_account(service.name),
            reaches={f"{settings_prefix(service.name)}READER_URL", *_cache(service)},
        )
        for service in services
        if service.gateway is not None
    ]


def operations(services: Sequence[PlannedService], port: PlannedPort, logs: Path) -> Program:
    """The operations gateway: it has the accounts of an operator, and asks coordinators and workers how they are."""
    coordinators = (("--coordinator", url) for url in health_endpoints(services))
    return Program(
        "operations",
        [*_COORDINATOR, "operations", "--host", port.host, "--port", str(port.number), *chain(*coordinators)],
        base_url=port.url,
        log_path=logs / "operations.log",
        stop_timeout_s=_GATEWAY_STOP_TIMEOUT_S,
        account=OPERATOR,
        reaches={
            f"{settings_prefix(service.name)}{kind}_URL" for service in services for kind in ("DATABASE", "READER")
        },
    )


def health_endpoints(services: Sequence[PlannedService]) -> list[str]:
    """Where coordinators and effect workers say how they are."""
    ports = [port for service in services for port in (service.metrics, service.effects) if port is not None]
    return [f"http://{HOST}:{port.number}" for port in ports]


def _cache(service: PlannedService) -> Sequence[str]:
    return () if service.declared.cache is None else ("REDIS_URL",)


def own_environment(program: Program, servers: Mapping[str, str], others: Mapping[str, str]) -> dict[str, str]:
    """The settings of one process: of the servers' addresses those that it needs, the broker's with its own account.

    `servers` have the addresses, as of that account; `others` are the settings that all processes get.
    """
    reached = program.reaches if program.account is None else program.reaches.union(BROKER_SETTINGS)
    return {**others, **{name: url for name, url in servers.items() if name in reached}}
