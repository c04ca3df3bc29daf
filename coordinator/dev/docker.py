"""The servers as containers of compose.yaml, published on the ports that the native ones would have."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from coordinator.dev.servers.addresses import ACCOUNT, ServerPorts, Wanted, environment, migration_environment
from coordinator.dev.servers.process import Process
from coordinator.dev.servers.server import Server
from coordinator.service.errors import ConfigurationError
from coordinator.transports.rabbitmq.definitions import definitions, password_hash
from coordinator.transports.rabbitmq.rights import OPERATOR

SERVICES: Final = {"postgresql": "postgres", "mysql": "mysql", "mongodb": "mongodb", "redis": "redis"}
"""What compose.yaml calls each kind of server. The broker is its `rabbitmq`."""
# Docker 25: `start_interval` of a health check. An older engine refuses the whole file.
_API_LEAST = (1, 44)
# The content of `configs`, and several mappings merged into one.
_COMPOSE_LEAST = (2, 24)
_ANSWER_TIMEOUT_S = 5.0
_UP_TIMEOUT_S = 900.0  # the first time, images are pulled
_STOP_TIMEOUT_S = 60.0
# By way of a file, which the broker's own user may read, too: its rabbitmqctl waits for ever for the end of a pipe.
_IMPORT: Final = (
    'file=$(mktemp) && chmod 644 "$file" && cat > "$file" && rabbitmqctl import_definitions "$file"; '
    'status=$?; rm -f "$file"; exit $status'
)


def engine_answers() -> bool:
    """Whether Docker's engine and its compose plugin answer within 5 s, and are new enough for compose.yaml."""
    docker = shutil.which("docker")
    return (
        docker is not None
        and _version([docker, "version", "--format", "{{.Server.APIVersion}}"]) >= _API_LEAST
        and _version([docker, "compose", "version", "--short"]) >= _COMPOSE_LEAST
    )


class DockerServers:
    """As a ServerSet, but Docker watches over the processes. All ports must be given."""

    servers: tuple[Server, ...] = ()
    notes: tuple[str, ...] = ()

    def __init__(self, compose_file: Path, project: str, wanted: Wanted, ports: ServerPorts, log_path: Path) -> None:
        self._compose_file = compose_file
        self._project = project
        self._wanted = wanted
        self._services = ("rabbitmq", *(SERVICES[kind] for kind in wanted.kinds))
        self._ports = ports
        self._log_path = log_path
        self._command: Process | None = None

    def start(self, report: Callable[[str, float], None] | None = None) -> None:
        """Start them, and return when Docker calls all of them healthy.

        Raises ConfigurationError with the end of Docker's output.
        """
        started = time.monotonic()
        self._compose("up", "--detach", "--wait", *self._services, timeout_s=_UP_TIMEOUT_S)
        self._make_accounts()
        self._make_databases()
        if report is not None:
            report(f"{', '.join(self._services)} in Docker", time.monotonic() - started)

    def stop(self) -> None:
        """Stop the containers; their data stays in volumes."""
        self._compose("stop", *self._services, timeout_s=_STOP_TIMEOUT_S)

    def kill(self) -> None:
        """Interrupt start() or stop(). Containers that have started go on until stop()."""
        if self._command is not None:
            self._command.kill()

    def remove(self) -> None:
        """Remove the containers and their data."""
        self._compose("down", "--volumes", timeout_s=_STOP_TIMEOUT_S)

    def environment(self, account: str = OPERATOR) -> dict[str, str]:
        """The settings with which our processes find them, the broker by this account of it."""
        return environment(self._wanted, self._ports, account)

    def migration_environment(self) -> dict[str, str]:
        """What `coordinator migrate` alone gets beside it."""
        return migration_environment(self._wanted, self._ports)

    def _make_accounts(self) -> None:
        """The broker's accounts, with the rights that this application needs: compose.yaml knows one system's only.

        Raises ConfigurationError with what Docker says.
        """
        made = definitions(
            self._wanted.accounts, "/", {each.name: password_hash(each.name) for each in self._wanted.accounts}
        )
        command = [*self._command_line, "exec", "--no-TTY", "rabbitmq", "sh", "-c", _IMPORT]
        try:
            done = subprocess.run(
                command,
                input=json.dumps(made),
                env={**os.environ, **self._settings},
                capture_output=True,
                check=False,
                text=True,
                timeout=_STOP_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            raise ConfigurationError(f"{' '.join(command)}: no end within {_STOP_TIMEOUT_S:.0f} s") from None
        if done.returncode != 0:
            raise ConfigurationError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")

    def _make_databases(self) -> None:
        """The databases that compose.yaml does not create, since it knows the services of one system only."""
        databases, ports = self._wanted, self._ports
        if ports.postgresql and databases.of("postgresql"):
            from coordinator.dev.servers import postgresql  # noqa: PLC0415  # only its driver is needed

            postgresql.make_databases(ports.postgresql, databases.of("postgresql"))
        if ports.mysql and databases.of("mysql"):
            from coordinator.dev.servers import mysql  # noqa: PLC0415  # likewise

            password = os.environ.get("MYSQL_ROOT_PASSWORD") or ACCOUNT
            mysql.make_databases(ports.mysql, databases.of("mysql"), root_password=password)

    @property
    def _settings(self) -> dict[str, str]:
        given = {name: port for name, port in dataclasses.asdict(self._ports).items() if port is not None}
        settings = {f"DEV_{name.upper()}_PORT": str(port) for name, port in given.items()}
        if self._wanted.cache_keys:
            from coordinator.cache.rights import acl_keys, reader_acl_keys  # noqa: PLC0415  # likewise

            settings["REDIS_KEYS"] = acl_keys(self._wanted.cache_keys)
            settings["REDIS_READER_KEYS"] = reader_acl_keys(self._wanted.cache_keys)
        return settings

    @property
    def _command_line(self) -> list[str]:
        return ["docker", "compose", "--project-name", self._project, "--file", str(self._compose_file)]

    def _compose(self, *arguments: str, timeout_s: float) -> None:
        command = [*self._command_line, *arguments]
        self._command = Process(command, log_path=self._log_path, environment={**os.environ, **self._settings})
        if not self._command.wait(timeout_s) or self._command.exit_status != 0:
            status = self._command.status
            self._command.kill()
            raise ConfigurationError(f"{' '.join(command)}: {status}\n{self._command.log_tail()}")


def _version(command: list[str]) -> tuple[int, ...]:
    """The version that a command prints, such as `v2.26.1-4`. Empty, and so lower than any, if it prints none."""
    try:
        done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=_ANSWER_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return ()
    printed = re.match(r"v?(\d+)\.(\d+)", done.stdout)
    return tuple(int(part) for part in printed.groups()) if printed and done.returncode == 0 else ()
