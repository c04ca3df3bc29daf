"""Processes of ours as forks of one that has imported what they need.

A process that starts by itself imports for most of a second of a processor's time before it does anything of its own,
and the tests of the whole system start hundreds. A fork is the same program from there on: `python -m …` as its main
module, with an environment, an output and an exit status of its own. `forking.py` is the process that forks.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import rmtree
from threading import Event, Lock
from time import monotonic
from typing import Self, cast

from coordinator.dev.servers.process import Process

START_TIMEOUT_S = 60.0


class Forks:
    """Starts the process that forks with the first fork; it ends with us."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="write-coordinator-forks-"))
        self._path = self._directory / "socket"
        self._process: Process | None = None
        self._starting = Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
        rmtree(self._directory)

    def run(self, module: Sequence[str], log_path: Path, environment: Mapping[str, str]) -> Process:
        """Run `python -m` with these arguments."""
        with self._starting:
            self._start()
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(START_TIMEOUT_S)
        connection.connect(str(self._path))
        return _ForkedProcess(connection, module, log_path, environment)

    def _start(self) -> None:
        if self._process is not None:
            return
        self._process = Process(
            [sys.executable, "-m", "tests.support.forking", str(self._path)],
            log_path=self._directory / "log",
            # Read when Python starts, and so not by its forks.
            environment={"PATH": "/usr/bin:/bin", "PYTHONUNBUFFERED": "1"},
        )
        deadline = monotonic() + START_TIMEOUT_S
        while not self._path.exists():
            assert self._process.alive, self._process.log_tail(40)
            assert monotonic() < deadline, self._process.log_tail(40)
            Event().wait(0.05)


class _ForkedProcess(Process):
    """A fork, which has another parent than us and is otherwise like a child of ours."""

    def __init__(
        self, connection: socket.socket, module: Sequence[str], log_path: Path, environment: Mapping[str, str]
    ) -> None:
        self.argv = [sys.executable, "-m", *module]
        self.log_path = log_path
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("ab") as log:
            self._log_start = log.tell()
        request = {"module": list(module), "log": str(log_path.absolute()), "environment": dict(environment)}
        connection.sendall(json.dumps(request).encode() + b"\n")
        # It has what `Process` uses of a Popen.
        self._popen = cast("subprocess.Popen[bytes]", _Fork(connection))


class _Fork:
    """As much of a Popen as is needed. The fork stays a zombie, whose number is no other's, until we know its end."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lines = connection.makefile("r")
        self.pid = int(self._lines.readline())
        self._status: int | None = None

    def poll(self) -> int | None:
        if self._status is None and select.select([self._connection], [], [], 0)[0]:
            self._end()
        return self._status

    def wait(self, timeout: float) -> int:
        if self._status is None and not select.select([self._connection], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        status = self.poll()
        assert status is not None
        return status

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def _end(self) -> None:
        said = self._lines.readline()
        # Without a word the process that forks is dead, and this one with it.
        self._status = int(said) if said else -signal.SIGKILL
        self._lines.close()
        self._connection.close()
