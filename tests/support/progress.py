"""Progress of a test run whose output goes to a file: a line now and then, since nobody sees a bar there."""

import io
import os
import sys
import threading
import time
from collections.abc import Callable

import pytest

EVERY_S = 20.0


class Progress:
    """A plugin that counts the tests, in the process that reports them; `line` says how far they are."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._began_s = now_s()
        self._session: pytest.Session | None = None
        self._running: dict[str, float] = {}
        self._done: set[str] = set()
        self._failed: dict[str, None] = {}

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self._session = session

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._failed[report.nodeid] = None

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._running[nodeid] = self._now_s()

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._failed[report.nodeid] = None
        if report.when not in ("setup", "call", "teardown"):  # its process died with it
            self.pytest_runtest_logfinish(report.nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._running.pop(nodeid, None)
        self._done.add(nodeid)

    def line(self) -> str:
        """Tests done of all, failures with the last one's name, and each test that runs with how long it has."""
        now_s = self._now_s()
        parts = [f"{_minutes(now_s - self._began_s)} {len(self._done)} of {self._total} tests done"]
        failed = [*self._failed]
        parts.append(f"{len(failed)} failed" + (f" (last: {failed[-1]})" if failed else ""))
        parts += [f"running {_minutes(now_s - at_s)} {nodeid}" for nodeid, at_s in [*self._running.items()]]
        return ", ".join(parts)

    @property
    def _total(self) -> int | str:
        return (self._session and self._session.testscollected) or "?"


class Ticker:
    """A plugin that writes a line every so often, from a thread: no hook is called during a long test."""

    def __init__(self, line: Callable[[], str], every_s: float, output: int) -> None:
        self._line = line
        self._every_s = every_s
        self._output = output
        """A descriptor of its own: that of stdout is another file's while a test's output is captured."""
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._thread.start()

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logfinish(self) -> None:
        """Show the dots too, which wait in a buffer when stdout is a file."""
        sys.stdout.flush()

    def pytest_unconfigure(self) -> None:
        self._is_over.set()
        self._thread.join()
        os.close(self._output)

    def _run(self) -> None:
        while not self._is_over.wait(self._every_s):
            os.write(self._output, f"\n{self._line()}\n".encode(errors="backslashreplace"))


def report_progress(config: pytest.Config, every_s: float = EVERY_S) -> None:
    """Begin to, unless a terminal shows it, or another process does: to be called by `pytest_configure`."""
    if hasattr(config, "workerinput") or sys.stdout.isatty():
        return
    try:
        output = os.dup(sys.stdout.fileno())
    except io.UnsupportedOperation:
        return
    progress = Progress()
    config.pluginmanager.register(progress)
    config.pluginmanager.register(Ticker(progress.line, every_s, output))


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
