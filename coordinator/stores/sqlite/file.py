"""The file of a database. Whoever opens it must come to the same one: its journals are found by its name."""

import os
from pathlib import Path
from typing import TypeAlias

from coordinator.service.errors import ConfigurationError

_IN_MEMORY = ("", ":memory:")

Identity: TypeAlias = tuple[int, int]
"""The device and the number of a file, whatever its name."""


def identity_of(path: str) -> Identity | None:
    """None: there is no such file."""
    try:
        found = os.stat(path)  # noqa: PTH116  # each batch asks: a Path costs as much as the call
    except OSError:
        return None
    return found.st_dev, found.st_ino


def file_of(database: str) -> str:
    """The path of an address, without symbolic links, so that two processes see that they have one file.

    Raises ConfigurationError for a file with several names (hard links): SQLite would keep a journal for each of them.
    """
    if database in _IN_MEMORY:
        return database
    path = Path(database).resolve()
    try:
        names = path.stat().st_nlink
    except OSError:
        # It is to be made, or whoever opens it says why he cannot.
        return str(path)
    if names > 1 and path.is_file():
        raise ConfigurationError(
            f"{path} has {names} names (hard links), and SQLite keeps a journal for each: what is written by one is "
            "lost for the others. Remove the other names, or copy the file"
        )
    return str(path)
