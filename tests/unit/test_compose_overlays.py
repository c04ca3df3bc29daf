"""compose.cluster.yaml and compose.redis.yaml over compose.yaml, as far as they can be checked without an engine."""

import json
import re
from typing import Any

import jsonschema
import pytest

from coordinator.accounts.broker_names import broker_names
from coordinator.registry import registry
from coordinator.runtime.addresses import parse_address
from coordinator.runtime.settings import BrokerSettings, DatabaseSettings, LaneSettings, ReaderSettings, load
from coordinator.stores.open import open_store
from coordinator.transports.rabbitmq.driver_arguments import broker_parameters
from coordinator.transports.redis.rights import redis_accounts
from tests.support.compose_file import VARIABLE
from tests.support.compose_overlays import CLUSTER_FILE, REDIS_FILE, laid_over, read_overlay
from tests.unit.test_compose import (
    COMPOSE_SERVICES,
    COORDINATORS,
    GATEWAYS,
    INGRESS,
    NAMES,
    OF_OUR_IMAGE,
    ROOT,
    SCHEMA,
    WORKERS,
)

CLUSTER = laid_over(CLUSTER_FILE)
REDIS = laid_over(REDIS_FILE)
NODES = ("rabbitmq", "rabbitmq-2", "rabbitmq-3")
SCALING = (ROOT / "docs" / "SCALING.md").read_text()
CONNECTED = tuple(name for name, each in COMPOSE_SERVICES.items() if "AMQP_URL" in each.get("environment", {}))


def environment_of(composed: dict[str, Any], name: str) -> dict[str, str]:
    found: dict[str, str] = composed["services"][name]["environment"]
    return found


@pytest.mark.parametrize("composed", [CLUSTER, REDIS], ids=["cluster", "redis"])
def test_it_is_valid_by_the_compose_specification(composed: dict[str, Any]) -> None:
    jsonschema.Draft7Validator(json.loads(SCHEMA.read_text())).validate(composed)


@pytest.mark.parametrize("path", [CLUSTER_FILE, REDIS_FILE], ids=["cluster", "redis"])
def test_every_variable_has_a_default(path: Any) -> None:
    text = path.read_text()
    assert [found for found in re.findall(r"(?<!\$)\$\{[^}\n]*\}", text) if not VARIABLE.fullmatch(found)] == []


@pytest.mark.parametrize("composed", [CLUSTER, REDIS], ids=["cluster", "redis"])
def test_what_is_new_is_confined_as_the_others_are(composed: dict[str, Any]) -> None:
    for name in composed["services"].keys() - COMPOSE_SERVICES.keys():
        service = composed["services"][name]
        assert {"memory", "pids"} == set(service["deploy"]["resources"]["limits"]), name
        assert service["logging"] == COMPOSE_SERVICES["postgres"]["logging"], name
        assert {"interval", "timeout", "retries", "start_period", "start_interval"} < set(service["healthcheck"]), name
        assert service["restart"] == "unless-stopped"
        assert service["image"] in {each["image"] for each in COMPOSE_SERVICES.values()}, name
        assert service["volumes"], name
    used = [volume.partition(":")[0] for each in composed["services"].values() for volume in each.get("volumes", [])]
    assert sorted(used) == sorted(composed["volumes"].keys() - ({"rabbitmq-data"} if composed is REDIS else set()))
    for service in composed["services"].values():
        for dependency in service.get("depends_on", {}):
            assert dependency in composed["services"]


