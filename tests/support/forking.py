"""`python -m tests.support.forking SOCKET`: the process that forks for `forks.py`.

Each connection asks for one program, gets its process's number and then, when it ends, its exit status.
"""

import gc
import json
import os
import runpy
import selectors
import signal
import socket
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from coordinator.dev.servers.process import die_with_parent

IMPORTED = (
    "coordinator.cli",
    "coordinator.effects.process",
    "coordinator.http.main",
    "coordinator.operate.command",
    "coordinator.operate.dead",
    "coordinator.operations.main",
    "coordinator.stores.mongodb.store",
    "coordinator.stores.mysql.reading",
    "coordinator.stores.mysql.store",
    "coordinator.stores.postgresql.store",
    "coordinator.transports.rabbitmq.consumer",
    "coordinator.transports.rabbitmq.effects.transport",
    "coordinator.transports.rabbitmq.writes",
    "coordinator.worker.process",
    "gateways.app",
    "shared.payments.sandbox.app",
    "sqlalchemy.ext.asyncio",
)
"""What our programs import before they do anything, and not the programs themselves: each is a main module."""


class Request(NamedTuple):
    """A program to run: what follows `python -m`, where its output goes, and its whole environment."""

    module: list[str]
    log: str
    environment: dict[str, str]


class Fork(NamedTuple):
    """A process, what is readable when it has ended, and whoever asked for it."""

    pid: int
    pidfd: int
    connection: socket.socket

    def close(self) -> None:
        os.close(self.pidfd)
        self.connection.close()


def main(path: str) -> None:
    for name in IMPORTED:
        import_module(name)
    # What is there now is never garbage, and a fork that looked at it would copy it.
    gc.collect()
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{path}.new")
        listening.listen(64)
        # Whoever finds it can connect to it.
        Path(f"{path}.new").rename(path)
        request = _next_fork(listening)
    _run(request)


def _next_fork(listening: socket.socket) -> Request:
    """Fork for whoever asks. Returns in each fork, with what it is to run; in this process never."""
    in_child = die_with_parent(signal.SIGKILL)
    selector = selectors.DefaultSelector()
    selector.register(listening, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            fork: Fork | None = key.data
            if fork is None:
                connection, _ = listening.accept()
                with connection.makefile("r") as lines:
                    request = Request(**json.loads(lines.readline()))
                pid = os.fork()
                if pid == 0:
                    in_child()
                    others = [other.data for other in selector.get_map().values() if other.data]
                    selector.close()
                    connection.close()
                    for other in others:
                        other.close()
                    return request
                connection.sendall(f"{pid}\n".encode())
                fork = Fork(pid, os.pidfd_open(pid), connection)
                selector.register(fork.pidfd, selectors.EVENT_READ, fork)
            elif key.fd == fork.pidfd:
                selector.unregister(fork.pidfd)
                _send_status(fork)
                # Its end is readable when the status was read; until then nobody else may get this number.
                selector.register(fork.connection, selectors.EVENT_READ, fork)
            else:
                selector.unregister(fork.connection)
                fork.close()
                os.waitpid(fork.pid, 0)


def _send_status(fork: Fork) -> None:
    found = os.waitid(os.P_PID, fork.pid, os.WEXITED | os.WNOWAIT)
    assert found is not None
    status = found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
    with suppress(OSError):  # nobody may want to know any more
        fork.connection.sendall(f"{status}\n".encode())


def _run(request: Request) -> None:
    os.setpgid(0, 0)
    log = os.open(request.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, ours in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(descriptor, ours)
    os.close(log)
    os.close(nothing)
    os.environ.clear()
    os.environ.update(request.environment)
    program, *arguments = request.module
    sys.argv = [program, *arguments]
    runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1])
