"""`coordinator audit` with the rights of a gateway's reader, and operators' acts on each kind of database."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from click.testing import CliRunner, Result

from coordinator.cli import cli
from coordinator.migrations.migrate import migrate
from coordinator.registry import registry
from coordinator.runtime.settings import DatabaseSettings
from coordinator.stores.open import open_store
from shared.users.commands import CreateUser, CreditUser
from tests.support.databases import FreshDatabases
from tests.support.lane_contract import LaneUnderTest, delivery

LANES = {"users": "PostgreSQL", "payments": "MySQL", "items": "MongoDB"}


def run(url: str, lane: str, *arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, env={f"{lane.upper()}_DATABASE_URL": url})


def shown(url: str, lane: str, *arguments: str) -> list[Any]:
    ran = run(url, lane, "audit", lane, *arguments, "--json")
    assert ran.exit_code == 0, ran.output
    return list(json.loads(ran.stdout))


def test_a_role_that_only_reads_sees_the_audit_and_can_do_nothing(databases: FreshDatabases) -> None:
    environment, administrators = databases.environments()
    service, url = registry().service("users"), environment["USERS_DATABASE_URL"]
    reader = environment["USERS_READER_URL"]
    owner = administrators["USERS_DATABASE_URL"]
    migrate(service, DatabaseSettings(database_url=url, migration_url=owner, reader_url=reader))
    lane = LaneUnderTest(open_store(url, service), service=service)
    lane.now = datetime.now(UTC).replace(microsecond=0)
    lane.settle(delivery(1, CreateUser(name="Ada", email="ada@example.org")), delivery(2, CreditUser(id=1, amount=5)))
    lane.store.close()
    assert [each["sequence"] for each in shown(reader, "users", "users", "1")] == [2, 1]
    assert shown(reader, "users", "--operators") == []
    refused = run(reader, "users", "pause", "users", "--reason", "x")
    assert refused.exit_code == 1
    assert "permission denied" in refused.stderr
    assert shown(url, "users", "--operators") == []
    assert run(url, "users", "pause", "users", "--reason", "x").exit_code == 0
    (act,) = shown(reader, "users", "--operators")
    assert (act["act"], act["reason"], act["account"]) == ("pause", "x", "users_lane")


@pytest.mark.parametrize("lane", LANES)
def test_who_made_and_ended_keys_is_kept(databases: FreshDatabases, lane: str) -> None:
    url = databases.new(f"{lane.upper()}_DATABASE_URL")
    migrate(registry().service(lane), DatabaseSettings(database_url=url))
    made = json.loads(run(url, lane, "keys", "create", lane, "--subject", "ada", "--json").stdout)
    for reason in ("leaked", "leaked again"):
        assert run(url, lane, "keys", "revoke", lane, "--id", made["id"], "--reason", reason).exit_code == 0
    assert run(url, lane, "keys", "revoke", lane, "--id", "0000").exit_code == 1
    assert run(url, lane, "keys", "secret", lane, "--new", "--forget-former", "--reason", "leaked too").exit_code == 0
    assert run(url, lane, "pause", lane, "--reason", "look").exit_code == 0
    assert run(url, lane, "resume", lane).exit_code == 0
    assert run(url, lane, "log", "prune", lane, "--older-than", "7d", "--dry-run").exit_code == 0
    acts = shown(url, lane, "--operators")
    assert sorted((act["act"], act["reason"] or "") for act in acts) == [
        ("keys create", ""),
        ("keys revoke", "leaked"),
        ("keys secret --forget-former", "leaked too"),
        ("keys secret --new", "leaked too"),
        ("pause", "look"),
        ("resume", ""),
    ]
    assert made["key"] not in json.dumps(acts)
