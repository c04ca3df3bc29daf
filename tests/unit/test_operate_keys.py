"""`coordinator keys` for several lanes: what can be done is done, and what is not is said."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from coordinator import has_scope
from coordinator.access.settings import AccessSettings
from coordinator.cli import cli
from coordinator.migrations.migrate import migrate
from coordinator.registry import Registry, registry
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.errors import ConfigurationError, DatabaseUnavailable
from coordinator.stores.audit_tables import OperatorAct
from coordinator.stores.lane_tables import ApiKey
from coordinator.stores.sql.api_keys import SqlApiKeys

AWAY = "mysql://nobody@127.0.0.1:9/payments"
"""Nothing listens there."""


class Lanes:
    """The databases of users and payments."""

    def __init__(self, directory: Path) -> None:
        self.there = {lane: f"sqlite:///{directory}/{lane}.db" for lane in ("users", "payments")}
        for lane, url in self.there.items():
            migrate(registry().service(lane), DatabaseSettings(database_url=url))

    def run(self, *arguments: str, **urls: str) -> Result:
        environment = {f"{lane.upper()}_DATABASE_URL": url for lane, url in (self.there | urls).items()}
        return CliRunner().invoke(cli, ["keys", *arguments], env=environment)

    def listed(self, lane: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.run("list", lane, "--json").stdout)
        return found


@pytest.fixture
def lanes(tmp_path: Path) -> Lanes:
    return Lanes(tmp_path)


ADA = ("--subject", "ada")


@pytest.mark.parametrize(("away", "there"), [("payments", "users"), ("users", "payments")])
def test_a_key_is_made_where_it_can_be_and_shown(lanes: Lanes, away: str, there: str) -> None:
    ran = lanes.run("create", "users", "payments", *ADA, **{away: AWAY})
    assert ran.exit_code == 1
    (key,) = lanes.listed(there)
    assert lanes.listed(away) == []
    assert re.fullmatch(rf"wck_{key['id']}_\S{{43}}\n", ran.stdout)
    assert f"{away}: the database of lane {away} at " in ran.stderr
    assert f"in {there} the key is made: to take it back, `keys revoke {there} --id {key['id']}`" in ran.stderr
    ran = lanes.run("create", "users", "payments", *ADA, "--json", **{away: AWAY})
    assert (ran.exit_code, json.loads(ran.stdout)["lanes"]) == (1, [there])


def test_it_is_said_how_soon_gateways_know_of_it(lanes: Lanes) -> None:
    """Else a new key, tried at once, seems to be a wrong one. What is said is no part of the key."""
    seconds = f"{AccessSettings.model_fields['keys_refresh_s'].default:g} s"
    ran = lanes.run("create", "users", *ADA)
    assert f"gateways know it within {seconds}, or what their ACCESS_KEYS_REFRESH_S says; until then" in ran.stderr
    (key,) = lanes.listed("users")
    ended = lanes.run("revoke", "users", "--id", key["id"])
    assert f"gateways refuse it within {seconds}, or" in ended.stderr
    for text in (ran.stdout, ended.stdout):
        assert "gateways" not in text
    assert "gateways" not in lanes.run("create", "users", "--json", *ADA).stderr


def test_nothing_is_shown_of_a_key_that_is_nowhere(lanes: Lanes) -> None:
    ran = lanes.run("create", "users", "payments", *ADA, users=AWAY, payments=AWAY)
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert "users: " in ran.stderr
    assert "payments: " in ran.stderr
    assert "nothing was made" in ran.stderr


def test_a_scope_that_no_rule_names_is_told_with_those_that_are(lanes: Lanes, monkeypatch: pytest.MonkeyPatch) -> None:
    service = registry().service("users").replace(allow=has_scope("staff"))
    monkeypatch.setitem(registry()._services, "users", service)
    ran = lanes.run("create", "users", *ADA, "--scope", "staf", "--scope", "staff")
    assert ran.exit_code == 0
    assert (
        "warning: no rule of users names the scope staf by has_scope: those that are named are cashier, operator, staff"
        in (" ".join(ran.stderr.split()))
    )
    assert [key["scopes"] for key in lanes.listed("users")] == [["staf", "staff"]]
    for named in (("--scope", "staff"), ("--scope", "operator"), ()):
        assert "warning" not in lanes.run("create", "users", *ADA, *named).stderr
    monkeypatch.setattr(Registry, "service", raises_configuration_error)
    assert lanes.run("create", "users", *ADA, "--scope", "staf").exit_code == 0


def raises_configuration_error(*_: object) -> None:
    raise ConfigurationError("its code is broken")


@pytest.mark.parametrize("command", [("create", *ADA), ("revoke", "--id", "0123456789abcdef")])
def test_wrong_settings_are_found_before_anything_is_done(lanes: Lanes, command: tuple[str, ...]) -> None:
    name, *options = command
    for url in ("nothing", ""):
        ran = lanes.run(name, "users", "payments", *options, payments=url)
        assert isinstance(ran.exception, ConfigurationError), "which ends the program with status 2"
        assert "PAYMENTS_DATABASE_URL" in str(ran.exception)
    assert lanes.listed("users") == []


def test_a_database_that_is_not_the_lanes_is_one_that_fails(lanes: Lanes, tmp_path: Path) -> None:
    other = f"sqlite:///{tmp_path}/users.db"
    ran = lanes.run("create", "users", "payments", *ADA, payments=other)
    assert (ran.exit_code, len(lanes.listed("users"))) == (1, 1)
    assert "payments: " in ran.stderr
    ran = lanes.run("create", "payments", *ADA, payments=other)
    assert isinstance(ran.exception, ConfigurationError)
    assert "nothing was made" in str(ran.exception)


def test_a_key_that_may_be_made_is_shown(lanes: Lanes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is lost while it makes the key."""
    add = SqlApiKeys.add

    def lost(keys: SqlApiKeys, key: ApiKey, act: OperatorAct | None = None) -> None:
        add(keys, key, act)
        if keys._lane == "payments":
            raise DatabaseUnavailable("gone")

    monkeypatch.setattr(SqlApiKeys, "add", lost)
    ran = lanes.run("create", "payments", *ADA)
    (key,) = lanes.listed("payments")
    assert (ran.exit_code, ran.stdout.startswith(f"wck_{key['id']}_")) == (1, True)
    assert "payments: gone; in payments the key may be made: `coordinator keys list payments`" in ran.stderr
    ran = lanes.run("create", "payments", "users", *ADA)
    assert "in payments the key may be made" in ran.stderr
    assert "in users the key is made" in ran.stderr


