"""The directory of a run: its lock, its file of addresses, its logs, its data."""

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from shlex import quote
from typing import Final

from coordinator.dev.servers.server import make_passable
from coordinator.runtime.own_descriptors import OwnDescriptor
from coordinator.service.errors import ConfigurationError
from coordinator.service.text import in_quotes

_KEY: Final = "key"
_OWNER_PASSWORD: Final = "owner-password"
_PASSWORD_BYTES: Final = 24
_PID_BYTES_MAX: Final = 40
_FILES: Final = frozenset({"env", "env.new", "lock", _KEY, f"{_KEY}.new"})
_FOLDERS: Final = frozenset({"data", "logs", "programs", "servers"})
MADE: Final = _FILES | _FOLDERS
"""The names in the directory of every run."""


def _open_for_owner(path: str, flags: int) -> int:
    """Whoever may read a file may lock it too, and so keep a run from starting."""
    opened = os.open(path, flags, 0o600)
    # An earlier release let others read it.
    if os.fstat(opened).st_uid == os.geteuid():
        os.fchmod(opened, 0o600)
    return opened


class Workspace:
    """By default `.dev`. `kept` names the files of this application's runs, beside those of every run."""

    def __init__(self, directory: Path, kept: Collection[str] = ()) -> None:
        self.directory = directory.absolute()
        self._kept = frozenset(kept)
        self.servers = self.directory / "servers"
        self.logs = self.directory / "logs"
        self.data = self.directory / "data"
        self.environment_file = self.directory / "env"
        self.programs = self.directory / "programs"
        """A file of settings for each process, as that of `environment_file`."""
        self.docker_log = self.logs / "docker.log"
        self.is_new = _is_free(self.directory)
        """Whether nothing is there yet."""

    @property
    def sourcing(self) -> str:
        """What a shell is told to have the settings of an operator."""
        return f"source {quote(str(self.environment_file))}"

    def sourcing_of(self, program: str) -> str:
        """What a shell is told to have those of a process."""
        return f"source {quote(str(self.programs / program))}"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock it for this run. The kernel releases the lock when the process ends, however it ends.

        Raises ConfigurationError when another run has it, it has a file that no run of this application has made, or
        it cannot be had.
        """
        self.check()
        with self.used():
            make_passable(self.directory)
            self.logs.mkdir(exist_ok=True)
            lock = _open_for_owner(str(self.directory / "lock"), os.O_RDWR | os.O_CREAT)
        held = OwnDescriptor(lock)
        try:
            with self.used():
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    holder = os.pread(lock, _PID_BYTES_MAX, 0).decode(errors="replace").strip()
                    raise ConfigurationError(
                        f"process {holder or '?'} runs on {self.directory} already; "
                        "stop it first, or give another --dir and other DEV_…_PORT settings"
                    ) from None
                os.ftruncate(lock, 0)
                os.write(lock, str(os.getpid()).encode())
            try:
                yield
            except OSError as error:
                if isinstance(error.filename, str) and Path(error.filename).is_relative_to(self.directory):
                    raise self._refusal(error) from error
                raise
        finally:
            held.close()

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Within it all errors of files are those of this directory. Raises ConfigurationError, which names it."""
        try:
            yield
        except OSError as error:
            raise self._refusal(error) from error

    def _refusal(self, error: OSError) -> ConfigurationError:
        at = f" ({error.filename})" if error.filename not in (None, str(self.directory)) else ""
        return ConfigurationError(
            f"{self.directory} cannot be the directory of a run (--dir, DEV_DIRECTORY): {error.strerror or error}{at}"
        )

    def check(self) -> None:
        """Raise ConfigurationError for what can be no directory of a run of this application. Nothing is made."""
        with self.used():
            self._check()

    def _check(self) -> None:
        if self.directory.is_symlink() and not self.directory.exists():
            raise ConfigurationError(
                f"{self.directory} is a link to what is not there (--dir, DEV_DIRECTORY): remove it, or make the folder"
            )
        there = set() if self.is_new else {entry.name for entry in self.directory.iterdir()}
        # Names with a dot before them are a desktop's or an editor's.
        strange = {name for name in there - MADE - self._kept if not name.startswith(".")}
        if strange:
            raise ConfigurationError(
                f"{self.directory} has {min(strange)!r}, which no run of this application has made: name a "
                "new directory (--dir, DEV_DIRECTORY), which `coordinator dev` fills, and --clean removes"
            )
        for name in sorted(there & MADE):
            of_its_kind = Path.is_file if name in _FILES else Path.is_dir
            if not of_its_kind(self.directory / name):
                kind = "file" if name in _FILES else "folder"
                raise ConfigurationError(f"{self.directory / name} must be a {kind}, and is none: move it away")

    def write_environment(self, environment: Mapping[str, str]) -> None:
        """Write the file for `source .dev/env`, as a whole. Only we may read it, since it has passwords."""
        self._write(self.environment_file, _exports(environment))

    def write_program(self, name: str, environment: Mapping[str, str], withheld: Collection[str] = ()) -> None:
        """The same for one process: with its own accounts, and without the addresses that it does not need.

        A shell that has those `withheld` ones already, of `environment_file`, no longer has them.
        """
        with self.used():
            self.programs.mkdir(mode=0o700, exist_ok=True)
        unset = f"unset {' '.join(sorted(withheld))}\n" if withheld else ""
        self._write(self.programs / name, unset + _exports(environment))

    def read_key(self) -> str:
        """What `write_key` has kept; empty where nothing is kept."""
        with self.used():
            path = self.directory / _KEY
            return path.read_text(errors="replace") if path.exists() else ""

    def write_key(self, text: str) -> None:
        """Keep a developer's API key. Only we may read it."""
        self._write(self.directory / _KEY, text)

    def owner_password(self) -> str:
        """The password of the owner of all databases of this run's servers, made at the first run. Only we may read
        it: with it one does on these servers' machine what whoever runs them may."""
        path = self.servers / _OWNER_PASSWORD
        if not path.exists():
            make_passable(self.servers)
            self._write(path, secrets.token_urlsafe(_PASSWORD_BYTES))
        return path.read_text()

    def _write(self, path: Path, text: str) -> None:
        unfinished = path.with_name(f"{path.name}.new")
        with self.used():
            unfinished.unlink(missing_ok=True)
            with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)

    def make_data(self) -> None:
        """Make the folder of data, which only we may enter."""
        with self.used():
            self.data.mkdir(mode=0o700, exist_ok=True)

    def remove(self) -> None:
        """Remove the directory; of one that is a link, what is in it. The caller must have locked it."""
        with self.used():
            if not self.directory.is_symlink():
                shutil.rmtree(self.directory)
                return
            for entry in self.directory.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()


def _exports(environment: Mapping[str, str]) -> str:
    return "".join(f"export {key}={in_quotes(value)}\n" for key, value in environment.items())


def _is_free(path: Path) -> bool:
    """Whether there is nothing of that name. What cannot be looked at is there."""
    try:
        path.lstat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False
