"""The command lines that Docker is given, seen by a `docker` that is not one."""

import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from coordinator.dev import docker
from coordinator.dev.docker import DockerServers, engine_answers
from coordinator.dev.servers import mysql, postgresql
from coordinator.dev.servers.addresses import ServerPorts, Wanted
from coordinator.service.errors import ConfigurationError
from coordinator.transports.rabbitmq.definitions import is_hash_of
from coordinator.transports.rabbitmq.rights import BrokerNames, broker_accounts

PORTS = ServerPorts(amqp=1, amqp_dist=2, epmd=3, postgresql=4, mysql=5, mongodb=6, redis=7)
ACCOUNTS = broker_accounts(BrokerNames(lanes=["users"]))
WANTED = Wanted(
    databases={"users": "postgresql", "items": "mongodb", "payments": "mysql"},
    cache_keys=("a:*", "b"),
    accounts=ACCOUNTS,
)
COMPOSE = "compose --project-name of-a-run --file /project/compose.yaml"

IMPORT = f"{COMPOSE} exec --no-TTY rabbitmq sh -c {docker._IMPORT}"

MakeDocker = Callable[..., None]


@pytest.fixture
def make_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeDocker:
    """Puts a script on PATH as `docker`; its calls are noted in tmp_path/calls."""

    def make(script: str = "exit 0") -> None:
        program = tmp_path / "docker"
        program.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/calls\n{script}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return make


def calls(tmp_path: Path) -> list[str]:
    return (tmp_path / "calls").read_text().splitlines()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[int, tuple[str, ...]]:
    """Where databases are asked for, and which; none is made."""
    asked: dict[int, tuple[str, ...]] = {}
    for module in (postgresql, mysql):
        monkeypatch.setattr(module, "make_databases", lambda port, names, **_: asked.update({port: names}))
    return asked


def test_servers_are_started_stopped_and_removed_by_compose(
    tmp_path: Path, make_docker: MakeDocker, made: dict[int, tuple[str, ...]]
) -> None:
    make_docker(
        f"env | grep -E '^(DEV|REDIS)_' | sort > {tmp_path}/environment\n"
        f'case "$*" in *import_definitions*) cat > {tmp_path}/definitions;; esac'
    )
    servers = DockerServers(Path("/project/compose.yaml"), "of-a-run", WANTED, PORTS, tmp_path / "docker.log")
    steps: list[str] = []
    servers.start(lambda what, _seconds: steps.append(what))
    servers.stop()
    servers.remove()
    assert calls(tmp_path) == [
        f"{COMPOSE} up --detach --wait rabbitmq postgres mysql mongodb redis",
        IMPORT,
        f"{COMPOSE} stop rabbitmq postgres mysql mongodb redis",
        f"{COMPOSE} down --volumes",
    ]
    assert (tmp_path / "environment").read_text().split() == [
        "DEV_AMQP_DIST_PORT=2",
        "DEV_AMQP_PORT=1",
        "DEV_EPMD_PORT=3",
        "DEV_MONGODB_PORT=6",
        "DEV_MYSQL_PORT=5",
        "DEV_POSTGRESQL_PORT=4",
        "DEV_REDIS_PORT=7",
        *("REDIS_KEYS=~a:*", "~b"),
        *("REDIS_READER_KEYS=~a:*", "%R~b"),
    ]
    definitions = json.loads((tmp_path / "definitions").read_text())
    assert [each["user"] for each in definitions["permissions"]] == ["users_lane", "operator", "public"]
    assert all(is_hash_of(each["password_hash"], each["name"]) for each in definitions["users"])
    assert steps == ["rabbitmq, postgres, mysql, mongodb, redis in Docker"]
    assert made == {4: ("users",), 5: ("payments",)}


