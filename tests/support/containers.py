"""The servers of compose.yaml, each in a container of its own that lives as long as a test session.

Everything of them is compose.yaml's: image, command, accounts, configuration, and the health check that is waited for.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import ExecWaitStrategy

from coordinator.transports.rabbitmq.definitions import definitions, password_hash
from tests.support.accounts import accounts_of_tests
from tests.support.compose_file import read_compose_file

_PORTS: Final = {"rabbitmq": 5672, "postgres": 5432, "mysql": 3306, "mongodb": 27017, "redis": 6379}


@contextmanager
def running_containers() -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """Start them all, and yield their addresses as settings: of our processes, and of those who may do everything."""
    compose = read_compose_file()
    containers = {name: _container(name, compose) for name in _PORTS}
    with ExitStack() as stack:
        for container in containers.values():
            stack.callback(container.stop)
        with ThreadPoolExecutor(len(containers)) as threads:
            list(threads.map(lambda container: container.start(), containers.values()))
        at = {
            name: f"{container.get_container_host_ip()}:{container.get_exposed_port(_PORTS[name])}"
            for name, container in containers.items()
        }
        # Tests make databases, which in MySQL's image only root may.
        root = f"root:{compose['services']['mysql']['environment']['MYSQL_ROOT_PASSWORD']}"
        environment = {
            "AMQP_URL": f"amqp://operator:operator@{at['rabbitmq']}/%2F",
            "USERS_DATABASE_URL": f"postgresql://users_lane:users_lane@{at['postgres']}/users",
            "USERS_READER_URL": f"postgresql://users_reader:users_reader@{at['postgres']}/users",
            "PAYMENTS_DATABASE_URL": f"mysql://payments_lane:payments_lane@{at['mysql']}/payments",
            "PAYMENTS_READER_URL": f"mysql://payments_reader:payments_reader@{at['mysql']}/payments",
            "ITEMS_DATABASE_URL": f"mongodb://{at['mongodb']}/items?directConnection=true",
            "ITEMS_READER_URL": f"mongodb://{at['mongodb']}/items?directConnection=true",
            "REDIS_URL": f"redis://coordinator:coordinator@{at['redis']}/0",
        }
        yield (
            environment,
            environment
            | {
                "USERS_DATABASE_URL": f"postgresql://coordinator:coordinator@{at['postgres']}/users",
                "PAYMENTS_DATABASE_URL": f"mysql://{root}@{at['mysql']}/payments",
                "AMQP_URL": f"amqp://administrator:administrator@{at['rabbitmq']}/%2F",
                "REDIS_URL": f"redis://administrator:administrator@{at['redis']}/0",
            },
        )


def _with_accounts_of_tests(content: str) -> str:
    """Other applications run on the same broker, too."""
    accounts = accounts_of_tests()
    hashes = {account.name: password_hash(account.name) for account in accounts}
    ours, made = json.loads(content), definitions(accounts, "/", hashes)
    others = {account.name for account in accounts} - {each["name"] for each in ours["users"]}
    ours["users"] += [each for each in made["users"] if each["name"] in others]
    ours["permissions"] += [each for each in made["permissions"] if each["user"] in others]
    return json.dumps(ours)


def _container(name: str, compose: dict[str, Any]) -> DockerContainer:
    service = compose["services"][name]
    container = DockerContainer(service["image"], env=dict(service.get("environment", {})), ports=[_PORTS[name]])
    container.with_kwargs(hostname=name)
    if "command" in service:
        container.with_command(service["command"])
    for config in service.get("configs", []):
        content = compose["configs"][config["source"]]["content"]
        if config["source"] == "rabbitmq-accounts":
            content = _with_accounts_of_tests(content)
        container.with_copy_into_container(content.encode(), config["target"])
    how, *check = service["healthcheck"]["test"]
    container.waiting_for(ExecWaitStrategy(["sh", "-c", *check] if how == "CMD-SHELL" else check))
    return container
