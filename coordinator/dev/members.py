"""The supervisor's view of servers and programs, and its lines about them to the user."""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from coordinator.dev.servers.server import Report
from coordinator.ending import OutputLost


class Member(Protocol):
    """A process that the supervisor watches over: a server, or a program of ours."""

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def log_path(self) -> Path: ...
    @property
    def alive(self) -> bool: ...
    @property
    def status(self) -> str: ...
    @property
    def pids(self) -> list[int]: ...
    def log_tail(self) -> str: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...


class Servers(Protocol):
    """A ServerSet, or the same in Docker."""

    @property
    def servers(self) -> Sequence[Member]: ...
    @property
    def notes(self) -> Sequence[str]: ...
    def start(self, report: Report | None = None) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def environment(self, account: str = ...) -> dict[str, str]: ...
    def migration_environment(self) -> dict[str, str]: ...


def say(line: str, *, is_error: bool = False) -> None:
    """Print one line, an error on standard error. If the terminal is gone, or its disk is full, the run goes on, and
    can stop in order."""
    with contextlib.suppress(OSError, OutputLost):
        print(line, file=sys.stderr if is_error else sys.stdout, flush=True)


def report(what: str, seconds: float) -> None:
    """Print a step, and how long it took."""
    say(f"{what} … {seconds:.1f} s")


def end_of_log(member: Member) -> str:
    """The path of a member's log, and its last lines."""
    lines = "\n".join(f"    {line}" for line in member.log_tail().splitlines())
    return f"the end of {member.log_path}:\n{lines}"
