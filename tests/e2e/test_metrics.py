"""What processes expose at /metrics: what OPERATING says, and what happens to a lane."""

import asyncio
import json
import urllib.request
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import aiohttp
import pika
import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from coordinator.cli import cli
from coordinator.operate.open import lane_admin
from coordinator.runtime.clock import utc_now
from coordinator.transports.rabbitmq.topology import WRITES_EXCHANGE
from tests.support.callers import HEADERS
from tests.support.operating import listed_metrics
from tests.support.system import System, wait_ready, wait_until

pytestmark = pytest.mark.operators

PREFIX = "coordinator_"
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def exposed(url: str) -> dict[str, tuple[str, Samples]]:
    """The families of ours that a process exposes: kind and samples, by the name as a query has it."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    found = {}
    for family in families:
        if family.name.startswith(PREFIX) and not family.name.endswith("_created"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            samples = {(each.name, tuple(sorted(each.labels.items()))): each.value for each in family.samples}
            found[name] = (family.type, samples)
    return found


def value(url: str, name: str, **labels: str) -> float | None:
    """Of one sample; None: there is none."""
    for _, samples in exposed(url).values():
        if (name, tuple(sorted(labels.items()))) in samples:
            return samples[name, tuple(sorted(labels.items()))]
    return None


def until(condition: Callable[[], bool], what: str) -> None:
    wait_until(condition, what, timeout_s=20)


OF_REDIS = {"coordinator_broker_lost_total"}
"""What a process has whose broker is a Redis."""


def test_processes_expose_exactly_what_operating_lists(system: System) -> None:
    services = ("users", "items", "payments")
    system.start_sandbox()
    system.prepare(*services)
    coordinator, coordinator_url = system.launch_coordinator("items", {})
    gateways = [system.launch_gateway(service, {}) for service in services]
    system.start_effects("payments")
    system.start_ingress()
    urls = [coordinator_url, f"{system.urls['ingress']}/readyz", *(url for _, url in gateways)]
    for process, url in [(coordinator, coordinator_url), *gateways]:
        wait_ready(url, process)
    effects_url = next(url for name, (_, _, url) in system._starts.items() if name.startswith("effects-"))
    found: dict[str, str] = {}
    labels: dict[str, set[str]] = {}
    for url in [*urls, effects_url]:
        for name, (kind, samples) in exposed(url.removesuffix("/readyz")).items():
            found[name] = kind
            for _, pairs in samples:
                labels.setdefault(name, set()).update(label for label, _ in pairs if label != "le")
        build = exposed(url.removesuffix("/readyz"))["coordinator_build_info"][1]
        assert list(build.values()) == [1.0]
    listed = listed_metrics()
    assert found == {name: kind for name, (kind, _) in listed.items() if name not in OF_REDIS}
    assert {name: set(listed[name][1]) for name in labels} == labels
    # What no request is needed for has its samples from the start: alerts must not wait for the first.
    for name in (
        "coordinator_lane_suspended",
        "coordinator_lane_dead_letter_rows",
        "coordinator_lane_ready_messages",
        "coordinator_lane_parked_keys",
        "coordinator_lane_parked_age_seconds",
        "coordinator_lane_move_age_seconds",
        "coordinator_lane_session_wait_seconds",
        "coordinator_lane_clock_ahead_seconds",
        "coordinator_lane_epoch",
        "coordinator_gateway_pool_connections",
        "coordinator_cache_reads_total",
    ):
        assert name in labels, name


async def issue(system: System, number: int, *, waits: bool) -> None:
    body = {"name": "Ada", "email": f"ada{number}@example.org"}
    headers = HEADERS if waits else HEADERS | {"Prefer": "respond-async"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{system.urls['users']}/users", json=body) as answer,
    ):
        assert answer.status in (201, 202), await answer.text()


def test_a_paused_lane_shows_its_cause_and_its_backlog(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    system.prepare("users")
    # Two commands at a time are delivered: the others are ready.
    coordinator, ready_url = system.launch_coordinator("users", {"LANE_PREFETCH": "2", "LANE_EARLY_MAX": "1"})
    wait_ready(ready_url, coordinator)
    system.start_gateway("users")
    url = ready_url.removesuffix("/readyz")
    asyncio.run(issue(system, 0, waits=True))
    assert value(url, "coordinator_lane_commands_total", lane="users", type="users.create", status="applied") == 1
    assert value(url, "coordinator_lane_oldest_age_seconds", lane="users") == 0
    monkeypatch.setenv("USERS_DATABASE_URL", system.environment["USERS_DATABASE_URL"])
    with lane_admin("users") as admin:
        admin.pause("the stock is counted", utc_now())
    for number in range(1, 5):
        # One after the other: what comes at once may share a message.
        asyncio.run(issue(system, number, waits=False))

    def causes() -> list[str]:
        samples = exposed(url)["coordinator_lane_suspended"][1]
        return [dict(labels)["cause"] for (_, labels), is_it in samples.items() if is_it]

    until(lambda: causes() == ["paused"], "the cause is shown")
    until(lambda: value(url, "coordinator_lane_ready_messages", lane="users") == 2, "two are ready")
    assert value(url, "coordinator_lane_unacknowledged", lane="users") == 2
    until(lambda: (value(url, "coordinator_lane_oldest_age_seconds", lane="users") or 0) > 1, "the oldest grows older")
    with lane_admin("users") as admin:
        admin.resume(utc_now())
    until(lambda: causes() == [], "it goes on")
    until(lambda: value(url, "coordinator_lane_ready_messages", lane="users") == 0, "nothing is ready")
    until(lambda: value(url, "coordinator_lane_oldest_age_seconds", lane="users") == 0, "nothing waits")


def test_types_that_strangers_make_up_make_no_series(system: System) -> None:
    system.prepare("users")
    coordinator, ready_url = system.launch_coordinator("users", {})
    wait_ready(ready_url, coordinator)
    url = ready_url.removesuffix("/readyz")
    with system.broker() as channel:
        channel.confirm_delivery()
        for number in range(50):
            properties = pika.BasicProperties(message_id=str(uuid4()), type=f"users.made_up_{number}", timestamp=number)
            channel.basic_publish("writes", "users", b"{}", properties, mandatory=True)
    labels = {"lane": "users", "type": "other", "status": "failed"}
    until(lambda: value(url, "coordinator_lane_commands_total", **labels) == 50, "they are counted")
    assert len(exposed(url)["coordinator_lane_commands_total"][1]) <= 2
    # Counted again at the next look.
    until(lambda: value(url, "coordinator_lane_dead_letter_rows", lane="users") == 50, "their letters are counted")


def test_a_command_that_waits_for_an_earlier_one_of_its_session_is_seen_within_5_s(system: System) -> None:
    system.prepare("users")
    process, ready_url = system.launch_coordinator("users", {"LANE_GAP_TIMEOUT_S": "60"})
    wait_ready(ready_url, process)
    url = ready_url.removesuffix("/readyz")

    def send(number: int) -> None:
        properties = pika.BasicProperties(
            message_id=str(uuid4()),
            type="users.ghost",
            headers={"publisher": "a-session", "publisher-seq": number},
        )
        with system.broker() as channel:
            channel.basic_publish(WRITES_EXCHANGE, "users", b"{}", properties, mandatory=True)

    def reason() -> str | None:
        with urllib.request.urlopen(ready_url, timeout=5) as answer:
            said: str | None = json.loads(answer.read())["reason"]
            return said

    def status() -> Any:
        arguments = ["status", "users", "--coordinator", url, "--json"]
        ran = CliRunner().invoke(cli, arguments, env=system.operator_environment)
        return json.loads(ran.stdout)[0]

    waited = "coordinator_lane_session_wait_seconds"
    assert value(url, waited, lane="users") == 0
    send(2)
    wait_until(lambda: reason() is not None, "it is said", timeout_s=5)
    assert "for an earlier command of its publisher session" in str(reason())
    assert 2.5 < (value(url, waited, lane="users") or 0) < 10
    seen = status()
    assert (seen["state"], "publisher session" in seen["why"]) == ("stuck", True), seen
    send(1)
    until(lambda: value(url, waited, lane="users") == 0 and reason() is None, "it goes on")
