"""Real servers for the tests: containers where Docker answers, private processes of this machine otherwise.

Nothing here skips: a server that cannot be had fails the run.
"""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shutil import rmtree

from coordinator.dev.docker import engine_answers
from coordinator.dev.install import Installation, NeededProgram
from coordinator.dev.plan import wanted_of
from coordinator.dev.servers import Server, ServerSet, remove_data
from coordinator.dev.servers.programs import find
from coordinator.registry import Registry
from gateways.app import APP

Environment = dict[str, str]
REFERENCE_APP = "gateways.app:APP"


def quorum_queues_are_noted(broker: Server) -> bool:
    """Whether every quorum queue that is declared survives a SIGKILL of a broker that is a process of ours.

    RabbitMQ 3.10 notes a new one in a file up to half a second after it has confirmed the declaration; killed
    before, it forgets the queue with all that is in it.
    """
    (names,) = broker.data.glob("*/quorum/*/names.dets")
    noted = names.read_bytes()
    return all(folder.name.encode() in noted for folder in names.parent.iterdir() if folder.is_dir())


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
    return ServerSet.native(directory, wanted_of(Registry(APP)))


@contextmanager
def running_servers() -> Iterator[tuple[Environment, ServerSet | None]]:
    """The addresses of all servers, as settings; and the processes, where they are ours to kill."""
    if engine_answers():
        with _containers() as environment:
            yield environment, None
        return
    # Not under pytest's own folder, which other users, PostgreSQL's among them, cannot enter.
    directory = Path(tempfile.mkdtemp(prefix="write-coordinator-tests-"))
    directory.chmod(0o755)
    Installation(print, directory / "install.log").run()
    servers = reference_servers(directory)
    try:
        servers.start()
        yield servers.environment(), servers
    finally:
        servers.stop()
        remove_data(directory)
        rmtree(directory, ignore_errors=True)


@contextmanager
def _containers() -> Iterator[Environment]:
    from testcontainers.mongodb import MongoDbContainer
    from testcontainers.mysql import MySqlContainer
    from testcontainers.postgres import PostgresContainer
    from testcontainers.rabbitmq import RabbitMqContainer
    from testcontainers.redis import RedisContainer

    with ExitStack() as stack:
        rabbitmq = stack.enter_context(RabbitMqContainer("rabbitmq:4.2.6"))
        postgres = stack.enter_context(
            PostgresContainer("postgres:17", username="coordinator", password="coordinator", dbname="users")
        )
        mysql = stack.enter_context(
            MySqlContainer("mysql:8.4", username="root", password="coordinator", dbname="payments")
        )
        mongodb = MongoDbContainer("mongo:8.0", username="", password="").with_command("--replSet rs0")
        stack.enter_context(mongodb)
        mongodb.exec(["mongosh", "--quiet", "--eval", "rs.initiate()"])
        redis = stack.enter_context(RedisContainer("redis:7"))
        pg = f"{postgres.get_container_host_ip()}:{postgres.get_exposed_port(5432)}"
        my = f"{mysql.get_container_host_ip()}:{mysql.get_exposed_port(3306)}"
        mongo = f"{mongodb.get_container_host_ip()}:{mongodb.get_exposed_port(27017)}"
        amqp = f"{rabbitmq.get_container_host_ip()}:{rabbitmq.get_exposed_port(5672)}"
        yield {
            "AMQP_URL": f"amqp://guest:guest@{amqp}/%2F",
            "USERS_DATABASE_URL": f"postgresql://coordinator:coordinator@{pg}/users",
            "USERS_READER_URL": f"postgresql://users_reader:users_reader@{pg}/users",
            "PAYMENTS_DATABASE_URL": f"mysql://root:coordinator@{my}/payments",
            "PAYMENTS_READER_URL": f"mysql://payments_reader:payments_reader@{my}/payments",
            "ITEMS_DATABASE_URL": f"mongodb://{mongo}/items?directConnection=true",
            "ITEMS_READER_URL": f"mongodb://{mongo}/items?directConnection=true",
            "REDIS_URL": f"redis://{redis.get_container_host_ip()}:{redis.get_exposed_port(6379)}/0",
        }
