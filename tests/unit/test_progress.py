"""A test run whose output goes to a file says there how far it is, while it is under way."""

import os
import pty
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, cast

import pytest

from tests.support.progress import Progress, report_progress

ROOT = Path(__file__).parents[2]
CONFTEST = """
from tests.support.progress import report_progress


def pytest_configure(config):
    report_progress(config, every_s=0.05)
"""
# It ends when the line about it is in the file.
TESTS = """
import sys
import time
from pathlib import Path


def test_that_fails():
    print("printed by a test")
    assert False


def test_that_waits():
    deadline = time.monotonic() + 20
    while "1 of 2 tests done, 1 failed (last: test_run.py::test_that_fails), running 0:" not in Path("log").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_run.py").write_text(TESTS)
    (tmp_path / "log").touch()
    return tmp_path


@pytest.mark.parametrize("options", [("-p", "xdist", "-n", "1"), ()], ids=["in another process", "in one process"])
def test_a_file_shows_what_is_done_what_failed_and_what_runs(project: Path, options: tuple[str, ...]) -> None:
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(project), *options]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    with (project / "log").open("w") as log:
        ended = subprocess.run(argv, cwd=project, stdout=log, stderr=log, env=environment, check=False)
    assert ended.returncode == pytest.ExitCode.TESTS_FAILED
    text = (project / "log").read_text()
    assert "1 failed, 1 passed" in text
    # What a test prints is captured as ever.
    assert text.count("printed by a test\n") == 1


def begun(monkeypatch: pytest.MonkeyPatch, stdout: IO[str], **config: object) -> list[Any]:
    """The plugins that it takes to report to this output."""
    plugins: list[Any] = []
    monkeypatch.setattr(sys, "stdout", stdout)
    report_progress(cast("Any", SimpleNamespace(pluginmanager=SimpleNamespace(register=plugins.append), **config)))
    return plugins


def test_a_terminal_is_left_to_its_bar_and_other_processes_are_silent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ours, its = pty.openpty()
    with os.fdopen(its, "w") as terminal, os.fdopen(ours), (tmp_path / "log").open("w") as log:
        assert begun(monkeypatch, terminal) == []
        assert begun(monkeypatch, log, workerinput={}) == []
        _, ticker = begun(monkeypatch, log)
        ticker.pytest_unconfigure()


def test_a_line_has_all_that_is_asked_of_a_long_run() -> None:
    now_s = 100.0
    progress = Progress(lambda: now_s)
    session: Any = SimpleNamespace(testscollected=0)
    progress.pytest_sessionstart(session)
    assert progress.line() == "0:00 0 of ? tests done, 0 failed"
    session.testscollected = 7
    progress.pytest_runtest_logstart("a")
    progress.pytest_runtest_logstart("b")
    now_s = 165.0
    assert progress.line() == "1:05 0 of 7 tests done, 0 failed, running 1:05 a, running 1:05 b"
    progress.pytest_runtest_logreport(report("a", "call", "failed"))
    progress.pytest_runtest_logreport(report("a", "teardown", "failed"))
    progress.pytest_runtest_logfinish("a")
    assert progress.line() == "1:05 1 of 7 tests done, 1 failed (last: a), running 1:05 b"


def test_a_test_whose_process_died_does_not_run_any_more() -> None:
    progress = Progress(lambda: 0.0)
    progress.pytest_runtest_logstart("a")
    progress.pytest_runtest_logreport(report("a", "???", "failed"))
    assert progress.line() == "0:00 1 of ? tests done, 1 failed (last: a)"


def report(nodeid: str, when: Any, outcome: Any) -> pytest.TestReport:
    return pytest.TestReport(nodeid, ("", None, ""), {}, outcome, None, when)


@pytest.mark.xdist_group("kept_together")
def test_tests_of_a_group_run_in_one_process(request: pytest.FixtureRequest, worker_id: str) -> None:
    """pytest-xdist 3.8 tells the groups by the ends of the tests' names, which pytest 9.2 does not let it change."""
    name = request.node.nodeid.rpartition("::")[2]
    is_grouping = worker_id != "master" and request.config.getoption("loadgroup")
    assert name.endswith("@kept_together") == is_grouping
