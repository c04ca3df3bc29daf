"""docs/deploy/kubernetes, as far as it can be checked without a cluster: against settings, ports and command lines."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from coordinator.cli import cli
from coordinator.cli import gateway as gateway_command
from coordinator.dev.servers.rabbitmq import MESSAGE_BYTES_MAX
from coordinator.http.server import STOP_MARGIN_S
from coordinator.registry import registry
from coordinator.runtime.settings import EffectSettings, GatewaySettings, IngressSettings, LaneSettings
from tests.unit.test_compose import COMPOSE_SERVICES

BASE = Path(__file__).parents[2] / "docs" / "deploy" / "kubernetes" / "base"
RESOURCES: list[str] = yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"]
OBJECTS: list[dict[str, Any]] = [
    each for name in RESOURCES for each in yaml.safe_load_all((BASE / name).read_text()) if each is not None
]
MOUNTED = "/run/secrets/coordinator"
SCRAPED = 9100
SERVED = 8081


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in OBJECTS if each["kind"] == kind}


DEPLOYMENTS = of_kind("Deployment")
CONFIGURATION: dict[str, str] = of_kind("ConfigMap")["write-coordinator"]["data"]


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, each in (DEPLOYMENTS | of_kind("Job")).items():
        yield name, each["spec"]["template"]["spec"]


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def kind_of(name: str) -> str:
    return name.rpartition("-")[2]


def test_every_file_is_named_and_every_object_has_a_name_of_its_own() -> None:
    assert sorted(RESOURCES) == sorted({path.name for path in BASE.glob("*.yaml")} - {"kustomization.yaml"})
    names = [(each["kind"], each["metadata"]["name"]) for each in OBJECTS]
    assert len(set(names)) == len(names)


def test_the_processes_are_those_of_compose() -> None:
    ours = {name for name in COMPOSE_SERVICES if kind_of(name) in ("coordinator", "gateway", "effects", "ingress")}
    assert ours == DEPLOYMENTS.keys()


@pytest.mark.parametrize("name", [name for name, _ in pods()])
def test_a_process_has_the_settings_that_it_has_in_compose_and_secrets_as_files(name: str) -> None:
    """What compose.yaml passes is checked against the settings there."""
    elsewhere = set(COMPOSE_SERVICES[name]["environment"])
    for container in containers(dict(pods())[name]):
        given = {}
        for each in container["env"]:
            setting, _, is_file = each["name"].rpartition("_")
            assert is_file == "FILE"
            assert each["value"] == f"{MOUNTED}/{setting}"
            given[setting] = each["value"]
        by_map = CONFIGURATION.keys() if "envFrom" in container else set()
        # The provider's own address and, where nobody has tokens, who issues them.
        left_out = {setting for setting in elsewhere if setting.startswith(("ACCESS_TOKEN_", "STRIPE_API_BASE"))}
        of_the_effects = {"STRIPE_WEBHOOK_SECRET"} if kind_of(name) == "effects" else set()
        assert given.keys() == elsewhere - by_map - left_out - of_the_effects


def test_the_common_settings_are_those_of_compose() -> None:
    for setting, value in CONFIGURATION.items():
        in_compose = {
            each["environment"][setting] for each in COMPOSE_SERVICES.values() if setting in each.get("environment", {})
        }
        assert in_compose == {value}, setting


@pytest.mark.parametrize("name", [name for name, _ in pods()])
def test_a_command_line_is_one_of_the_product(name: str) -> None:
    for container in containers(dict(pods())[name]):
        arguments = list(container["args"])
        if kind_of(name) == "gateway":
            assert container["command"] == ["python", "-m", "gateways"]
            assert arguments == COMPOSE_SERVICES[name]["command"]
            gateway_command.make_context("gateway", arguments)
            continue
        assert "command" not in container, "the image's own is `coordinator`"
        elsewhere = COMPOSE_SERVICES[container["name"] if name == "migrate" else name]
        assert container["args"] == elsewhere["command"]
        command = cli.get_command(click.Context(cli), arguments[0])
        assert command is not None
        command.make_context(arguments[0], arguments[1:])


@pytest.mark.parametrize("name", sorted(DEPLOYMENTS))
def test_probes_ask_where_the_process_listens_and_a_suspended_lane_is_not_restarted(name: str) -> None:
    [container] = DEPLOYMENTS[name]["spec"]["template"]["spec"]["containers"]
    arguments = container["args"]
    listens = [int(arguments[at + 1]) for at, each in enumerate(arguments) if each in ("--port", "--metrics-port")]
    assert [each["containerPort"] for each in container["ports"]] == listens
    assert [each["name"] for each in container["ports"]] == ["http", "metrics"][: len(listens)]
    asked = {probe: container[f"{probe}Probe"]["httpGet"] for probe in ("startup", "readiness", "liveness")}
    assert {probe: each["path"] for probe, each in asked.items()} == {
        "startup": "/healthz",
        "readiness": "/readyz",
        "liveness": "/healthz",
    }
    assert {each["port"] for each in asked.values()} == {"http"}


def test_an_ingress_has_room_for_what_it_holds_of_ten_accounts() -> None:
    [container] = DEPLOYMENTS["ingress"]["spec"]["template"]["spec"]["containers"]
    limit = container["resources"]["limits"]["memory"]
    assert limit.endswith("Gi")
    beside = 256 << 20
    held = 10 * IngressSettings().account_in_flight_max * MESSAGE_BYTES_MAX
    assert held + beside <= int(limit.removesuffix("Gi")) << 30


@pytest.mark.parametrize("name", sorted(DEPLOYMENTS))
def test_a_process_is_given_the_time_that_its_stop_may_take(name: str) -> None:
    pod = DEPLOYMENTS[name]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    needed = {
        "coordinator": 2 * LaneSettings().stop_timeout_s,
        "effects": EffectSettings().stop_timeout_s,
        "ingress": IngressSettings().stop_timeout_s + 2.0,
        "gateway": GatewaySettings().wait_s + STOP_MARGIN_S,
    }[kind_of(name)]
    if kind_of(name) == "gateway":
        # It accepts nothing after SIGTERM, so it must come after the Service has left it out.
        program, pause = container["lifecycle"]["preStop"]["exec"]["command"]
        assert program == "sleep"
        needed += float(pause)
    assert pod["terminationGracePeriodSeconds"] > needed


@pytest.mark.parametrize("name", sorted(DEPLOYMENTS))
def test_two_run_on_different_machines_and_one_may_be_taken_away(name: str) -> None:
    spec = DEPLOYMENTS[name]["spec"]
    labels = spec["selector"]["matchLabels"]
    assert labels == spec["template"]["metadata"]["labels"]
    assert of_kind("PodDisruptionBudget")[name]["spec"] == {"minAvailable": 1, "selector": {"matchLabels": labels}}
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    if kind_of(name) == "gateway":
        scaler = of_kind("HorizontalPodAutoscaler")[name]["spec"]
        assert scaler["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
        assert scaler["minReplicas"] == 2
        assert "replicas" not in spec, "each apply would undo what the autoscaler did"
        assert of_kind("Service")[name]["spec"]["selector"] == labels
    else:
        assert spec["replicas"] == 2
    if kind_of(name) == "coordinator":
        apart = spec["template"]["spec"]["affinity"]["podAntiAffinity"]
        [term] = apart["requiredDuringSchedulingIgnoredDuringExecution"]
        assert term["labelSelector"] == {"matchLabels": labels}
        # Without this a third machine would be needed for the one that an upgrade starts first.
        assert term["matchLabelKeys"] == ["pod-template-hash"]


@pytest.mark.parametrize("name", [name for name, _ in pods()])
def test_no_process_may_more_than_it_needs(name: str) -> None:
    pod = dict(pods())[name]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert [each["secret"]["secretName"] for each in pod["volumes"] if "secret" in each] == [name]
    for container in containers(pod):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"requests", "limits"} == set(container["resources"])


def allowed(direction: str, labels: dict[str, str]) -> set[int]:
    """Ports to which, or at which, a process with these labels may be connected."""
    found = set()
    for policy in of_kind("NetworkPolicy").values():
        spec = policy["spec"]
        wanted = spec["podSelector"].get("matchLabels", {})
        chosen = all(
            labels.get(each["key"]) in each["values"] for each in spec["podSelector"].get("matchExpressions", [])
        )
        if chosen and wanted.items() <= labels.items():
            found |= {port["port"] for rule in spec.get(direction, []) for port in rule["ports"]}
    return found


def test_a_process_reaches_its_own_servers_and_no_others() -> None:
    names, rabbitmq, postgresql, mysql, mongodb, redis, provider = 53, 5672, 5432, 3306, 27017, 6379, 443
    servers = {"users": {postgresql}, "items": {mongodb, redis}, "payments": {mysql}}
    assert servers.keys() == {service.name for service in registry().services}
    assert of_kind("NetworkPolicy")["deny"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for name, deployment in DEPLOYMENTS.items():
        labels = deployment["spec"]["selector"]["matchLabels"]
        service, _, kind = name.partition("-")
        outside = {"effects": {provider}, "ingress": set[int]()}.get(kind_of(name)) or servers.get(service, set())
        assert allowed("egress", labels) == {names, rabbitmq} | outside, name
        assert allowed("ingress", labels) == {SCRAPED} | ({SERVED} if kind == "gateway" else set()), name
    migrating = of_kind("Job")["migrate"]["spec"]["template"]["metadata"]["labels"]
    assert allowed("egress", migrating) == {names, postgresql, mysql, mongodb}
    assert allowed("ingress", migrating) == set()
