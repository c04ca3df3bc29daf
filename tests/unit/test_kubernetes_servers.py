"""docs/deploy/kubernetes/examples/cluster: its servers are those of docs/SCALING.md, and of its addresses."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from coordinator.registry import registry
from coordinator.runtime.addresses import Host
from coordinator.runtime.settings import EffectSettings
from coordinator.service.outside_calls import EFFECTS_PREFIX
from coordinator.transports.rabbitmq.topology import queue_name
from tests.support.kubernetes import SERVERS, addresses_of, of_kind, rendered, values_of
from tests.unit.test_compose import COMPOSE, COMPOSE_SERVICES
from tests.unit.test_kubernetes import DEPLOYMENTS

SCALING = (Path(__file__).parents[2] / "docs" / "SCALING.md").read_text()
AMQP, MANAGEMENT, POSTGRESQL = 5672, 15672, 5432
WITH_ADDRESSES = ("migrate", *sorted(DEPLOYMENTS))


def the(kind: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = of_kind(kind, SERVERS)[name]["spec"]
    return found


def set_in(text: str) -> dict[str, str]:
    """The options of a rabbitmq.conf."""
    return dict(re.findall(r"^([a-z_.0-9]+) = (\S+)$", text, re.MULTILINE))


def test_the_addresses_of_the_broker_are_those_of_all_its_nodes() -> None:
    """The operator gives nodes the names CLUSTER-server-N, and the service CLUSTER-nodes."""
    nodes = the("RabbitmqCluster", "rabbitmq")["replicas"]
    assert nodes == 3
    names = tuple(Host(f"rabbitmq-server-{n}.rabbitmq-nodes.{SERVERS}.svc", AMQP) for n in range(nodes))
    found = [address for name in WITH_ADDRESSES for key, address in addresses_of(name).items() if key == "AMQP_URL"]
    assert len(found) == len(DEPLOYMENTS)
    assert {address.hosts for address in found} == {names}
    assert {address.database for address in found} == {"/"}


def test_the_nodes_of_the_broker_are_set_as_the_documents_say() -> None:
    cluster = the("RabbitmqCluster", "rabbitmq")
    found = set_in(cluster["rabbitmq"]["additionalConfig"])
    assert len(found) == len(cluster["rabbitmq"]["additionalConfig"].splitlines())
    limits = set_in(COMPOSE["configs"]["rabbitmq-limits"]["content"])
    del limits["load_definitions"]
    block = SCALING.partition("**The cluster.**")[2].partition("```\n")[2].partition("```")[0]
    of_the_cluster = {key: value for key, value in set_in(block).items() if not key.startswith("cluster_formation.")}
    assert of_the_cluster == {"cluster_partition_handling": "pause_minority"}
    assert found == limits | of_the_cluster
    assert cluster["rabbitmq"]["advancedConfig"].strip() in SCALING
    assert cluster["image"] == COMPOSE_SERVICES["rabbitmq"]["image"]


def test_no_two_members_share_a_machine_and_the_majority_stays() -> None:
    apart = the("RabbitmqCluster", "rabbitmq")["affinity"]["podAntiAffinity"]
    [term] = apart["requiredDuringSchedulingIgnoredDuringExecution"]
    budget = the("PodDisruptionBudget", "rabbitmq")
    assert budget["maxUnavailable"] == 1
    assert term["labelSelector"] == budget["selector"] == {"matchLabels": {"app.kubernetes.io/name": "rabbitmq"}}
    assert the("Cluster", "users")["affinity"]["podAntiAffinityType"] == "required"


def test_the_addresses_of_the_database_are_the_services_of_its_cluster() -> None:
    cluster = the("Cluster", "users")
    initial = cluster["bootstrap"]["initdb"]
    found = {
        (name, key): address
        for name in WITH_ADDRESSES
        for key, address in addresses_of(name).items()
        if address.scheme == "postgresql"
    }
    assert {key for name, key in found if name != "migrate"} == {
        "USERS_DATABASE_URL",
        "USERS_READER_URL",
        "USERS_PRIMARY_URL",
    }
    for (name, key), address in found.items():
        kind = "ro" if (name, key) == ("users-gateway", "USERS_READER_URL") else "rw"
        assert address.hosts == (Host(f"users-{kind}.{SERVERS}.svc", POSTGRESQL),), (name, key)
        assert address.option("target_session_attrs") == (None if kind == "ro" else "read-write")
        assert address.database == initial["database"]
        role = {"MIGRATION": initial["owner"], "DATABASE": "users_lane"}.get(key.split("_")[1], "users_reader")
        assert address.user == role, (name, key)
    assert values_of(initial["secret"]["name"], SERVERS)["username"] == initial["owner"]
    # It makes the two other roles, as docs/OPERATING.md says.
    assert initial["postInitApplicationSQL"] == [f"ALTER ROLE {initial['owner']} CREATEROLE"]


def test_a_commit_waits_for_a_standby_as_its_lane_requires() -> None:
    [container] = of_kind("Deployment")["users-coordinator"]["spec"]["template"]["spec"]["containers"]
    assert {"name": "LANE_REQUIRE_SYNC_STANDBY", "value": "true"} in container["env"]
    cluster = the("Cluster", "users")
    assert cluster["instances"] == 3
    assert cluster["postgresql"]["synchronous"] == {
        "method": "any",
        "number": 1,
        "dataDurability": "required",
        "failoverQuorum": True,
    }
    command = COMPOSE_SERVICES["postgres"]["command"]
    assert f"max_connections={cluster['postgresql']['parameters']['max_connections']}" in command
    assert cluster["imageName"].rpartition(":")[2] == COMPOSE_SERVICES["postgres"]["image"].rpartition(":")[2]


def test_effect_workers_are_as_many_as_their_queue_is_long() -> None:
    scaled = of_kind("ScaledObject")["payments-effects"]["spec"]
    target = scaled["scaleTargetRef"]["name"]
    [calling] = [service.name for service in registry().services if service.effects is not None]
    assert target == f"{calling}-effects"
    assert "replicas" not in of_kind("Deployment")[target]["spec"], "each apply would undo what the autoscaler did"
    assert scaled["minReplicaCount"] == DEPLOYMENTS[target]["spec"]["replicas"]
    [trigger] = scaled["triggers"]
    assert trigger["metadata"]["queueName"] == queue_name(f"{EFFECTS_PREFIX}{calling}")
    # What workers hold is not among what AMQP counts, and they read ahead.
    assert trigger["metadata"]["protocol"] == "http"
    assert float(trigger["metadata"]["value"]) >= EffectSettings().concurrency
    authentication = of_kind("TriggerAuthentication")[trigger["authenticationRef"]["name"]]["spec"]
    [reference] = authentication["secretTargetRef"]
    address = urlsplit(values_of(reference["name"])[reference["key"]])
    assert (reference["parameter"], address.scheme) == ("host", "http")
    assert (address.hostname, address.port) == (f"rabbitmq.{SERVERS}.svc", MANAGEMENT)
    # For KEDA, nothing behind it is the vhost /.
    assert address.path == "/"
    assert f"rabbitmqctl add_user {address.username} " in SCALING


def peers(rule: dict[str, Any], side: str) -> set[str]:
    """The namespaces that a rule names."""
    return {
        each["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
        for each in rule.get(side, [])
        if "namespaceSelector" in each
    }


@pytest.mark.parametrize("name", WITH_ADDRESSES)
def test_a_process_may_reach_the_ports_of_its_addresses_and_those_of_our_servers_only_there(name: str) -> None:
    ours, others = set(), set()
    for rule in of_kind("NetworkPolicy")[name]["spec"]["egress"]:
        ports = {port["port"] for port in rule["ports"]}
        if peers(rule, "to"):
            assert peers(rule, "to") == {SERVERS}
            ours |= ports
        else:
            others |= ports
    looked_for = {host for address in addresses_of(name).values() for host in address.hosts}
    here = {host for host in looked_for if host.name.endswith(f".{SERVERS}.svc")}
    assert ours == {host.port for host in here}
    assert others - {443} == {host.port for host in looked_for - here}
    assert (443 in others) == name.endswith("-effects")


def test_a_server_lets_in_whom_it_serves_its_operator_and_prometheus() -> None:
    found = {}
    for name, policy in of_kind("NetworkPolicy", SERVERS).items():
        assert policy["spec"]["policyTypes"] == ["Ingress"]
        among, *rules = policy["spec"]["ingress"]
        assert among == {"from": [{"podSelector": policy["spec"]["podSelector"]}]}
        found[name] = {
            (namespace, port["port"]) for rule in rules for namespace in peers(rule, "from") for port in rule["ports"]
        }
    assert found == {
        "rabbitmq": {
            ("write-coordinator", AMQP),
            ("keda", MANAGEMENT),
            ("rabbitmq-system", MANAGEMENT),
            ("monitoring", 15692),
        },
        "users": {
            ("write-coordinator", POSTGRESQL),
            ("cnpg-system", POSTGRESQL),
            ("cnpg-system", 8000),
            ("monitoring", 9187),
        },
    }
    assert {each["metadata"].get("namespace") for each in rendered()} == {None, "write-coordinator", SERVERS}
