"""A Debian of another release below a folder, with a copy of this checkout in it."""

import fcntl
import filecmp
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from coordinator.dev.install import Installation, NeededProgram
from coordinator.dev.servers.process import descendants
from coordinator.service.errors import ConfigurationError
from tests.support.interrupts import sigterm_interrupts
from tests.support.machine import NotPossibleHere, require_mounts
from tests.support.mirror import mirror_of_apt, require_release

CHECKOUT = Path(__file__).parents[2]
_SCRIPTS = Path(__file__).parent
_DEBOOTSTRAP = NeededProgram(("debootstrap",), "debootstrap")
_STOP_TIMEOUT_S = 60.0
_RECIPE = ".recipe"
"""In a finished chroot: what it was made of."""
_TOOLS = ("git", "make", "procps", "e2fsprogs", "mount", "util-linux", "curl", "amqp-tools")


@dataclass(frozen=True, slots=True)
class Release:
    """A release of Debian, and the packages that the tests need of it."""

    name: str
    servers: tuple[str, ...]
    python: str
    python_packages: tuple[str, ...]

    @property
    def packages(self) -> tuple[str, ...]:
        return (*self.servers, *self.python_packages, *_TOOLS)


class Chroot:
    """That of a release, below a folder that keeps it from run to run. Needs root, apt and a mirror of Debian."""

    def __init__(self, release: Release, cache: Path) -> None:
        self._release = release
        self.root = cache / release.name
        self.checkout = self.root / "app"

    def run(self, command: str) -> int:
        """The status of a command of the shell's in a copy of this checkout. It gets our standard output.

        Raises NotPossibleHere on a machine that lets nobody make one, and ConfigurationError if it fails.
        """
        require_mounts()
        self.root.parent.mkdir(parents=True, exist_ok=True)
        with _alone(self.root.with_suffix(".lock")):
            self._make()
            self.copy_checkout()
            return self._run(command)

    def _make(self) -> None:
        """Make it, unless it is there and made of the same."""
        recipe = self._recipe()
        made_of = self.root / _RECIPE
        if made_of.exists() and made_of.read_text() == recipe:
            return
        mirror = mirror_of_apt()
        if mirror is None:
            raise NotPossibleHere("a chroot is made with apt's mirror of Debian, and apt's sources here name none")
        require_release(mirror, self._release.name)
        with TemporaryDirectory(prefix="write-coordinator-") as directory:
            Installation(print, Path(directory) / "install.log", (_DEBOOTSTRAP,)).run()
        _remove(self.root)
        log_path = self.root.with_suffix(".log")
        print(f"making {self.root} of Debian {self._release.name}, in some minutes; the output is in {log_path}")
        with log_path.open("wb") as log:
            argv = _contained("make.sh", self.root, self._release.name, mirror, *self._release.packages)
            made = subprocess.run(argv, stdout=log, stderr=subprocess.STDOUT, check=False)
        if made.returncode:
            end = "\n".join(log_path.read_text(errors="replace").splitlines()[-15:])
            raise ConfigurationError(f"{self.root} could not be made; the end of {log_path}:\n{end}")
        made_of.write_text(recipe)

    def copy_checkout(self) -> None:
        """All files that git has or would take.

        What is the same stays as it was, and so does the virtual environment of an earlier run, if it was made of that.
        """
        app = self.checkout
        names = _files_of(CHECKOUT)
        seen = []
        for folder, folders, files in os.walk(app):
            if Path(folder) == app and ".venv" in folders:
                folders.remove(".venv")
            seen.append(Path(folder))
            for file in files:
                path = Path(folder, file)
                if str(path.relative_to(app)) not in names:
                    path.unlink()
        for path in reversed(seen):
            with suppress(OSError):  # it is not empty
                path.rmdir()
        for name in names:
            source, target = CHECKOUT / name, app / name
            if not target.exists() or not filecmp.cmp(source, target, shallow=False):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
            shutil.copymode(source, target)

    def _run(self, command: str) -> int:
        argv = _contained("run.sh", self.root, command, *_paths_of_pip())
        # A session of its own: a terminal's Ctrl-C comes to us, and we say what is to be done.
        running = subprocess.Popen(argv, env=self._environment(), stdin=subprocess.DEVNULL, start_new_session=True)
        with sigterm_interrupts():
            try:
                return running.wait()
            except KeyboardInterrupt:
                print("stopping", flush=True)
                _stop(running)
                return 128 + signal.SIGINT

    def _environment(self) -> dict[str, str]:
        """Nothing of ours but what configures pip and says that this is CI."""
        taken = {name: value for name, value in os.environ.items() if name.startswith("PIP_") or name == "CI"}
        return taken | {
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHON": self._release.python,
        }

    def _recipe(self) -> str:
        script = hashlib.sha256((_SCRIPTS / "make.sh").read_bytes()).hexdigest()
        return json.dumps([self._release.name, *self._release.packages, script])


@contextmanager
def _alone(lock_path: Path) -> Iterator[None]:
    """Raises ConfigurationError if another run has the lock."""
    with lock_path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(f"another run has {lock_path}: wait until it has ended") from None
        yield


def _files_of(checkout: Path) -> set[str]:
    """Those that git has or would take, by their paths in the checkout."""
    git = ["git", "-c", "safe.directory=*", "-C", str(checkout)]  # with sudo the checkout is another user's
    listed = subprocess.run(
        [*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"], capture_output=True, check=False
    )
    if listed.returncode:
        raise ConfigurationError(f"git says which files to copy, and it does not here: {os.fsdecode(listed.stderr)}")
    names = filter(None, os.fsdecode(listed.stdout).split("\0"))
    return {name for name in names if (checkout / name).is_file()}  # one that was just removed is still listed


def _contained(script: str, *arguments: str | Path) -> list[str]:
    """A script in namespaces of its own, that dies with us and all of whose processes die with it."""
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    return ["setpriv", "--pdeathsig", "KILL", *unshare, "sh", str(_SCRIPTS / script), *map(str, arguments)]


def _paths_of_pip() -> list[Path]:
    """pip's configuration on this machine: its files, and what they and the environment name."""
    pip = [sys.executable, "-m", "pip", "config"]
    found: dict[Path, None] = {}
    for line in _output(pip, "debug"):
        name, separator, exists = line.strip().rpartition(", exists: ")
        if separator and exists == "True":
            found[Path(name)] = None
    for line in _output(pip, "list"):
        for value in line.partition("=")[2].strip("'\"").split():
            # The pages of an index link to files beside it.
            path = Path(urlsplit(value).path).parent if value.startswith("file:") else Path(value)
            if path.is_absolute() and path.exists():
                found[path] = None
    return list(found)


def _output(command: Sequence[str], argument: str) -> list[str]:
    return subprocess.run([*command, argument], check=True, capture_output=True, text=True).stdout.splitlines()


def _remove(root: Path) -> None:
    """Nothing that is mounted below it: a chroot that was made by hand may have this machine's devices there."""
    subprocess.run(["rm", "--recursive", "--force", "--one-file-system", str(root)], check=True)


def _stop(running: "subprocess.Popen[bytes]") -> None:
    """Let the command tidy up, for a bounded time."""
    for pid in descendants(running.pid)[:1]:
        os.kill(pid, signal.SIGTERM)
    try:
        running.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        running.kill()  # and with it everything in there
        running.wait()


def cache_directory(environment: Mapping[str, str]) -> Path:
    """Where chroots are kept: 1.6 GB each."""
    home = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "write-coordinator" / "current"
