"""Real servers for the tests: containers where Docker answers, private processes of this machine otherwise.

Nothing here skips: a server that cannot be had fails the run.
"""

import dataclasses
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from typing import NamedTuple

from coordinator.dev.docker import engine_answers
from coordinator.dev.install import Installation, NeededProgram
from coordinator.dev.plan import wanted_of
from coordinator.dev.servers.addresses import ADMINISTRATOR
from coordinator.dev.servers.programs import find
from coordinator.dev.servers.rabbitmq import RabbitMQ
from coordinator.dev.servers.server_set import ServerSet, remove_data
from coordinator.registry import Registry
from gateways.app import APP
from tests.support.accounts import accounts_of_tests

Environment = dict[str, str]
REFERENCE_APP = "gateways.app:APP"


class Running(NamedTuple):
    """Servers that run."""

    environment: Environment
    """Their addresses, as the settings of our processes, with the rights that those need and no others."""
    administrators: Environment
    """The same of those who may do everything."""
    servers: ServerSet | None
    """The processes, where they are ours to kill."""


def quorum_queues_are_noted(broker: RabbitMQ) -> bool:
    """Whether every quorum queue that is declared survives a SIGKILL of a broker that is a process of ours.

    RabbitMQ 3.10 notes a new one in a file up to half a second after it has confirmed the declaration; killed
    before, it forgets the queue with all that is in it. Folders say less: that of a queue which was deleted while
    this node was down stays.
    """
    members = re.findall(r'<<"([^"]+)">>', broker.control("eval", "ra_directory:list_registered(quorum_queues)."))
    (names,) = broker.data.glob("*/quorum/*/names.dets")
    noted = names.read_bytes()
    return all(member.encode() in noted for member in members)


def install_amqp_tools(log_path: Path) -> str:
    """The path of `amqp-publish`, a client that is not ours."""
    Installation(print, log_path, (NeededProgram(("amqp-publish",), "amqp-tools"),)).run()
    program = find("amqp-publish")
    assert program is not None
    return str(program)


WRK = NeededProgram(("wrk",), "wrk")
"""The load generator of the benchmark's HTTP rows."""


def reference_servers(directory: Path) -> ServerSet:
    """Processes of this machine: all that the reference system wants."""
    return ServerSet.native(directory, dataclasses.replace(wanted_of(Registry(APP)), accounts=accounts_of_tests()))


def administrators_of(servers: ServerSet) -> Environment:
    """The settings that name all their servers, as those who may do everything have them."""
    owners = {
        setting.replace("_MIGRATION_", "_DATABASE_"): url for setting, url in servers.migration_environment().items()
    }
    return servers.environment(ADMINISTRATOR) | owners | {"REDIS_URL": servers.redis.administrator_url}


@contextmanager
def running_servers() -> Iterator[Running]:
    """All servers."""
    if engine_answers():
        # Docker's client is loaded only where there is an engine.
        from tests.support.containers import running_containers

        with running_containers() as (environment, administrators):
            yield Running(environment, administrators, None)
        return
    # Not under pytest's own folder, which other users, PostgreSQL's among them, cannot enter.
    directory = Path(tempfile.mkdtemp(prefix="write-coordinator-tests-"))
    directory.chmod(0o755)
    Installation(print, directory / "install.log").run()
    servers = reference_servers(directory)
    try:
        servers.start()
        yield Running(servers.environment() | {"REDIS_URL": servers.redis.url}, administrators_of(servers), servers)
    finally:
        servers.stop()
        remove_data(directory)
        rmtree(directory, ignore_errors=True)
