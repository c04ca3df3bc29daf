"""The payment provider of a run: the sandbox, unless the user's environment names another."""

import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

from coordinator.dev.programs import Program
from coordinator.dev.servers.addresses import HOST
from coordinator.dev.settings import DevSettings
from shared.payments.sandbox.defaults import API_KEY, WEBHOOK_PATH, WEBHOOK_SECRET

_STOP_TIMEOUT_S = 5.0
_METADATA_KEY = "STRIPE_METADATA_KEY"


def is_sandbox(given: Mapping[str, str]) -> bool:
    """Whether the sandbox is to run. `given` is the user's environment."""
    key = given.get("STRIPE_API_KEY")
    # The sandbox's own key is there after `source .dev/env`.
    return key == API_KEY or not (key or given.get("STRIPE_API_BASE"))


def kept_environment(directory: Path, given: Mapping[str, str]) -> dict[str, str]:
    """The key that marks what is ours at the provider: the user's, or one that is made once and kept in the directory.

    With another key the events of earlier payments would be taken for those of other systems.
    """
    if given.get(_METADATA_KEY):
        return {_METADATA_KEY: given[_METADATA_KEY]}
    kept = directory / "stripe-metadata-key"
    if not kept.exists():
        unfinished = kept.with_suffix(".new")
        unfinished.unlink(missing_ok=True)
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(kept)
    return {_METADATA_KEY: kept.read_text().strip()}


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
    command = [sys.executable, "-m", "shared.payments.sandbox"]
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
