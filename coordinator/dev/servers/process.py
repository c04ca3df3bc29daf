"""Child processes that cannot outlive us.

Every child has a process group of its own, so a terminal's Ctrl-C reaches only the parent. We ask the kernel
(prctl PR_SET_PDEATHSIG) to signal the child when the parent dies, even by SIGKILL. Linux sends that signal
when the *thread* that forked the child ends, and not the process. So one thread, which lives as long as the
process, forks all children, and callers may use any thread they like.
"""

import contextlib
import ctypes
import os
import pwd
import select
import signal
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from coordinator.service.errors import ConfigurationError

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_KILL_TIMEOUT_S = 10.0

_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")


@dataclass(frozen=True, slots=True)
class OsAccount:
    """The user that a child runs as."""

    name: str
    uid: int
    gid: int

    @classmethod
    def instead_of_root(cls, name: str) -> Self | None:
        """The account to change to, for servers that refuse root; None if we are not root.

        Raises ConfigurationError if the account does not exist.
        """
        if os.geteuid() != 0:
            return None
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            raise ConfigurationError(f"run as root, this server needs the user {name!r}: there is none") from None
        return cls(name, entry.pw_uid, entry.pw_gid)


class Process:
    """A child, and everything that it starts itself."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        log_path: Path,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        account: OsAccount | None = None,
        death_signal: signal.Signals = signal.SIGKILL,
    ) -> None:
        """Start it, with `environment` in place of ours. Its output is appended to `log_path`, and it dies with us.

        subprocess changes to the account, and not the server or runuser, because a change of user clears the death
        signal: we must ask for the signal afterwards.
        """
        self.argv = [str(part) for part in argv]
        self.log_path = log_path
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("ab") as log:
            self._log_start = log.tell()
            in_child = die_with_parent(death_signal)

            def start() -> subprocess.Popen[bytes]:
                return subprocess.Popen(
                    self.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    cwd=directory,
                    process_group=0,
                    user=account.uid if account else None,
                    group=account.gid if account else None,
                    extra_groups=[] if account else None,
                    preexec_fn=in_child,  # noqa: PLW1509 - what it calls takes no lock
                )

            self._popen = _spawner.submit(_quietly, start).result()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    @property
    def status(self) -> str:
        """How it ended, for people: `exit status 1`, `killed by SIGKILL`, or `running`."""
        code = self._popen.poll()
        if code is None:
            return "running"
        return f"exit status {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"

    @property
    def exit_status(self) -> int | None:
        """As subprocess has it: negative for a signal, None while it runs."""
        return self._popen.poll()

    def log_tail(self, lines_max: int = 15) -> str:
        """The last lines that this process wrote, without those of an earlier process with the same log."""
        return tail(self.log_path, lines_max, offset=self._log_start)

    def wait(self, timeout_s: float) -> bool:
        """Whether it has ended within the time."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(timeout_s)
        return not self.alive

    def stop(self, stop_signal: signal.Signals, timeout_s: float) -> None:
        """Ask it to end, and kill its processes that are left when the time is over. None of them runs afterwards."""
        with _family(self.pid) as family:
            if self.alive:
                os.kill(self.pid, signal.SIGCONT)
                os.kill(self.pid, stop_signal)
                self.wait(timeout_s)
            self._kill(family)

    def kill(self) -> None:
        """Send SIGKILL to it and to everything that it started. None of them runs afterwards."""
        if self.alive:
            # A stopped process starts nothing new while we list its descendants.
            os.kill(self.pid, signal.SIGSTOP)
        with _family(self.pid) as family:
            self._kill(family)

    def pause(self) -> None:
        """Send SIGSTOP to it and to everything that it started."""
        if self.alive:
            os.kill(self.pid, signal.SIGSTOP)
            with _family(self.pid) as family:
                _signal_all(family, signal.SIGSTOP)

    def resume(self) -> None:
        """Send SIGCONT to everything that pause() stopped."""
        if self.alive:
            with _family(self.pid) as family:
                _signal_all(family, signal.SIGCONT)
            os.kill(self.pid, signal.SIGCONT)

    def _kill(self, family: Sequence[int]) -> None:
        if self.alive:
            self._popen.kill()
            self._popen.wait(_KILL_TIMEOUT_S)
        _signal_all(family, signal.SIGKILL)
        deadline = time.monotonic() + _KILL_TIMEOUT_S
        for member in family:
            # A pidfd is readable from the moment its process is gone.
            select.select([member], [], [], max(0.0, deadline - time.monotonic()))


def tail(log_path: Path, lines_max: int = 15, *, offset: int = 0) -> str:
    """The last lines of a log, from `offset` on; an empty log says so."""
    with contextlib.suppress(FileNotFoundError), log_path.open("rb") as log:
        log.seek(offset)
        lines = log.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-lines_max:]) or "(its log is empty)"
    return "(it has no log)"


def die_with_parent(death_signal: signal.Signals) -> Callable[[], None]:
    """What a child of this process calls, so that the kernel sends it the signal when this process dies."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def in_child() -> None:
        prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:  # the parent died before the kernel knew of the signal
            os._exit(1)

    return in_child


def _quietly(start: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    with warnings.catch_warnings():
        # Python 3.12 and later warn of preexec_fn in a process with threads; ours takes no lock.
        warnings.simplefilter("ignore", DeprecationWarning)
        return start()


def descendants(pid: int) -> list[int]:
    """The processes below `pid`. Process groups do not show them: PostgreSQL's backends leave theirs."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # The command's name is in parentheses and may have any character; the parent is the second field then.
                parent = int((entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = list(children.get(pid, []))
    for member in found:
        found.extend(children.get(member, []))
    return found


@contextlib.contextmanager
def _family(pid: int) -> Iterator[list[int]]:
    """pidfds of the descendants: unlike a pid, a pidfd never names another process later."""
    with contextlib.ExitStack() as opened:
        family = []
        for member in descendants(pid):
            with contextlib.suppress(ProcessLookupError):
                family.append(os.pidfd_open(member))
                opened.callback(os.close, family[-1])
        yield family


def _signal_all(family: Sequence[int], what: signal.Signals) -> None:
    for member in family:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(member, what)
