"""What a coordinator says at its start of what may be a mistake."""

from collections.abc import MutableMapping
from typing import Annotated, Any

import pytest
import structlog
from msgspec import Meta

from coordinator import Command, Handler, Service, UnitOfWork, VersionedRow, anybody
from coordinator.registry import registry
from coordinator.worker.process import CoordinatorProcess


@pytest.fixture(autouse=True)
def _addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USERS", "SEATS"):
        monkeypatch.setenv(f"{name}_DATABASE_URL", f"mongodb://127.0.0.1:9/{name.lower()}")
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:9/0")


def started(service: Service, event: str) -> list[MutableMapping[str, Any]]:
    with structlog.testing.capture_logs() as logs:
        CoordinatorProcess(service, is_watched=False)
    return [each for each in logs if each["event"] == event]


def test_a_lane_with_rules_that_believes_no_gateway_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    users = registry().service("users")
    (line,) = started(users, "rules_without_gateways")
    assert (line["log_level"], line["lane"], line["setting"]) == ("warning", "users", "LANE_GATEWAY_ACCOUNTS")
    assert line["type"].startswith("users.")
    assert "what_to_do" in line
    monkeypatch.setenv("LANE_GATEWAY_ACCOUNTS", "users_gateway")
    assert started(users, "rules_without_gateways") == []


def test_accounts_with_scopes_ask_without_a_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANE_ACCOUNT_SCOPES", "billing=staff")
    assert started(registry().service("users"), "rules_without_gateways") == []


def test_on_redis_whoever_writes_to_the_stream_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_URL", "redis://127.0.0.1:9/0")
    assert started(registry().service("users"), "rules_without_gateways") == []


class Seat(VersionedRow, table="seats", key="id", unique=("place",)):
    id: int
    place: Annotated[str, Meta(max_length=10)]


class Add(Command, type="seats.add"):
    place: str


def add(work: UnitOfWork, command: Add) -> None: ...


def test_without_a_rule_nobody_has_to_be_believed() -> None:
    for allow in (None, anybody):
        seats = Service("seats", models=(Seat,), handlers=(Handler(Add, add, allow=allow),))
        assert started(seats, "rules_without_gateways") == []


def test_an_argument_that_is_wider_than_its_column_is_named() -> None:
    (line,) = started(Service("seats", models=(Seat,), handlers=(Handler(Add, add),)), "argument_wider_than_column")
    assert (line["type"], line["field"], line["column"]) == ("seats.add", "place", "Seat.place")
