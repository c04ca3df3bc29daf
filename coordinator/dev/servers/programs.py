"""Finds the servers' programs: on PATH, or where Debian puts those that it keeps off PATH."""

import re
import shutil
import sys
from pathlib import Path

from coordinator.service.errors import ConfigurationError

STAND_IN = "secantusd-py"
"""What stands in for MongoDB where no mongod is installed."""

ROOT = Path("/")
DEBIAN_PLACES = ("usr/lib/rabbitmq/bin", "usr/sbin", "usr/bin", "usr/local/sbin")
_POSTGRESQL_PLACE = "usr/lib/postgresql"


def find(*names: str) -> Path | None:
    """The first of these programs that is installed; of PostgreSQL's versions the newest."""
    versions = sorted((ROOT / _POSTGRESQL_PLACE).glob("*/bin"), key=_version, reverse=True)
    folders = (Path(sys.executable).parent, *versions, *(ROOT / place for place in DEBIAN_PLACES))
    places = ":".join(map(str, folders))
    for name in names:
        # Debian's /usr/sbin/rabbitmq-server is a wrapper that changes user and directory: the real one first.
        on_path = None if name.startswith("rabbitmq") else shutil.which(name)
        found = on_path or shutil.which(name, path=places) or shutil.which(name)
        if found:
            return Path(found)
    return None


def require(*names: str) -> Path:
    """As find(). Raises ConfigurationError if none is installed."""
    found = find(*names)
    if found is None:
        raise ConfigurationError(f"{' or '.join(names)} is not installed")
    return found


def _version(place: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", place.parent.name))