def test_only_the_servers_that_are_wanted_are_started(
    tmp_path: Path, make_docker: MakeDocker, made: dict[int, tuple[str, ...]]
) -> None:
    make_docker()
    wanted = Wanted(databases={"orders": "postgresql", "accounts": "postgresql"})
    servers = DockerServers(Path("/project/compose.yaml"), "of-a-run", wanted, PORTS, tmp_path / "docker.log")
    servers.start()
    assert calls(tmp_path) == [f"{COMPOSE} up --detach --wait rabbitmq postgres", IMPORT]
    assert made == {4: ("orders", "accounts")}
    assert set(servers.environment()) == {
        "AMQP_URL",
        *("ORDERS_DATABASE_URL", "ORDERS_READER_URL", "ACCOUNTS_DATABASE_URL", "ACCOUNTS_READER_URL"),
    }


def test_the_environment_names_the_published_ports(tmp_path: Path) -> None:
    assert DockerServers(Path("compose.yaml"), "of-a-run", WANTED, PORTS, tmp_path / "log").environment() == {
        "AMQP_URL": "amqp://operator:operator@127.0.0.1:1/%2F",
        "USERS_DATABASE_URL": "postgresql://users_lane:users_lane@127.0.0.1:4/users",
        "USERS_READER_URL": "postgresql://users_reader:users_reader@127.0.0.1:4/users",
        "PAYMENTS_DATABASE_URL": "mysql://payments_lane:payments_lane@127.0.0.1:5/payments",
        "PAYMENTS_READER_URL": "mysql://payments_reader:payments_reader@127.0.0.1:5/payments",
        "ITEMS_DATABASE_URL": "mongodb://127.0.0.1:6/items?directConnection=true",
        "ITEMS_READER_URL": "mongodb://127.0.0.1:6/items?directConnection=true",
    }


def test_the_cache_is_for_lanes_and_gateways_which_only_read_its_lease(tmp_path: Path) -> None:
    servers = DockerServers(Path("compose.yaml"), "of-a-run", WANTED, PORTS, tmp_path / "log")
    users = {
        account: urlsplit(servers.environment(account).get("REDIS_URL", "")).username
        for account in ("items_lane", "items_gateway", "payments_effects", "operator", "public")
    }
    assert users == {
        "items_lane": "coordinator",
        "items_gateway": "coordinator_reader",
        **dict.fromkeys(("payments_effects", "operator", "public")),
    }


def test_the_owner_of_the_databases_is_for_migrations_alone(tmp_path: Path) -> None:
    servers = DockerServers(Path("compose.yaml"), "of-a-run", WANTED, PORTS, tmp_path / "log")
    assert servers.migration_environment() == {
        "USERS_MIGRATION_URL": "postgresql://coordinator:coordinator@127.0.0.1:4/users",
        "PAYMENTS_MIGRATION_URL": "mysql://coordinator:coordinator@127.0.0.1:5/payments",
    }


def test_what_docker_says_when_it_fails_is_passed_on(tmp_path: Path, make_docker: MakeDocker) -> None:
    make_docker("echo no such image; exit 3")
    servers = DockerServers(Path("compose.yaml"), "of-a-run", WANTED, PORTS, tmp_path / "docker.log")
    with pytest.raises(ConfigurationError, match=r"(?s)exit status 3.*no such image"):
        servers.start()


def versions(api: str, compose: str) -> str:
    return f"case $1 in version) echo {api};; compose) echo {compose};; esac"


@pytest.mark.parametrize(
    ("script", "answers"),
    [
        (versions("1.44", "2.24.0"), True),
        (versions("1.51", "v2.40.3-desktop.1"), True),
        (versions("2.0", "10.0"), True),
        (versions("1.41", "2.26.1-4"), False),
        (versions("1.47", "2.9.0"), False),
        (versions("1.47", "") + "; [ $1 = version ]", False),
        ("exit 1", False),
        ("exec sleep 60", False),
    ],
    ids=["the least", "newer", "much newer", "old engine", "old compose", "no compose", "no engine", "engine hangs"],
)
def test_an_engine_answers_if_it_and_the_compose_plugin_are_there_and_new_enough(
    make_docker: MakeDocker, monkeypatch: pytest.MonkeyPatch, script: str, *, answers: bool
) -> None:
    monkeypatch.setattr(docker, "_ANSWER_TIMEOUT_S", 0.5)
    make_docker(script)
    assert engine_answers() is answers


def test_a_machine_without_docker_has_no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert engine_answers() is False
