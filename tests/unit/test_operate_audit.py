"""`coordinator audit` on a database of SQLite: what it finds, and what it says that its answer lacks."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from click.testing import CliRunner, Result

from coordinator import Row
from coordinator.cli import cli
from coordinator.migrations.migrate import migrate
from coordinator.operate.audit import _key
from coordinator.operate.output import Misused
from coordinator.registry import registry
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.principal import Principal
from coordinator.service.rows import Key
from coordinator.stores.key_texts import key_text
from coordinator.stores.open import open_store
from shared.users.commands import CreateUser, CreditUser, DeleteUser
from tests.support.lane_contract import LaneUnderTest, command_id, delivery
from tests.support.store_contract import NOW

ADA, BOB = Principal(subject="ada", tenant="acme"), Principal(subject="amqp:bob")


class ByNumber(Row, table="by_number", key="id"):
    id: int


class ByText(Row, table="by_text", key="id"):
    id: str


class ByBoth(Row, table="by_both", key=("hall", "seat", "of")):
    hall: int
    seat: str
    of: UUID


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(cli, arguments, env=environment)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A database of the users, whose lane has applied some commands."""
    url = f"sqlite:///{tmp_path}/users.db"
    service = registry().service("users")
    migrate(service, DatabaseSettings(database_url=url))
    lane = LaneUnderTest(open_store(url, service), service=service)
    lane.settle(
        delivery(1, CreateUser(name="Ada", email="ada@example.org"), actor=ADA),
        delivery(2, CreateUser(name="Bob", email="bob@example.org")),
    )
    lane.now += timedelta(hours=1)
    lane.settle(delivery(3, CreditUser(id=1, amount=5), actor=BOB), delivery(4, CreditUser(id=9, amount=5), actor=BOB))
    lane.settle(delivery(5, DeleteUser(id=1)))
    lane.store.close()
    return url


def found(url: str, *arguments: str) -> list[Any]:
    ran = run("audit", "users", *arguments, "--json", USERS_DATABASE_URL=url)
    assert ran.exit_code == 0, ran.output
    return list(json.loads(ran.stdout))


def test_who_changed_a_row_when_and_by_which_command(url: str) -> None:
    removed, credited, created = found(url, "users", "1")
    assert created == {
        "lane": "users",
        "sequence": 1,
        "command_id": command_id(1),
        "type": "users.create",
        "status": "applied",
        "settled_at": NOW.isoformat().replace("+00:00", "Z"),
        "actor": {"subject": "ada", "tenant": "acme"},
        "changes": [{"table": "users", "key": "1", "how": "inserted", "version": 1}],
    }
    assert (credited["sequence"], credited["actor"]) == (3, {"subject": "amqp:bob"})
    assert (removed["actor"], removed["changes"][0]["how"], removed["changes"][0]["version"]) == (None, "removed", 2)
    assert found(url, "users", "7") == []
    _, line = run("audit", "users", "users", "2", USERS_DATABASE_URL=url).stdout.splitlines()
    assert command_id(2) in line
    assert line.split()[-2:] == ["inserted", "1"]


def test_what_somebody_asked_for(url: str) -> None:
    rejected, credited = found(url, "--actor", "amqp:bob")
    assert (rejected["sequence"], rejected["status"], rejected["changes"]) == (4, "rejected", [])
    assert credited["changes"] == [{"table": "users", "key": "1", "how": "updated", "version": 2}]
    printed = run("audit", "users", "--actor", "ada", USERS_DATABASE_URL=url).stdout
    assert "ada (acme)" in printed
    assert "users/1" in printed
    assert [each["sequence"] for each in found(url, "users", "1", "--actor", "ada")] == [1]
    assert found(url, "--actor", "ad") == []


def test_pages_and_times(url: str) -> None:
    ran = run("audit", "users", "users", "1", "--limit", "2", "--json", USERS_DATABASE_URL=url)
    assert [each["sequence"] for each in json.loads(ran.stdout)] == [5, 3]
    assert "there are more: repeat this with --before 3" in ran.stderr
    assert [each["sequence"] for each in found(url, "users", "1", "--before", "3")] == [1]
    later = (NOW + timedelta(minutes=1)).isoformat(timespec="seconds").replace("+00:00", "Z")
    assert [each["sequence"] for each in found(url, "users", "1", "--until", later)] == [1]
    assert [each["sequence"] for each in found(url, "users", "1", "--since", later)] == [5, 3]


def test_it_is_said_what_the_answer_lacks(url: str, tmp_path: Path) -> None:
    environment = {"USERS_DATABASE_URL": url}
    assert run("audit", "users", "users", "1", **environment).stderr == ""
    assert run("log", "prune", "users", "--older-than", "7d", "--reason", "space", **environment).exit_code == 0
    ran = run("audit", "users", "users", "1", **environment)
    assert "the log of users begins with sequence 5, settled at 2026-02-03" in ran.stderr
    assert len(ran.stdout.splitlines()) == 2
    assert run("audit", "users", "users", "1", "--since", "1h", **environment).stderr == ""
    fresh = f"sqlite:///{tmp_path}/fresh.db"
    migrate(registry().service("users"), DatabaseSettings(database_url=fresh))
    ran = run("audit", "users", "users", "1", USERS_DATABASE_URL=fresh)
    assert "no process of users has audited users yet" in ran.stderr


