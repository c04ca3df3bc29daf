"""docs/observability: alert rules, Prometheus' configuration and the dashboard, by the tools and against OPERATING."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.operating import OPERATING, listed_metrics
from tests.support.promtool import promtool

pytestmark = pytest.mark.operators

FOLDER = Path(__file__).parents[2] / "docs" / "observability"
TESTS_OF_RULES = Path(__file__).parent / "alert_rules.yml"
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
CHARTS = [panel for panel in PANELS if panel["type"] != "row"]
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
OF_THE_CLIENT = {"process_cpu_seconds_total", "process_resident_memory_bytes", "up"}
OF_PROMETHEUS = {"job", "instance", "le"}
UNITS = {"none", "short", "s", "ops", "reqps", "percentunit", "bytes"}
"""Of Grafana's."""


def expressions() -> Iterator[tuple[str, str]]:
    """Every query, and whose it is; with values for Grafana's variables."""
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in CHARTS:
        for target in panel["targets"]:
            query = target["expr"].replace("$__rate_interval", "5m")
            yield panel["title"], re.sub(r"\$(lane|service)", ".*", query)


def anchors() -> set[str]:
    titles = re.findall(r"^#+ (.+)$", OPERATING, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    return tmp_path / "apt.log"


def test_the_rules_are_right_by_promtool(log_path: Path) -> None:
    promtool(log_path, "check", "rules", str(FOLDER / "alerts.yml"))


def test_each_alert_fires_when_it_should_and_not_before(log_path: Path) -> None:
    promtool(log_path, "test", "rules", str(TESTS_OF_RULES))
    told = set(re.findall(r'alertname(?:="|: )(\w+)', TESTS_OF_RULES.read_text()))
    assert told == {rule["alert"] for rule in RULES}


def test_prometheus_takes_its_configuration(log_path: Path) -> None:
    promtool(log_path, "check", "config", str(FOLDER / "prometheus.yml"))


def test_the_queries_of_panels_are_right_by_promtool(log_path: Path, tmp_path: Path) -> None:
    recorded = [
        {"record": "panel", "expr": query, "labels": {"n": str(n)}} for n, (_, query) in enumerate(expressions())
    ]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}))
    promtool(log_path, "check", "rules", str(path))


def test_rules_and_panels_name_what_processes_expose() -> None:
    """tests/e2e/test_metrics.py compares what is listed with what is exposed."""
    series: dict[str, set[str]] = {name: set() for name in OF_THE_CLIENT}
    for name, (kind, labels) in listed_metrics().items():
        parts = [f"{name}_{part}" for part in ("bucket", "sum", "count")] if kind == "histogram" else [name]
        series |= {part: set(labels) for part in parts}
    asked = set()
    for whose, query in expressions():
        names = set(re.findall(r"\b(?:coordinator|process)_\w+|\bup\b", query))
        assert names <= set(series), whose
        asked |= names
        known = set().union(*(series[name] for name in names)) | OF_PROMETHEUS
        grouped = re.findall(r"(?:by|on) \(([^)]*)\)", query)
        matched = re.findall(r"[{,](\w+)=", query)
        assert {label.strip() for group in grouped for label in group.split(",")} | set(matched) <= known, whose
    assert len(asked) > 35


def test_each_alert_says_how_bad_it_is_what_it_is_and_what_to_do() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule["labels"]["severity"] in ("critical", "warning"), rule["alert"]
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert (page, anchor in anchors()) == ("docs/OPERATING.md", True), rule["alert"]
        # A label that the query does not leave would be empty in the text.
        named = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
        left = re.findall(r"by \(([^)]*)\)", rule["expr"])
        if left:
            assert named <= {label.strip() for label in left[0].split(",")}, rule["alert"]


def test_panels_are_titled_by_questions_and_have_units() -> None:
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)
    for panel in PANELS:
        assert panel["title"].endswith("?"), panel["title"]
    for panel in CHARTS:
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"]
            assert target["legendFormat"] or panel["type"] == "table", panel["title"]
    for panel in CHARTS:
        # Seconds have the unit of seconds, and rates that of rates.
        queries = " ".join(target["expr"] for target in panel["targets"])
        if all("_seconds" in target["expr"] for target in panel["targets"]) and "_count" not in queries:
            assert panel["fieldConfig"]["defaults"]["unit"] in ("s", "percentunit"), panel["title"]
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    text = json.dumps(PANELS)
    assert set(re.findall(r"\$\{?(?!__)(\w+)", text)) == variables


def test_panels_do_not_lie_upon_each_other() -> None:
    taken: dict[tuple[int, int], str] = {}
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    for panel in PANELS:
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24, panel["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]


def test_compose_asks_every_process_that_has_metrics() -> None:
    compose = yaml.safe_load((FOLDER.parents[1] / "compose.yaml").read_text())["services"]
    asked = {
        (name, each["port"])
        for job in yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]
        for each in job["dns_sd_configs"]
        for name in each["names"]
    }
    exposing = set()
    for name, service in compose.items():
        command = service.get("command") or []
        if "--metrics-port" in command:
            exposing.add((name, int(command[command.index("--metrics-port") + 1])))
    assert asked == exposing
