"""The API key that a run makes for a developer whose services say who may do what."""

import os
import stat
from pathlib import Path

import pytest

from coordinator import Command, Handler, Service, UnitOfWork, any_principal, anybody, has_scope
from coordinator.access.api_keys import MadeKey
from coordinator.dev.key import KEY_SETTING, METHODS_SETTING, DevelopmentKey, development_key, making_another
from coordinator.dev.workspace import Workspace
from coordinator.migrations.migrate import migrate
from coordinator.operate.open import lane_api_keys
from coordinator.runtime.settings import DatabaseSettings


class Add(Command, type="seats.add"):
    id: int


def add(work: UnitOfWork, command: Add) -> None: ...


def service(rule: object = None) -> Service:
    return Service("seats", handlers=[Handler(Add, add, allow=rule)])  # type: ignore[arg-type]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    for name in (KEY_SETTING, METHODS_SETTING):
        monkeypatch.delenv(name, raising=False)
    return Workspace(tmp_path)


def made(workspace: Workspace, *services: Service) -> DevelopmentKey:
    key = development_key(services, workspace)
    assert key is not None
    return key


def test_no_rule_asks_for_none(workspace: Workspace) -> None:
    for rule in (None, anybody):
        assert development_key([service(rule)], workspace) is None
    assert workspace.read_key() == ""


def test_it_is_kept_for_later_runs_with_the_scopes_that_rules_name(workspace: Workspace) -> None:
    first = made(workspace, service(has_scope("staff")))
    assert stat.S_IMODE((workspace.directory / "key").stat().st_mode) == 0o600
    assert made(workspace, service(has_scope("staff"))).text == first.text
    assert first.environment == {METHODS_SETTING: "keys", KEY_SETTING: first.text}
    # It could not do what it is for.
    other = made(workspace, service(has_scope("clerk")))
    assert other.text != first.text
    assert made(workspace, service(any_principal)).text not in (first.text, other.text)


@pytest.mark.parametrize("kept", ["", "nonsense", "wck_1_2\noperator", "\0"])
def test_what_is_no_key_is_made_anew(workspace: Workspace, kept: str) -> None:
    workspace.write_key(kept)
    assert MadeKey.of(made(workspace, service(any_principal)).text) is not None


def test_whoever_says_how_callers_prove_who_they_are_has_his_way(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(METHODS_SETTING, "none")
    assert development_key([service(any_principal)], workspace) is None


def test_what_a_shell_has_of_an_earlier_run_says_nothing(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same run, or of another one's, whose services have rules."""
    first = made(workspace, service(any_principal))
    for text in (first.text, MadeKey().text):
        for name, value in (first.environment | {KEY_SETTING: text}).items():
            monkeypatch.setenv(name, value)
        assert made(workspace, service(any_principal)).text == first.text
        monkeypatch.setenv(METHODS_SETTING, "keys")
        monkeypatch.setenv(KEY_SETTING, text)
        assert development_key([service()], workspace) is None
        # Nor do the gateways of this run ask for it.
        with pytest.raises(KeyError):
            _ = os.environ[METHODS_SETTING]


def test_a_lane_gets_it_once(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{workspace.directory}/seats.sqlite"
    migrate(service(), DatabaseSettings(database_url=url))
    monkeypatch.setenv("SEATS_DATABASE_URL", url)
    key = made(workspace, service(has_scope("staff")))
    for _ in range(2):
        key.give_to({"seats": url})
    with lane_api_keys("seats") as keys:
        (row,) = keys.every()
    assert (row.subject, row.scopes, row.expires_at) == ("developer", "operator staff", None)


def test_another_key_is_made_in_all_lanes_of_the_process_and_never_for_several_tenants() -> None:
    """The one gateway knows the keys of its first lane; a key of the second alone was answered 401 for ever."""
    assert making_another(("stock", "sales"), of_tenants=False) == "coordinator keys create stock sales --subject ada"
    tenants = ("seats-acme", "seats-bolt")
    assert making_another(tenants, of_tenants=True) == "coordinator keys create seats-acme --subject ada"
