"""compose.yaml, as Compose reads it where none of its variables is set."""

import re
from pathlib import Path
from typing import Any, Final

import yaml

COMPOSE_FILE: Final = Path(__file__).parents[2] / "compose.yaml"
VARIABLE: Final = re.compile(r"(?<!\$)\$\{([A-Z_]+):-([^}]*)\}")


def read_compose_file() -> dict[str, Any]:
    """All of it."""
    read: dict[str, Any] = interpolated(yaml.safe_load(COMPOSE_FILE.read_text()))
    return read


def interpolated(value: Any) -> Any:
    """A part of it with the defaults of the variables."""
    if isinstance(value, dict):
        return {key: interpolated(element) for key, element in value.items()}
    if isinstance(value, list):
        return [interpolated(element) for element in value]
    return VARIABLE.sub(r"\2", value).replace("$$", "$") if isinstance(value, str) else value
