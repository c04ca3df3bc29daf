"""The base of all servers: a directory, a port, start and stop."""

import contextlib
import hashlib
import os
import shutil
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from coordinator.dev.servers.addresses import HOST
from coordinator.dev.servers.ports import free_port, port_is_free
from coordinator.dev.servers.process import OsAccount, Process
from coordinator.service.errors import ConfigurationError

_PROBE_INTERVAL_S = 0.05
_PORT_TIMEOUT_S = 5.0
_ELSEWHERE = Path("/var/lib/write-coordinator")
_making_directories = threading.Lock()

Report = Callable[[str, float], None]
"""Called with the name of everything that has started, and the seconds that it took."""


class Server(ABC):
    """A private instance of a server: own directory, own port, loopback only. Durability is never weakened.

    Not for two threads at once, except that kill() and stop() may interrupt start().
    """

    name: ClassVar[str]
    """The directory's and the log's name."""
    title: str
    """Its name for people."""
    account_name: ClassVar[str | None] = None
    """The account that runs it when we are root; None: root itself."""
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    death_signal: ClassVar[signal.Signals] = signal.SIGKILL
    not_ready: ClassVar[tuple[type[Exception], ...]]
    """The exceptions that the probe raises while the server does not answer."""
    start_timeout_s: float = 90.0
    stop_timeout_s: float = 30.0

    def __init__(self, directory: Path, port: int | None = None) -> None:
        self.directory = directory.absolute()
        self.port = port or free_port()
        self.log_path = self.directory / f"{self.name}.log"
        self.version = ""
        self.note: str | None = None
        """A line that the user should read, once the server has started."""
        self._process: Process | None = None
        self._interrupted = threading.Event()

    @property
    @abstractmethod
    def url(self) -> str:
        """Its address for clients."""

    @property
    def pid(self) -> int:
        """The pid of the server's main process. Raises ConfigurationError if it was never started."""
        if self._process is None:
            raise ConfigurationError(f"{self.title} was not started")
        return self._process.pid

    @property
    def pids(self) -> list[int]:
        """The main process and those started beside it, without its own children."""
        return [self._process.pid] if self._process else []

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.alive

    @property
    def status(self) -> str:
        """How its process ended, for people."""
        return self._process.status if self._process else "not started"

    @property
    def data(self) -> Path:
        """The folder of its data: below /var/lib if we are root and its user cannot enter the directory."""
        account = self._account()
        if account is None or _can_enter(account, self.directory):
            return self.directory / "data"
        return _elsewhere(self.directory, self.name)

    @property
    def description(self) -> str:
        """`PostgreSQL 15 on 127.0.0.1:5433`."""
        return f"{self.title} {self.version} on {HOST}:{self.port}"

    def log_tail(self) -> str:
        """The last lines that the running process, or the last one, wrote."""
        return self._process.log_tail() if self._process else ""

    def start(self) -> None:
        """Start it on its existing data, and return once it has answered in its own protocol. Idempotent.

        Raises ConfigurationError with the end of its log if it ends, or does not answer within `start_timeout_s`.
        """
        if self.alive:
            return
        self._interrupted.clear()
        deadline = time.monotonic() + self.start_timeout_s
        self._make_directory()
        self._await_port()
        self._prepare()
        self._process = self._launch()
        while not self._interrupted.is_set():
            if not self._process.alive:
                if not self._may_launch_again(self._process.log_tail()):
                    break
                self._process = self._launch()
            with contextlib.suppress(*self.not_ready):
                self.version = self._probe()
                if self._process.alive:
                    return
            if time.monotonic() > deadline:
                break
            self._interrupted.wait(_PROBE_INTERVAL_S)
        self._fail(self._process)

    def stop(self) -> None:
        """Stop it in order, or kill it when `stop_timeout_s` is over. None of its processes is left. Idempotent."""
        self._interrupted.set()
        if self._process is not None:
            self._process.stop(self.stop_signal, self.stop_timeout_s)

    def kill(self) -> None:
        """Send SIGKILL to all its processes; start() then recovers its data."""
        self._interrupted.set()
        if self._process is not None:
            self._process.kill()

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and answers nothing."""
        if self._process is not None:
            self._process.pause()

    def resume(self) -> None:
        """SIGCONT, after pause()."""
        if self._process is not None:
            self._process.resume()

    @abstractmethod
    def _launch(self) -> Process:
        """Start the process."""

    @abstractmethod
    def _probe(self) -> str:
        """Speak to it, finish the configuration that needs a running server, and return its version."""

    def _prepare(self) -> None:  # noqa: B027 - not every server needs it
        """Create data and configuration before the launch, unless they are there."""

    def _may_launch_again(self, log_tail: str) -> bool:
        """Whether a process that ended with this log, before it answered, ended for a temporary reason."""
        del log_tail
        return False

    def _account(self) -> OsAccount | None:
        return OsAccount.instead_of_root(self.account_name) if self.account_name else None

    def _write_for_it(self, path: Path, text: str) -> None:
        """A file that only the user who runs the server may read, such as one with a password."""
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        account = self._account()
        if account is not None:
            shutil.chown(path, account.uid, account.gid)

    def _make_directory(self) -> None:
        make_passable(self.directory)
        if self.data.parent != self.directory:
            self.note = f"user {self.account_name} cannot enter {self.directory}: the data is in {self.data}"
            make_passable(self.data.parent)

    def _await_port(self) -> None:
        """Raise ConfigurationError if the port is taken: that server would answer the probe in place of ours."""
        deadline = time.monotonic() + _PORT_TIMEOUT_S  # the rest of a killed server may still have it
        while not port_is_free(HOST, self.port):
            if self._interrupted.wait(_PROBE_INTERVAL_S) or time.monotonic() > deadline:
                raise ConfigurationError(f"{self.title} cannot start: port {self.port} of {HOST} is in use")

    def _make_data(self, *command: str | Path) -> None:
        """Run a command that fills `data.new`, and rename the result to `data`, so that `data` is never half-made."""
        unfinished = self.data.with_name(self.data.name + ".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        account = self._account()
        if account is not None:
            shutil.chown(unfinished, account.uid, account.gid)
        self._process = Process(
            command,
            log_path=self.log_path,
            directory=unfinished,
            account=account,
            death_signal=signal.SIGKILL,
        )
        if not self._process.wait(self.start_timeout_s) or self._process.exit_status != 0:
            self._fail(self._process)
        unfinished.rename(self.data)

    def _fail(self, process: Process) -> None:
        status = "was interrupted" if self._interrupted.is_set() else f"has not started ({process.status})"
        end = tail_of(process)
        self.kill()
        raise ConfigurationError(
            f"{self.title} on {HOST}:{self.port} {status}; the end of its log, {self.log_path}:\n{end}"
        )


def tail_of(process: Process) -> str:
    """The end of a process's log, indented to stand below a message."""
    return "\n".join(f"    {line}" for line in process.log_tail(40).splitlines())


def remove_server(directory: Path, name: str) -> None:
    """Remove a server's data, wherever it is. It must be stopped, and need not be installed."""
    elsewhere = _elsewhere(directory, name)
    for leftover in elsewhere.parent.glob(f"{elsewhere.name}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
    shutil.rmtree(directory, ignore_errors=True)


def _elsewhere(directory: Path, name: str) -> Path:
    key = hashlib.sha256(str(directory.resolve()).encode()).hexdigest()[:16]
    return _ELSEWHERE / f"{name}-{key}"


def make_passable(directory: Path) -> None:
    """Create a directory, and those missing above it, with rights that let the servers' own accounts pass."""
    with _making_directories:
        for missing in reversed([place for place in (directory, *directory.parents) if not place.exists()]):
            missing.mkdir()
            missing.chmod(0o755)


def _can_enter(account: OsAccount, directory: Path) -> bool:
    """Whether the account may pass through every directory on the way; we open those that we create."""
    for parent in (directory, *directory.parents):
        with contextlib.suppress(FileNotFoundError):
            status = parent.stat()
            bit = 0o100 if status.st_uid == account.uid else 0o010 if status.st_gid == account.gid else 0o001
            if not status.st_mode & bit:
                return False
    return True
