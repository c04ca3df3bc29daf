"""docs/deploy/kubernetes/examples/cluster, as `kubectl kustomize` renders it: against the schemas of Kubernetes and of
the operators, and against what the product reads."""

import re
from copy import deepcopy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import kubernetes_validate
import pytest
import yaml

from coordinator.client.database import open_database
from coordinator.registry import registry
from coordinator.runtime.cache_settings import CacheSettings
from coordinator.runtime.settings import (
    BrokerSettings,
    DatabaseSettings,
    LaneSettings,
    ReaderSettings,
    load,
)
from coordinator.stores.open import open_store
from coordinator.transports.rabbitmq.driver_arguments import broker_parameters
from coordinator.transports.rabbitmq.rights import INGRESS, effects_account, gateway_account, lane_account
from tests.support.kubernetes import EXAMPLE, SERVERS, addresses_of, of_kind, pod_of, rendered, values_of
from tests.unit.test_compose import settings_of
from tests.unit.test_kubernetes import DEPLOYMENTS, MOUNTED, OBJECTS, containers, kind_of

SCHEMAS: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "custom_resources.yaml").read_text())
OLDEST_KUBERNETES = "1.31"
"""As docs/SCALING.md says."""


def account_of(name: str) -> str:
    if name == "ingress":
        return INGRESS
    service, _, kind = name.partition("-")
    return {"coordinator": lane_account, "gateway": gateway_account, "effects": effects_account}[kind](service)


WITH_SECRETS = ("migrate", *sorted(DEPLOYMENTS))


def test_every_file_of_the_example_is_named() -> None:
    named = yaml.safe_load((EXAMPLE / "kustomization.yaml").read_text())
    files = {each for each in named["resources"] if not each.startswith("..")}
    files |= {each["path"] for each in named["patches"] if "path" in each}
    assert files == {path.name for path in EXAMPLE.glob("*.yaml")} - {"kustomization.yaml"}
    secrets = {each for secret in named["secretGenerator"] for each in secret["envs"]}
    assert secrets == {f"secrets/{path.name}" for path in (EXAMPLE / "secrets").iterdir()}


def check(resource: dict[str, Any], version: str) -> bool:
    """Whether it is one of an operator. Raises for what is not taken: an unknown field, too."""
    schema = SCHEMAS.get(f"{resource['apiVersion']}/{resource['kind']}")
    if schema is None:
        kubernetes_validate.validate(resource, version, strict=True)
    else:
        jsonschema.Draft202012Validator(schema).validate(resource["spec"])
    return schema is not None


@pytest.mark.parametrize("version", [OLDEST_KUBERNETES, kubernetes_validate.latest_version()])
def test_every_object_is_one_that_kubernetes_and_the_operators_take(version: str) -> None:
    assert sum(check(each, version) for each in rendered()) == len(SCHEMAS) - 1, "one of each"


def test_a_misspelt_field_is_found() -> None:
    for each in rendered():
        wrong = deepcopy(each)
        wrong["spec" if "spec" in wrong else "metadata"]["nmae"] = "x"
        with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
            check(wrong, OLDEST_KUBERNETES)


def test_all_of_the_base_is_there_and_its_processes_are_unchanged_but_for_settings_and_secrets() -> None:
    """So what the base's tests say of ports, probes, command lines and stop times holds here."""
    names = {(each["kind"], each["metadata"]["name"]) for each in rendered()}
    assert {(each["kind"], each["metadata"]["name"]) for each in OBJECTS} <= names
    for name, deployment in DEPLOYMENTS.items():
        here, there = (deepcopy(each["spec"]) for each in (of_kind("Deployment")[name], deployment))
        if kind_of(name) == "effects":
            del there["replicas"]
        for spec in (here, there):
            pod = spec["template"]["spec"]
            for container in containers(pod):
                del container["env"]
            [secret] = [each for each in pod["volumes"] if each["name"] == "secrets"]
            secret["secret"]["secretName"] = re.sub(r"-[a-z0-9]{10}$", "", secret["secret"]["secretName"])
        assert here == there, name


@pytest.mark.parametrize("name", WITH_SECRETS)
def test_a_secret_has_what_its_process_looks_for_and_nothing_else(name: str) -> None:
    looked_for = {
        each["value"].removeprefix(f"{MOUNTED}/")
        for container in containers(pod_of(name))
        for each in container["env"]
        if each["name"].endswith("_FILE")
    }
    assert values_of(name).keys() == looked_for
    [mounted] = [each["secret"]["secretName"] for each in pod_of(name)["volumes"] if "secret" in each]
    assert mounted in of_kind("Secret")
    assert mounted != name, "without the hash a changed secret would start nothing again"


@pytest.mark.parametrize("name", WITH_SECRETS)
def test_settings_and_addresses_are_taken_by_the_product(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for setting, value in values_of(name).items():
        monkeypatch.setenv(setting, value)
    plain = {
        each["name"]: each["value"]
        for container in containers(pod_of(name))
        for each in container["env"]
        if not each["name"].endswith("_FILE")
    }
    assert plain == ({"LANE_REQUIRE_SYNC_STANDBY": "true"} if name == "users-coordinator" else {})
    for setting, value in plain.items():
        monkeypatch.setenv(setting, value)
    service_name, _, kind = name.partition("-")
    if name != "migrate":
        assert (
            len(broker_parameters(load(BrokerSettings), name))
            == of_kind("RabbitmqCluster", SERVERS)["rabbitmq"]["spec"]["replicas"]
        )
        assert addresses_of(name)["AMQP_URL"].user == account_of(name)
    assert plain.keys() <= settings_of(LaneSettings)
    if "REDIS_URL" in values_of(name):
        load(CacheSettings)
    for service in registry().services:
        prefix = f"{service.name.upper()}_"
        for setting in values_of(name):
            if setting.removeprefix(prefix) in {"DATABASE_URL", "MIGRATION_URL"} and setting.startswith(prefix):
                load(DatabaseSettings, prefix=prefix)
                # It connects to nothing yet, but refuses an option that its driver has no argument for.
                open_store(values_of(name)[setting], service, needs_standby=setting == "USERS_DATABASE_URL")
    if kind == "gateway":
        reading = load(ReaderSettings, prefix=f"{service_name.upper()}_")
        for url in filter(None, (reading.reader_url, reading.primary_url)):
            open_database(url, 1)


def test_nobody_s_password_is_in_it() -> None:
    for name in WITH_SECRETS:
        assert {address.plain_password for address in addresses_of(name).values()} <= {"PASSWORD"}, name
    assert values_of("users-owner", SERVERS)["password"] == "PASSWORD"
    assert urlsplit(values_of("autoscaler")["host"]).password == "PASSWORD"
