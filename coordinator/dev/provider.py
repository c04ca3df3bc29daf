"""The payment provider of a run: the sandbox, unless the user's environment names another."""

import sys
from collections.abc import Mapping
from pathlib import Path

from coordinator.dev.programs import Program
from coordinator.dev.sandbox.defaults import API_KEY, WEBHOOK_PATH, WEBHOOK_SECRET
from coordinator.dev.servers.addresses import HOST
from coordinator.dev.settings import DevSettings

_STOP_TIMEOUT_S = 5.0


def is_sandbox(given: Mapping[str, str]) -> bool:
    """Whether the sandbox is to run. `given` is the user's environment."""
    key = given.get("STRIPE_API_KEY")
    # The sandbox's own key is there after `source .dev/env`.
    return key == API_KEY or not (key or given.get("STRIPE_API_BASE"))


def environment(settings: DevSettings, given: Mapping[str, str]) -> dict[str, str]:
    """What makes our processes use the sandbox; nothing where the user's own settings are to be used."""
    if not is_sandbox(given):
        return {}
    return {
        "STRIPE_API_BASE": f"http://{HOST}:{settings.sandbox_port}",
        "STRIPE_API_KEY": API_KEY,
        "STRIPE_WEBHOOK_SECRET": given.get("STRIPE_WEBHOOK_SECRET") or WEBHOOK_SECRET,
    }


def sandboxes(settings: DevSettings, directory: Path, logs: Path, given: Mapping[str, str]) -> list[Program]:
    """The sandbox, or none. What it charged is kept in the directory."""
    if not is_sandbox(given):
        return []
    found = environment(settings, given)
    gateway = HOST if settings.host == "0.0.0.0" else settings.host
    command = [sys.executable, "-m", "coordinator.dev.sandbox"]
    command += ["--port", str(settings.sandbox_port), "--data", str(directory / "sandbox" / "sandbox.db")]
    command += ["--webhook-url", f"http://{gateway}:{settings.payments_port}{WEBHOOK_PATH}"]
    command += ["--webhook-secret", found["STRIPE_WEBHOOK_SECRET"]]
    return [
        Program(
            "sandbox",
            command,
            base_url=found["STRIPE_API_BASE"],
            log_path=logs / "sandbox.log",
            stop_timeout_s=_STOP_TIMEOUT_S,
        )
    ]
