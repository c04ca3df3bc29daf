"""What a service needs beside it: of the reference system, a payment provider, unless the user has one."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from coordinator.dev import helpers
from coordinator.dev.plan import PlannedHelper, plan_of
from coordinator.dev.settings import DevSettings
from coordinator.registry import registry
from coordinator.runtime.settings import load
from coordinator.service.errors import ConfigurationError
from shared.payments.sandbox.__main__ import main as sandbox_command
from shared.payments.settings import StripeSettings


def planned(given: Mapping[str, str], settings: DevSettings | None = None) -> tuple[PlannedHelper, ...]:
    return plan_of(registry(), settings or DevSettings(), Path("/data"), given).helpers


def test_without_settings_of_their_own_our_processes_use_the_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in helpers.environment(planned({"DEV_SANDBOX_PORT": "8190"})).items():
        monkeypatch.setenv(name, value)
    settings = load(StripeSettings)
    assert settings.api_base == "http://127.0.0.1:8190"
    assert settings.api_key is not None
    assert settings.webhook_secret is not None


@pytest.mark.parametrize("name", ["STRIPE_API_KEY", "STRIPE_API_BASE"])
def test_a_provider_in_the_users_environment_wins(name: str) -> None:
    assert planned({name: "the user's"}) == ()


@pytest.mark.parametrize("base", ["http://127.0.0.1:12111", "https://api.stripe.com"])
def test_another_provider_with_the_key_of_the_sandbox_is_refused_in_words(base: str) -> None:
    sourced = helpers.environment(planned({}))
    with pytest.raises(ConfigurationError, match=f"STRIPE_API_BASE is {base}, .* starts at http://127.0.0.1:8090"):
        planned(sourced | {"STRIPE_API_BASE": base})


def test_the_addresses_of_an_earlier_run_in_the_environment_do_not_switch_the_sandbox_off() -> None:
    sourced = helpers.environment(planned({}))
    again = planned(sourced)
    assert len(again) == 1
    assert helpers.environment(again) == sourced


def test_the_sandbox_signs_with_the_users_secret_where_there_is_one() -> None:
    wanted = planned({"STRIPE_WEBHOOK_SECRET": "whsec_of_the_user", "STRIPE_API_KEY": ""})
    (sandbox,) = helpers.programs(wanted, Path("/logs"))
    # It has it from its environment, which is that of the run: `ps` shows what stands in the command.
    assert not any("whsec" in argument for argument in sandbox.argv)
    (option,) = (each for each in sandbox_command.params if each.name == "webhook_secret")
    assert option.envvar == "STRIPE_WEBHOOK_SECRET"
    assert helpers.environment(wanted)["STRIPE_WEBHOOK_SECRET"] == "whsec_of_the_user"


def test_the_sandbox_sends_events_to_the_gateway_and_keeps_its_charges_in_the_runs_directory() -> None:
    wanted = planned({"DEV_PAYMENTS_PORT": "8183"}, DevSettings(host="0.0.0.0"))
    (sandbox,) = helpers.programs(wanted, Path("/logs"))
    assert "http://127.0.0.1:8183/webhooks/stripe" in sandbox.argv
    assert "/data/sandbox/sandbox.db" in sandbox.argv
    assert sandbox.shown_url == "http://127.0.0.1:8090/sandbox/charges"


def test_a_secret_is_made_up_once_and_kept(tmp_path: Path) -> None:
    (name,) = plan_of(registry(), DevSettings(), tmp_path, {}).secrets
    first = helpers.kept_environment([name], tmp_path, {})
    assert len(first["STRIPE_METADATA_KEY"]) == 64
    assert helpers.kept_environment([name], tmp_path, {}) == first
    (kept,) = tmp_path.iterdir()
    assert kept.name == "stripe-metadata-key"
    assert kept.stat().st_mode & 0o777 == 0o600


def test_the_user_s_own_secret_wins(tmp_path: Path) -> None:
    given = {"STRIPE_METADATA_KEY": "the key of the user"}
    assert helpers.kept_environment(["STRIPE_METADATA_KEY"], tmp_path, given) == given
    assert list(tmp_path.iterdir()) == []
