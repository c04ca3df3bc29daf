"""Payments of a developer's run go to the sandbox; with a Stripe key in the environment they go to Stripe."""

from pathlib import Path

import pytest

from coordinator.dev import provider
from coordinator.dev.settings import DevSettings
from coordinator.runtime.settings import StripeSettings, load


def test_without_settings_of_their_own_our_processes_use_the_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in provider.environment(DevSettings(sandbox_port=8190), {}).items():
        monkeypatch.setenv(name, value)
    settings = load(StripeSettings)
    assert settings.api_base == "http://127.0.0.1:8190"
    assert settings.api_key is not None
    assert settings.webhook_secret is not None


@pytest.mark.parametrize("name", ["STRIPE_API_KEY", "STRIPE_API_BASE"])
def test_a_provider_in_the_users_environment_wins(name: str) -> None:
    given = {name: "the user's"}
    assert provider.environment(DevSettings(), given) == {}
    assert provider.sandboxes(DevSettings(), Path("/data"), Path("/logs"), given) == []


def test_the_addresses_of_an_earlier_run_in_the_environment_do_not_switch_the_sandbox_off() -> None:
    sourced = provider.environment(DevSettings(), {})
    assert provider.environment(DevSettings(), sourced) == sourced
    assert len(provider.sandboxes(DevSettings(), Path("/data"), Path("/logs"), sourced)) == 1


def test_the_sandbox_signs_with_the_users_secret_where_there_is_one() -> None:
    given = {"STRIPE_WEBHOOK_SECRET": "whsec_of_the_user", "STRIPE_API_KEY": ""}
    (sandbox,) = provider.sandboxes(DevSettings(), Path("/data"), Path("/logs"), given)
    assert sandbox.argv[sandbox.argv.index("--webhook-secret") + 1] == "whsec_of_the_user"
    assert provider.environment(DevSettings(), given)["STRIPE_WEBHOOK_SECRET"] == "whsec_of_the_user"


def test_the_sandbox_sends_events_to_the_gateway_and_keeps_its_charges_in_the_runs_directory() -> None:
    settings = DevSettings(host="0.0.0.0", payments_port=8183)
    (sandbox,) = provider.sandboxes(settings, Path("/data"), Path("/logs"), {})
    assert "http://127.0.0.1:8183/webhooks/stripe" in sandbox.argv
    assert "/data/sandbox/sandbox.db" in sandbox.argv


def test_the_key_of_what_is_ours_is_made_once_and_kept(tmp_path: Path) -> None:
    first = provider.kept_environment(tmp_path, {})
    assert len(first["STRIPE_METADATA_KEY"]) == 64
    assert provider.kept_environment(tmp_path, {}) == first
    (kept,) = tmp_path.iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600


def test_the_user_s_own_key_wins(tmp_path: Path) -> None:
    given = {"STRIPE_METADATA_KEY": "the key of the user"}
    assert provider.kept_environment(tmp_path, given) == given
    assert list(tmp_path.iterdir()) == []
