"""The servers of payments on a developer's machine: MySQL, and the sandbox unless the environment names a provider."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from coordinator import ConfigurationError
from coordinator.dev import DevService, Helper, Place
from coordinator.settings import setting_value
from shared.payments.sandbox.defaults import API_KEY, PORT, WEBHOOK_PATH, WEBHOOK_SECRET

if TYPE_CHECKING:
    from aiohttp.web import Application


def _is_wanted(given: Mapping[str, str]) -> bool:
    key = setting_value("STRIPE_API_KEY", given)
    # The sandbox's own key is there after `source .dev/env`.
    return key == API_KEY or not (key or given.get("STRIPE_API_BASE"))


def _webhook_secret(place: Place) -> str:
    return setting_value("STRIPE_WEBHOOK_SECRET", place.given) or WEBHOOK_SECRET


def _command(place: Place) -> list[str]:
    """The directory keeps its charges. Its secret is in its environment, where `ps` does not show it."""
    command = [sys.executable, "-m", "shared.payments.sandbox"]
    command += ["--port", str(place.port), "--data", str(place.directory / "sandbox.db")]
    command += ["--webhook-url", f"{place.gateway_url}{WEBHOOK_PATH}"]
    return command


def _application(place: Place) -> "Application":
    # Whoever only plans a run needs no part of it.
    from shared.payments.sandbox.app import Sandbox  # noqa: PLC0415

    place.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Sandbox(
        place.directory / "sandbox.db",
        api_key=API_KEY,
        webhook_url=f"{place.gateway_url}{WEBHOOK_PATH}",
        webhook_secret=_webhook_secret(place),
    ).application()


def _settings(place: Place) -> dict[str, str]:
    base = place.given.get("STRIPE_API_BASE")
    if base and base.rstrip("/") != place.url:
        raise ConfigurationError(
            f"STRIPE_API_BASE is {base}, and STRIPE_API_KEY is that of the sandbox, which a run starts at {place.url}: "
            "unset STRIPE_API_BASE for the sandbox, or set STRIPE_API_KEY to a key of that provider"
        )
    return {
        "STRIPE_API_BASE": place.url,
        "STRIPE_API_KEY": API_KEY,
        "STRIPE_WEBHOOK_SECRET": _webhook_secret(place),
    }


SANDBOX: Final = Helper(
    name="sandbox",
    title="the sandbox payment provider",
    port=PORT,
    command=_command,
    settings=_settings,
    is_wanted=_is_wanted,
    application=_application,
    shown_path="/sandbox/charges",
)

DEV: Final = DevService(
    database="mysql",
    gateway_port=8083,
    metrics_port=9103,
    effects_port=9113,
    helpers=(SANDBOX,),
    # With another key, events of earlier payments would look like those of other systems.
    secrets=("STRIPE_METADATA_KEY",),
)
