"""`coordinator audit` with an auditor's rights of docs/OPERATING.md, and operators' acts on each kind of database."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import text

from coordinator.cli import cli
from coordinator.migrations.migrate import migrate
from coordinator.registry import registry
from coordinator.runtime.settings import DatabaseSettings
from coordinator.stores.open import open_store
from shared.users.commands import CreateUser, CreditUser
from tests.support.databases import FreshDatabases, sql_engine
from tests.support.lane_contract import LaneUnderTest, delivery

pytestmark = pytest.mark.operators

OPERATING = Path(__file__).parents[2] / "docs" / "OPERATING.md"
LANES = {"users": "PostgreSQL", "payments": "MySQL", "items": "MongoDB"}


def run(url: str, lane: str, *arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, env={f"{lane.upper()}_DATABASE_URL": url})


def shown(url: str, lane: str, *arguments: str) -> list[Any]:
    ran = run(url, lane, "audit", lane, *arguments, "--json")
    assert ran.exit_code == 0, ran.output
    return list(json.loads(ran.stdout))


@contextmanager
def auditor(owner: str) -> Iterator[str]:
    """The address of a new role, made by what docs/OPERATING.md says."""
    engine, name = sql_engine(owner), f"auditor_{uuid4().hex}"
    (grant,) = re.findall(r"^    (GRANT SELECT ON .*) TO auditor;$", OPERATING.read_text(), re.MULTILINE)
    with engine.connect() as connection:
        connection.execute(text(f"CREATE ROLE {name} LOGIN PASSWORD 'x'"))
        connection.execute(text(f"{grant} TO {name}"))
        parts = urlsplit(owner)
        yield parts._replace(netloc=f"{name}:x@{parts.hostname}:{parts.port}").geturl()
        connection.execute(text(f"DROP OWNED BY {name}"))
        connection.execute(text(f"DROP ROLE {name}"))
    engine.dispose()


def test_an_auditor_sees_the_audit_and_a_gateway_does_not_and_neither_can_do_a_thing(databases: FreshDatabases) -> None:
    environment, administrators = databases.environments()
    service, url = registry().service("users"), environment["USERS_DATABASE_URL"]
    reader = environment["USERS_READER_URL"]
    owner = administrators["USERS_DATABASE_URL"]
    migrate(service, DatabaseSettings(database_url=url, migration_url=owner, reader_url=reader))
    lane = LaneUnderTest(open_store(url, service), service=service)
    lane.now = datetime.now(UTC).replace(microsecond=0)
    lane.settle(delivery(1, CreateUser(name="Ada", email="ada@example.org")), delivery(2, CreditUser(id=1, amount=5)))
    lane.store.close()
    refused = run(reader, "users", "audit", "users", "--operators")
    assert (refused.exit_code, "permission denied for table operator_acts" in refused.stderr) == (1, True)
    with auditor(owner) as looking:
        assert [each["sequence"] for each in shown(looking, "users", "users", "1")] == [2, 1]
        assert [each["sequence"] for each in shown(looking, "users", "--actor", "nobody")] == []
        assert shown(looking, "users", "--operators") == []
        for role in (looking, reader):
            refused = run(role, "users", "pause", "users", "--reason", "x")
            assert refused.exit_code == 1
            assert "permission denied" in refused.stderr
        assert shown(url, "users", "--operators") == []
        assert run(url, "users", "pause", "users", "--reason", "x").exit_code == 0
        (act,) = shown(looking, "users", "--operators")
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
