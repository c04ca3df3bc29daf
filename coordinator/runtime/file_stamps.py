"""What tells that files have changed."""

from collections.abc import Iterable
from pathlib import Path

Stamp = tuple[tuple[int, int, int] | None, ...]
"""Of each file its time, size and number; None: it is not there."""


def stamp_of(paths: Iterable[str]) -> Stamp:
    """How the files are now."""
    return tuple(_of_file(path) for path in paths)


def _of_file(path: str) -> tuple[int, int, int] | None:
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