@pytest.mark.parametrize(("away", "there"), [("payments", "users"), ("users", "payments")])
def test_a_key_is_ended_where_it_can_be(lanes: Lanes, away: str, there: str) -> None:
    key_id = json.loads(lanes.run("create", "users", "payments", *ADA, "--json").stdout)["id"]
    ran = lanes.run("revoke", "users", "payments", "--id", key_id, "--json", **{away: AWAY})
    assert (ran.exit_code, [each["lane"] for each in json.loads(ran.stdout)]) == (1, [there])
    assert f"{away}: the database of lane {away} at " in ran.stderr
    assert f"the key counts on in {away}: repeat this for {away}" in ran.stderr
    assert lanes.listed(there)[0]["revoked_at"] is not None
    assert lanes.listed(away)[0]["revoked_at"] is None
    assert lanes.run("revoke", "users", "payments", "--id", key_id).exit_code == 0
    assert lanes.listed(away)[0]["revoked_at"] is not None


def test_all_that_is_wrong_is_said(lanes: Lanes) -> None:
    ran = lanes.run("revoke", "users", "payments", "--id", "0123456789abcdef", payments=AWAY)
    assert ran.exit_code == 1
    assert "users: there is no key '0123456789abcdef'" in ran.stderr
    assert "the key counts on in payments" in ran.stderr
    ran = lanes.run("revoke", "users", "payments", "--id", "0123456789abcdef", users=AWAY, payments=AWAY)
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert "the key counts on" in ran.stderr
