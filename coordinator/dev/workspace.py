"""The directory of a run: its lock, its file of addresses, its logs, its data."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

from coordinator.dev.servers.server import make_passable
from coordinator.service.errors import ConfigurationError

MADE: Final = frozenset({"data", "env", "env.new", "lock", "logs", "servers"})
"""The names in the directory of every run."""


class Workspace:
    """By default `.dev`. `kept` names the files of this application's runs, beside those of every run."""

    def __init__(self, directory: Path, kept: Collection[str] = ()) -> None:
        self.directory = directory.absolute()
        self._kept = frozenset(kept)
        self.servers = self.directory / "servers"
        self.logs = self.directory / "logs"
        self.data = self.directory / "data"
        self.environment_file = self.directory / "env"
        self.docker_log = self.logs / "docker.log"
        self.is_new = not self.directory.exists()
        """Whether this run has created it."""

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock it for this run. The kernel releases the lock when the process ends, however it ends.

        Raises ConfigurationError when another run has it, it has a file that no run of this application has made, or
        it cannot be had.
        """
        try:
            self._make()
            lock = (self.directory / "lock").open("a+")
        except OSError as error:
            raise ConfigurationError(
                f"{self.directory} cannot be the directory of a run (--dir, DEV_DIRECTORY): {error.strerror}"
            ) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                raise ConfigurationError(
                    f"process {lock.read().strip() or '?'} runs on {self.directory} already; "
                    "stop it first, or give another --dir and other DEV_…_PORT settings"
                ) from None
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield

    def _make(self) -> None:
        there = {entry.name for entry in self.directory.iterdir()} if self.directory.exists() else set()
        # Names with a dot before them are a desktop's or an editor's.
        strange = {name for name in there - MADE - self._kept if not name.startswith(".")}
        if strange:
            raise ConfigurationError(
                f"{self.directory} has {min(strange)!r}, which no run of this application has made: name a "
                "new directory (--dir, DEV_DIRECTORY), which `coordinator dev` fills, and --clean removes"
            )
        make_passable(self.directory)
        self.logs.mkdir(exist_ok=True)

    def write_environment(self, environment: Mapping[str, str]) -> None:
        """Write the file for `source .dev/env`, as a whole. Only we may read it, since it has passwords."""
        unfinished = self.environment_file.with_name("env.new")
        unfinished.unlink(missing_ok=True)
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.writelines(f"export {key}={quoted(value)}\n" for key, value in environment.items())
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self.environment_file)

    def remove(self) -> None:
        """Remove the directory. The caller must have locked it."""
        shutil.rmtree(self.directory)


def quoted(value: str) -> str:
    """For a POSIX shell: between single quotes nothing is special but the single quote."""
    escaped = value.replace("'", "'\\''")
    return f"'{escaped}'"
