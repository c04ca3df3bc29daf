"""The file of a database. Whoever opens it must come to the same one: its journals are found by its name."""

import os
from pathlib import Path
from typing import TypeAlias

from coordinator.service.errors import ConfigurationError

_IN_MEMORY = ("", ":memory:")
_ENDS_WITH_ITS_PROCESS = (
    "a database in memory ends with its process, and no other process sees it: name a file, such as "
    "sqlite:///service.sqlite"
)

Identity: TypeAlias = tuple[int, int]
"""The device and the number of a file, whatever its name."""


def identity_of(path: str) -> Identity | None:
    """None: there is no such file."""
    try:
        found = os.stat(path)  # noqa: PTH116  # each batch asks: a Path costs as much as the call
    except OSError:
        return None
    return found.st_dev, found.st_ino


def make_file(path: str) -> None:
    """Make a file that has nothing in it, for a new database; one that is there stays as it is, its rights too.

    Only its user may read it. SQLite gives the rights of the file to the journals beside it.
    Raises ConfigurationError.
    """
    if path in _IN_MEMORY:
        raise ConfigurationError(_ENDS_WITH_ITS_PROCESS)
    if identity_of(path) is not None:
        return
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    except OSError as error:
        raise ConfigurationError(f"the file {path} cannot be made: {error.strerror}") from None


def check_there(path: str) -> None:
    """Raise ConfigurationError if there is no such file: whoever opens it would make one that has nothing in it."""
    if path in _IN_MEMORY:
        raise ConfigurationError(_ENDS_WITH_ITS_PROCESS)
    if identity_of(path) is None:
        raise ConfigurationError(missing(path))


def missing(path: str) -> str:
    """What to say of a file that is not there."""
    return f"there is no file {path}: correct the address, or make the file with `coordinator migrate`"


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
