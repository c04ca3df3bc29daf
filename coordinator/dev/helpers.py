"""The helpers of a run, and the settings that all processes get from them."""

import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from coordinator.dev.plan import PlannedHelper, secret_file, unfinished
from coordinator.dev.programs import Program
from coordinator.runtime.loading import FILE

_STOP_TIMEOUT_S = 5.0


def programs(helpers: Sequence[PlannedHelper], logs: Path) -> list[Program]:
    """One for each."""
    return [
        Program(
            planned.helper.name,
            list(planned.helper.command(planned.place)),
            base_url=planned.place.url,
            ready_path=planned.helper.ready_path,
            shown_path=planned.helper.shown_path,
            log_path=logs / f"{planned.helper.name}.log",
            stop_timeout_s=_STOP_TIMEOUT_S,
        )
        for planned in helpers
    ]


def environment(helpers: Sequence[PlannedHelper]) -> dict[str, str]:
    """The settings with which our processes use them."""
    found: dict[str, str] = {}
    for planned in helpers:
        found |= planned.helper.settings(planned.place)
    return found


def kept_environment(names: Sequence[str], directory: Path, given: Mapping[str, str]) -> dict[str, str]:
    """The values of settings that are secrets: the user's, or values made up once and kept in the directory.

    The user's may stand in files of his own, which every process finds by itself.
    """
    return {
        name: given.get(name) or _kept(directory / secret_file(name)) for name in names if not given.get(name + FILE)
    }


def _kept(path: Path) -> str:
    if not path.exists():
        new = path.with_name(unfinished(path.name))
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    return path.read_text().strip()
