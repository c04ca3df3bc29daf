"""Our own processes of a run: a coordinator for each database, a gateway for each service."""

import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Collection, Mapping
from http import HTTPStatus
from pathlib import Path

from coordinator.dev.servers.process import Process
from coordinator.dev.settings import DevSettings

_PROBE_TIMEOUT_S = 2.0
_GATEWAY_STOP_TIMEOUT_S = 15.0
_COORDINATOR_STOP_TIMEOUT_S = 45.0  # longer than twice LANE_STOP_TIMEOUT_S


class Program:
    """One of them. Ready when `GET {base_url}/readyz` answers 200."""

    def __init__(self, name: str, argv: list[str], *, base_url: str, log_path: Path, stop_timeout_s: float) -> None:
        self.name = name
        self.title = name
        self.argv = argv
        self.base_url = base_url
        self.log_path = log_path
        self.environment: Mapping[str, str] = {}
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
            with urllib.request.urlopen(f"{self.base_url}/readyz", timeout=_PROBE_TIMEOUT_S) as answer:
                return answer.status == HTTPStatus.OK and self.alive
        except OSError:  # refused, timed out, or an answer other than 2xx
            return False

    def log_tail(self) -> str:
        return self._process.log_tail() if self._process else ""

    def start(self) -> None:
        """Start it; whether it is ready shows later."""
        environment = {**os.environ, **self.environment, "PYTHONUNBUFFERED": "1"}
        self._process = Process(self.argv, log_path=self.log_path, environment=environment)

    def wait(self, timeout_s: float) -> bool:
        """Whether it has ended within the time."""
        return self._process is None or self._process.wait(timeout_s)

    def stop(self) -> None:
        """Ask it to stop, kill it when it takes too long. Idempotent."""
        if self._process is not None:
            self._process.stop(signal.SIGTERM, self._stop_timeout_s)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()


def migrate_command() -> list[str]:
    """Makes the tables and the reader roles of all services."""
    return [sys.executable, "-m", "coordinator", "migrate"]


def coordinators(settings: DevSettings, services: tuple[str, ...], logs: Path) -> list[Program]:
    """One for each service's database."""
    return [
        Program(
            f"coordinator-{service}",
            [sys.executable, "-m", "coordinator", "run", service, "--metrics-port", str(port)],
            base_url=f"http://127.0.0.1:{port}",
            log_path=logs / f"coordinator-{service}.log",
            stop_timeout_s=_COORDINATOR_STOP_TIMEOUT_S,
        )
        for position, service in enumerate(services)
        for port in [settings.metrics_port(service, position)]
    ]


def effect_workers(
    settings: DevSettings, services: tuple[str, ...], calling: Collection[str], logs: Path
) -> list[Program]:
    """One for each of those services that make calls to the outside."""
    return [
        Program(
            f"effects-{service}",
            [sys.executable, "-m", "coordinator", "effects", service, "--metrics-port", str(port)],
            base_url=f"http://127.0.0.1:{port}",
            log_path=logs / f"effects-{service}.log",
            stop_timeout_s=_COORDINATOR_STOP_TIMEOUT_S,
        )
        for position, service in enumerate(services)
        if service in calling
        for port in [settings.effects_port(service, position)]
    ]


def gateways(settings: DevSettings, services: tuple[str, ...], served: Collection[str], logs: Path) -> list[Program]:
    """One for each of those services that have a gateway."""
    reached_at = "127.0.0.1" if settings.host == "0.0.0.0" else settings.host
    return [
        Program(
            f"gateway-{service}",
            [sys.executable, "-m", "coordinator", "gateway", service, "--host", settings.host, "--port", str(port)],
            base_url=f"http://{reached_at}:{port}",
            log_path=logs / f"gateway-{service}.log",
            stop_timeout_s=_GATEWAY_STOP_TIMEOUT_S,
        )
        for position, service in enumerate(services)
        if service in served
        for port in [settings.gateway_port(service, position)]
    ]
