"""The compose.yaml that `coordinator new` makes, without containers: its processes work with its accounts."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest
import yaml

from coordinator.dev.new import make_project
from coordinator.dev.servers.ports import free_port
from coordinator.dev.servers.process import Process
from tests.support.compose_file import interpolated
from tests.support.databases import FreshDatabases
from tests.support.managed_rabbitmq import ManagedRabbitMQ
from tests.support.system import wait_ready, wait_until

# It has a broker of its own.
pytestmark = [pytest.mark.xdist_group("broker_accounts"), pytest.mark.authors]


class Composed:
    """Runs the services of a compose.yaml as processes of this machine, each with just its environment."""

    def __init__(self, project: Path, at: dict[str, str], owner: str) -> None:
        """`at` has the host and port of each server; the database is that of this owner's address."""
        self._services: dict[str, Any] = interpolated(yaml.safe_load((project / "compose.yaml").read_text()))[
            "services"
        ]
        self._project = project
        self._at = at
        self._owner = urlsplit(owner)

    @contextmanager
    def running(self, name: str, *arguments: str) -> Iterator[Process]:
        """Its command, with what follows it here in the place of ports and hosts."""
        service = self._services[name]
        command = [*service["command"][: 2 if arguments else None], *arguments]
        own = {setting: self._here(value) for setting, value in service["environment"].items()}
        paths = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{self._project}:{os.environ.get('PYTHONPATH', '')}"}
        process = Process(
            [sys.executable, "-m", "coordinator", *command],
            log_path=self._project / f"{name}.log",
            environment=paths | {"COORDINATOR_APP": "shop.seats:seats", "PYTHONUNBUFFERED": "1"} | own,
            directory=self._project,
        )
        try:
            yield process
        finally:
            process.stop(signal.SIGTERM, 20.0)

    def run(self, name: str, *arguments: str) -> str:
        """To its end."""
        with self.running(name, *arguments) as process:
            assert process.wait(60), process.log_tail(40)
            assert process.exit_status == 0, process.log_tail(40)
            return process.log_tail(200)

    def _here(self, value: str) -> str:
        address = urlsplit(value)
        if address.hostname not in ("rabbitmq", "redis", "postgres"):
            return value
        if address.hostname == "postgres":
            if address.username == "owner":
                return self._owner.geturl()
            # A server of tests has such roles already, with other passwords.
            who = f"made_{address.username}:{address.password}@{self._owner.hostname}:{self._owner.port}"
            return address._replace(netloc=who, path=self._owner.path).geturl()
        who = "" if address.username is None else f"{address.username}:{address.password}@"
        return address._replace(netloc=f"{who}{self._at[address.scheme]}").geturl()


@pytest.fixture
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManagedRabbitMQ]:
    made = ManagedRabbitMQ(tmp_path_factory.mktemp("broker"))
    made.start()
    yield made
    made.kill()


def test_its_processes_work_with_the_least_rights(
    broker: ManagedRabbitMQ, databases: FreshDatabases, tmp_path: Path
) -> None:
    at = {"amqp": f"127.0.0.1:{broker.port}", "http": f"127.0.0.1:{broker.management_port}"}
    check_it_works(Composed(make_project("shop", tmp_path / "shop"), at, databases.new("USERS_DATABASE_URL")))


def test_they_do_so_on_redis(databases: FreshDatabases, tmp_path: Path) -> None:
    """With the command of its Redis, whose users are still there when it starts again."""
    project = make_project("shop", tmp_path / "shop", broker="redis")
    at = {"redis": f"127.0.0.1:{free_port()}"}
    composed = Composed(project, at, databases.new("USERS_DATABASE_URL"))
    with redis_of(project, at["redis"]):
        check_it_works(composed)
    with redis_of(project, at["redis"]):
        assert "seats" in composed.run("operator")
        composed.run("accounts", "--check")


@contextmanager
def redis_of(project: Path, at: str) -> Iterator[None]:
    """The server of a compose.yaml, by its own command and health check, at that address of this machine."""
    service = interpolated(yaml.safe_load((project / "compose.yaml").read_text()))["services"]["redis"]
    host, _, port = at.partition(":")
    data, programs = project / "redis-data", project / "programs"
    data.mkdir(exist_ok=True)
    programs.mkdir(exist_ok=True)
    for name, line in {
        "docker-entrypoint.sh": f'"$@" --bind {host} --port {port}',
        "redis-cli": f'{shutil.which("redis-cli")} -h {host} -p {port} "$@"',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\nexec {line}\n")
        (programs / name).chmod(0o755)
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", **service["environment"]}
    healthy = ["sh", "-c", service["healthcheck"]["test"][1]]
    server = Process(service["command"], log_path=project / "redis.log", environment=environment, directory=data)
    try:
        wait_until(lambda: subprocess.run(healthy, env=environment, check=False).returncode == 0, "Redis is healthy")
        yield
    finally:
        server.stop(signal.SIGTERM, 20.0)


def check_it_works(composed: Composed) -> None:
    for _ in range(2):
        composed.run("accounts")
        composed.run("migrate")
        composed.run("roles")
    metrics, port = free_port(), free_port()
    with (
        composed.running("coordinator", "--metrics-port", str(metrics)) as lane,
        composed.running("gateway", "--port", str(port)) as gateway,
    ):
        wait_ready(f"http://127.0.0.1:{metrics}/readyz", lane)
        wait_ready(f"http://127.0.0.1:{port}/readyz", gateway)
        request = Request(
            f"http://127.0.0.1:{port}/seats/commands/add", b'{"place": "A1"}', {"Content-Type": "application/json"}
        )
        with urlopen(request, timeout=20) as answer:
            added = json.load(answer)
        with urlopen(f"http://127.0.0.1:{port}/seats/seats/{added['id']}", timeout=20) as answer:
            assert json.load(answer)["place"] == "A1"
        assert "seats" in composed.run("operator")