def test_a_process_that_does_not_audit_is_seen(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    service = registry().service("users")
    (model,) = [model for model in service.models if model.table == "users"]
    with monkeypatch.context() as patch:
        patch.setattr(model, "__audited__", False)
        older = LaneUnderTest(open_store(url, service), service=service)
        older.settle(delivery(6, CreditUser(id=2, amount=5)))
        older.store.close()
    ran = run("audit", "users", "users", "2", USERS_DATABASE_URL=url)
    assert "the latest commands of users were applied by a process that does not audit users" in ran.stderr
    newer = LaneUnderTest(open_store(url, service), service=service)
    newer.settle(delivery(7, CreditUser(id=2, amount=5)))
    newer.store.close()
    ran = run("audit", "users", "users", "2", USERS_DATABASE_URL=url)
    assert "the changes of users are complete from sequence 7 on" in ran.stderr
    assert [each["sequence"] for each in found(url, "users", "2")] == [7, 2]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ([], 2, "say what to look for"),
        (["users"], 2, "a TABLE needs the KEY"),
        (["users", "1", "--operators"], 2, "say what to look for"),
        (
            ["nothing", "1"],
            2,
            "TABLE: users has no table 'nothing': it has purchase_totals, purchases, saga",
        ),
        (["purchases", "1"], 1, "the rows of purchases are not audited: declare class Purchase(…, audited=True)"),
        (["users", "ada"], 2, "KEY: 'ada' is no key of users (id): 'ada' is no whole number"),
        (["users", "1/2"], 2, "KEY: '1/2' is no key of users (id)"),
        (["--operators", "--before", "3"], 2, "--operators has --before-act"),
        (["--actor", "ada", "--before-act", "2026"], 2, "--before-act is for --operators"),
    ],
)
def test_what_cannot_be_answered_is_refused(url: str, arguments: list[str], status: int, said: str) -> None:
    ran = run("audit", "users", *arguments, USERS_DATABASE_URL=url)
    assert said in ran.stderr
    assert ran.exit_code == status


@pytest.mark.parametrize(
    ("model", "text", "key"),
    [
        (ByNumber, "17", 17),
        (ByNumber, "-3", -3),
        (ByText, "ada@example.org", "ada@example.org"),
        (ByText, "a%2Fb", "a/b"),
        (ByText, "a/b", "a/b"),
        (ByBoth, f"7/A%2F1/{UUID(int=5)}", (7, "A/1", UUID(int=5))),
    ],
)
def test_a_key_is_read_as_it_is_in_a_url(model: type[Row], text: str, key: Key) -> None:
    assert _key(model, text) == key
    assert _key(model, key_text(key)) == key


@pytest.mark.parametrize(
    ("model", "text"),
    [(ByNumber, "017"), (ByNumber, ""), (ByNumber, str(2**63)), (ByText, "%FF"), (ByBoth, "7/A"), (ByBoth, "7/A/5")],
)
def test_what_is_no_key_is_named(model: type[Row], text: str) -> None:
    with pytest.raises(Misused, match=f"^KEY: '{text}' is no key of"):
        _key(model, text)


def test_what_operators_did_with_author_and_reason(url: str) -> None:
    environment = {"USERS_DATABASE_URL": url}
    assert run("pause", "users", "--reason", "disk", **environment).exit_code == 0
    assert run("resume", "users", "--reason", "it is new", **environment).exit_code == 0
    assert run("resume", "users", **environment).exit_code == 0
    assert run("cancel", command_id(99), "--lane", "users", **environment).exit_code == 0
    assert run("keys", "create", "users", "--subject", "ada", "--scope", "write", **environment).exit_code == 0
    acts = found(url, "--operators")
    assert [act["act"] for act in acts] == ["keys create", "cancel", "resume", "pause"]
    assert [act["reason"] for act in acts] == [None, "no reason given", "it is new", "disk"]
    assert acts[1]["details"] == {"command_id": command_id(99)}
    assert (acts[0]["details"]["subject"], acts[0]["details"]["scopes"]) == ("ada", ["write"])
    assert len({act["author"] for act in acts}) == 1
    ran = run("audit", "users", "--operators", "--limit", "3", **environment)
    assert f"--before-act {acts[2]['id']}" in ran.stderr
    assert found(url, "--operators", "--before-act", acts[2]["id"]) == acts[3:]
    assert found(url, "--operators", "--actor", acts[0]["author"]) == acts
    assert found(url, "--operators", "--actor", "nobody@nowhere") == []
