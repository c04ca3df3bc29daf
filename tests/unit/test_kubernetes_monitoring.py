"""The component for the Prometheus operator asks and alerts as docs/observability does."""

from pathlib import Path
from typing import Any

import yaml

from tests.unit.test_kubernetes import DEPLOYMENTS, SCRAPED

DOCS = Path(__file__).parents[2] / "docs"
COMPONENT = DOCS / "deploy" / "kubernetes" / "components" / "monitoring"
ASKED: list[dict[str, Any]] = list(yaml.safe_load_all((COMPONENT / "pods.yaml").read_text()))


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def test_every_file_of_the_component_is_named() -> None:
    named = read(COMPONENT / "kustomization.yaml")["resources"]
    assert sorted(named) == sorted({path.name for path in COMPONENT.glob("*.yaml")} - {"kustomization.yaml"})


def test_the_alerts_are_those_of_prometheus_without_the_operator() -> None:
    assert read(COMPONENT / "rules.yaml")["spec"] == read(DOCS / "observability" / "alerts.yml")


def test_every_process_is_asked_by_one_job_of_the_name_that_alerts_go_by() -> None:
    jobs = []
    for name, deployment in DEPLOYMENTS.items():
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        [one] = [each for each in ASKED if each["spec"]["selector"]["matchLabels"].items() <= labels.items()]
        [endpoint] = one["spec"]["podMetricsEndpoints"]
        *_, port = deployment["spec"]["template"]["spec"]["containers"][0]["ports"]
        assert (endpoint["port"], port["containerPort"]) == (port["name"], SCRAPED), name
        [relabeling] = endpoint["relabelings"]
        assert relabeling["targetLabel"] == "job"
        jobs.append(relabeling["replacement"])
    elsewhere = read(DOCS / "observability" / "prometheus.yml")["scrape_configs"]
    assert set(jobs) == {each["job_name"] for each in elsewhere}
