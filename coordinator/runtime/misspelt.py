"""Warnings of variables that look like settings: a misspelt one would be ignored in silence."""

import os
from difflib import get_close_matches
from typing import Final

import structlog

from coordinator.runtime.loading import FILE, is_secret
from coordinator.runtime.settings import Limits

OPTIONS: Final = frozenset(
    f"{gateway}_{option}" for gateway in ("GATEWAY", "OPERATIONS") for option in ("HOST", "PORT", "METRICS_PORT")
)
"""Variables that stand for options of the command line."""

log = structlog.get_logger("settings")


def warn_of_unknown(*groups: Limits) -> None:
    """Log each variable that has a group's prefix but is none of its settings."""
    for group in groups:
        fields = type(group).model_fields
        known = {group.shown(field) for field in fields}
        known |= {group.shown(name) + FILE for name, field in fields.items() if is_secret(field)}
        prefix = group.shown("")
        for name in sorted(os.environ):
            if name.upper().startswith(prefix) and name.upper() not in known | OPTIONS:
                meant = next(iter(get_close_matches(name.upper(), known, 1)), None)
                log.warning("setting_unknown", setting=name, meant=meant)