@pytest.mark.parametrize("composed", [CLUSTER, REDIS], ids=["cluster", "redis"])
@pytest.mark.parametrize("name", [*COORDINATORS, *WORKERS, *GATEWAYS])
def test_every_address_is_taken(name: str, composed: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for setting, value in environment_of(composed, name).items():
        monkeypatch.setenv(setting, value)
    service, _, kind = name.partition("-")
    load(BrokerSettings)
    if kind == "coordinator":
        [found] = [each for each in registry().services if each.name == service]
        needs_standby = load(LaneSettings).require_sync_standby
        assert needs_standby == (composed is CLUSTER and service == "users")
        url = load(DatabaseSettings, prefix=f"{service.upper()}_").database_url
        open_store(url, found, needs_standby=needs_standby)
    elif kind == "gateway":
        load(ReaderSettings, prefix=f"{service.upper()}_").url(service)


@pytest.mark.parametrize("name", CONNECTED)
def test_a_process_has_its_account_and_all_nodes_of_the_cluster(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here, below = (
        parse_address(environment_of(each, name)["AMQP_URL"]) for each in (CLUSTER, {"services": COMPOSE_SERVICES})
    )
    assert [str(host) for host in here.hosts] == [f"{node}:5672" for node in NODES]
    assert (here.user, here.password, here.database) == (below.user, below.password, below.database)
    monkeypatch.setenv("AMQP_URL", environment_of(CLUSTER, name)["AMQP_URL"])
    assert len(broker_parameters(load(BrokerSettings), name)) == len(NODES)
    # A queue has members on the nodes that are there when it is declared.
    if name != "operator":
        assert set(NODES) <= CLUSTER["services"][name]["depends_on"].keys()


def test_the_nodes_find_each_other_by_one_cookie_and_are_set_as_the_documents_say() -> None:
    first, *others = (CLUSTER["services"][node] for node in NODES)
    assert [each["hostname"] for each in (first, *others)] == list(NODES)
    for other in others:
        same = ("image", "entrypoint", "secrets", "configs", "healthcheck", "deploy", "stop_grace_period")
        for part in same:
            assert other[part] == [dict(each) for each in first[part]] if part == "configs" else first[part], part
        assert "ports" not in other
    assert CLUSTER["secrets"] == {"rabbitmq-cookie": {"environment": "RABBITMQ_ERLANG_COOKIE"}}
    assert first["secrets"] == ["rabbitmq-cookie"]
    block = SCALING.partition("**The cluster.**")[2].partition("```\n")[2].partition("```")[0]
    of_hosts = dict(zip(("rabbit@a", "rabbit@b", "rabbit@c"), NODES, strict=True))
    expected = re.sub(r"rabbit@[abc]", lambda found: f"rabbit@{of_hosts[found[0]]}", block)
    assert CLUSTER["configs"]["rabbitmq-cluster"]["content"] == expected
    assert CLUSTER["configs"]["rabbitmq-erlang"]["content"].strip() in SCALING


def test_a_changed_configuration_makes_new_nodes() -> None:
    for node in NODES:
        labels = CLUSTER["services"][node]["labels"].values()
        for name in ("rabbitmq-cluster", "rabbitmq-erlang"):
            assert CLUSTER["configs"][name]["content"] in labels, node


def test_two_of_each_process_run() -> None:
    for name in (*COORDINATORS, *WORKERS, INGRESS, *GATEWAYS):
        assert CLUSTER["services"][name]["deploy"]["replicas"] == 2, name
        assert CLUSTER["services"][name]["deploy"]["resources"] == COMPOSE_SERVICES[name]["deploy"]["resources"]


def test_each_commit_waits_for_the_standby_once_there_is_one() -> None:
    standby, primary = CLUSTER["services"]["postgres-standby"], CLUSTER["services"]["postgres"]
    script = CLUSTER["configs"]["postgres-replication"]["content"]
    [name] = re.findall(r"SET synchronous_standby_names = '(\w+)'", script)
    # On the command line it would count while the image fills its volume, when there is no standby yet.
    assert "synchronous_standby_names" not in " ".join(primary["command"])
    conninfo = dict(part.split("=") for part in standby["environment"]["PRIMARY"].split())
    assert conninfo["application_name"] == name
    assert f"cluster_name={name}" in standby["entrypoint"][-1]
    assert f"CREATE ROLE {conninfo['user']} REPLICATION LOGIN PASSWORD '{conninfo['password']}'" in script
    assert conninfo["host"] == "postgres"
    clients = CLUSTER["configs"]["postgres-clients"]["content"]
    assert f"host replication {conninfo['user']} all scram-sha-256\n" in clients
    for server in (standby, primary):
        assert {"source": "postgres-clients", "target": "/etc/postgresql/pg_hba.conf"} in server["configs"]
        assert "hba_file=/etc/postgresql/pg_hba.conf" in " ".join(
            [*server.get("command", []), *server.get("entrypoint", [])]
        )
    # It may become the primary.
    assert "max_connections=200" in standby["entrypoint"][-1]
    assert "max_connections=200" in primary["command"]


def test_who_writes_finds_the_server_that_takes_it_and_who_reads_the_standby_first() -> None:
    found = {
        (name, setting): parse_address(value)
        for name in OF_OUR_IMAGE
        for setting, value in environment_of(CLUSTER, name).items()
        if setting.startswith("USERS_") and setting.endswith("_URL")
    }
    assert len({name for name, _ in found}) > len(NAMES)
    for (name, setting), address in found.items():
        reads = (name, setting) == ("users-gateway", "USERS_READER_URL")
        order = ["postgres-standby:5432", "postgres:5432"] if reads else ["postgres:5432", "postgres-standby:5432"]
        assert [str(host) for host in address.hosts] == order, (name, setting)
        assert address.option("target_session_attrs") == (None if reads else "read-write")
        below = (
            COMPOSE_SERVICES[name]["environment"].get(setting)
            or COMPOSE_SERVICES[name]["environment"]["USERS_READER_URL"]
        )
        assert (address.user, address.password) == (parse_address(below).user, parse_address(below).password)


def test_with_redis_nobody_has_anything_of_rabbitmq() -> None:
    assert "rabbitmq" not in REDIS["services"]
    assert "5672" not in json.dumps(REDIS["services"])
    assert INGRESS not in REDIS["services"]
    for name in set(CONNECTED) - {INGRESS}:
        environment = environment_of(REDIS, name)
        assert "AMQP_URL" not in environment
        address = parse_address(environment["BROKER_URL"])
        assert [str(host) for host in address.hosts] == ["broker:6379"]
        assert (
            address.user
            == address.plain_password
            == parse_address(COMPOSE_SERVICES[name]["environment"]["AMQP_URL"]).user
        )
        before = COMPOSE_SERVICES[name].get("depends_on", {})
        after = {("broker" if key == "rabbitmq" else key): value for key, value in before.items()}
        assert REDIS["services"][name].get("depends_on", {}) == after


def test_the_redis_that_is_the_broker_syncs_each_write_and_has_the_accounts_of_the_product() -> None:
    command = REDIS["services"]["broker"]["command"]
    options = dict(zip(command[2::2], command[3::2], strict=True))
    assert options == {
        "--appendonly": "yes",
        "--appendfsync": "always",
        "--save": "",
        "--maxmemory": "1gb",
        "--maxmemory-policy": "noeviction",
    }
    first, *accounts, administrator = REDIS["configs"]["broker-users"]["content"].splitlines()
    assert first == "user default off ~* &* +@all"
    assert accounts == [
        f"user {account.name} on >{account.name} {account.rules}"
        for account in redis_accounts(broker_names(registry()))
    ]
    assert administrator == "user administrator on >administrator ~* &* +@all"
    variables = VARIABLE.findall(read_overlay(REDIS_FILE)["configs"]["broker-users"]["content"])
    given = VARIABLE.findall(" ".join(str(each) for each in read_overlay(REDIS_FILE)["services"].values()))
    assert set(given) - {("BROKER_PORT", "6381")} <= set(variables)
