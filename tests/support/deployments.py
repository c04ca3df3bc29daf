"""The reference system in each of the ways in which it may run, for tests that do not care in which.

A test has its addresses, keys of callers, and an operator's commands. It sees no database and no broker.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeAlias, get_args

from click.testing import CliRunner

from coordinator.cli import cli
from tests.support.callers import key_of
from tests.support.monolith import SERVICES, Monolith
from tests.support.servers import Environment
from tests.support.system import System

Way: TypeAlias = Literal["rabbitmq", "redis", "in_process", "mixed"]
"""Processes behind RabbitMQ; behind Redis; one process; one service behind RabbitMQ and the others in one process."""
WAYS: Final[tuple[Way, ...]] = get_args(Way)
ELSEWHERE: Final = "users"
"""The service that is not in the one process, where they are mixed."""
_SETTINGS: Final = {"EFFECTS_RETRY_DELAY_S": "0.05", "EFFECTS_RETRY_DELAY_S_MAX": "0.2", "STRIPE_SPENT_KEY_S": "1"}
"""As by default, in less time."""
_KEYS: Final = {"ACCESS_KEYS_REFRESH_S": "0.2"}


class Deployment(Protocol):
    """A running system with all three services, and a provider that charges nobody."""

    @property
    def urls(self) -> Mapping[str, str]:
        """The gateway of each service, and the `sandbox`."""

    def environment_of(self, service: str) -> Environment:
        """The settings of an operator of this service."""


def operate(deployment: Deployment, service: str, *arguments: object, status: int = 0) -> Any:
    """What an operator's command prints, as JSON; blocking. It must end with this status."""
    environment: dict[str, str | None] = {"AMQP_URL": None, "BROKER_URL": None}
    environment |= deployment.environment_of(service)
    ran = CliRunner().invoke(cli, [*map(str, arguments), "--json"], env=environment)
    assert ran.exit_code == status, (arguments, ran.exit_code, ran.stdout, ran.stderr, ran.exception)
    return json.loads(ran.stdout)


def new_key(deployment: Deployment, subject: str, service: str) -> str:
    """The text of a new key of somebody without any scope, which this service knows soon; blocking."""
    return key_of(subject, {service: deployment.environment_of(service)[f"{service.upper()}_DATABASE_URL"]})


@contextmanager
def deployed(way: Way, folder: Path, made_system: Callable[[], System]) -> Iterator[Deployment]:
    """The system in this way; `made_system` has servers made, and whoever asks for it stops what it started."""
    match way:
        case "rabbitmq" | "redis":
            yield _ManyProcesses(made_system())
        case "in_process":
            with _running(Monolith(folder, **_KEYS, **_SETTINGS)) as monolith:
                yield _OneProcess(monolith)
        case "mixed":
            system = made_system()
            system.prepare(*SERVICES)
            system.start_coordinator(ELSEWHERE)
            system.start_gateway(ELSEWHERE)
            broker = {"AMQP_URL": system.administrators["AMQP_URL"], "DEV_ELSEWHERE": ELSEWHERE}
            with _running(Monolith(folder, **broker, **_KEYS, **_SETTINGS)) as monolith:
                yield _Mixed(system, _OneProcess(monolith))


@contextmanager
def _running(monolith: Monolith) -> Iterator[Monolith]:
    try:
        monolith.start()
        monolith.admit_caller()
        yield monolith
        assert monolith.stop() == 0
    finally:
        if monolith.process is not None:
            monolith.process.kill()


class _ManyProcesses:
    """A coordinator and a gateway for each service, on servers."""

    def __init__(self, system: System) -> None:
        self._system = system
        self.urls = system.urls
        system.prepare(*SERVICES)
        system.start_sandbox()
        system.start_coordinators(*SERVICES)
        for service in SERVICES:
            system.start_gateway(service)
        system.start_effects("payments", **_SETTINGS)

    def environment_of(self, service: str) -> Environment:
        return self._system.operator_environment


class _OneProcess:
    def __init__(self, monolith: Monolith) -> None:
        self._monolith = monolith
        self.urls = monolith.urls

    def environment_of(self, service: str) -> Environment:
        return self._monolith.environment


class _Mixed:
    def __init__(self, system: System, inside: _OneProcess) -> None:
        self._system = system
        self._inside = inside
        self.urls = inside.urls | {ELSEWHERE: system.urls[ELSEWHERE]}

    def environment_of(self, service: str) -> Environment:
        return self._system.operator_environment if service == ELSEWHERE else self._inside.environment_of(service)
