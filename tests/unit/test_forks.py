"""Processes of the tests that are forks are like those that start by themselves."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from coordinator.dev.servers.process import Process
from tests.support.forks import Forks
from tests.support.system import wait_until

PROGRAM = "tests.unit.forked_program"
WITHIN_S = 20.0


def said_by(process: Process) -> Any:
    wait_until(lambda: process.log_tail(1).startswith("{"), "it says what it was given", process)
    return json.loads(process.log_tail(1))


def test_a_fork_has_arguments_an_environment_and_an_output_of_its_own(
    forks: Forks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OURS", "1")
    first = forks.run([PROGRAM, "0", "a b"], tmp_path / "log", {"THEIRS": "1"})
    assert said_by(first) == {"arguments": ["0", "a b"], "environment": {"THEIRS": "1"}, "group": first.pid}
    assert first.wait(WITHIN_S)
    second = forks.run([PROGRAM, "0"], tmp_path / "log", {})
    assert said_by(second) == {"arguments": ["0"], "environment": {}, "group": second.pid}
    assert second.wait(WITHIN_S)
    assert [len(process.log_tail().splitlines()) for process in (first, second)] == [2, 1]


def test_a_fork_has_a_log_from_the_first_moment_on(forks: Forks, tmp_path: Path) -> None:
    log = tmp_path / "folder" / "log"
    process = forks.run([PROGRAM, "wait"], log, {})
    try:
        assert log.exists()
    finally:
        process.kill()


def test_its_end_is_known(forks: Forks, tmp_path: Path) -> None:
    ended = forks.run([PROGRAM, "3"], tmp_path / "ended.log", {})
    assert ended.wait(WITHIN_S)
    assert ended.status == "exit status 3"
    failed = forks.run(["tests.unit.no_such_program"], tmp_path / "failed.log", {})
    assert failed.wait(WITHIN_S)
    assert failed.status == "exit status 1"
    assert "no_such_program" in failed.log_tail()
    for end, status in ((Process.kill, "killed by SIGKILL"), (_stop, "killed by SIGTERM")):
        waiting = forks.run([PROGRAM, "wait"], tmp_path / f"{end.__name__}.log", {})
        said_by(waiting)
        assert not waiting.wait(0)
        end(waiting)
        assert waiting.status == status


def _stop(process: Process) -> None:
    process.stop(signal.SIGTERM, WITHIN_S)


def test_a_configuration_at_fault_is_one_line_as_always(forks: Forks, tmp_path: Path) -> None:
    refused = forks.run(["coordinator", "run", "nothing"], tmp_path / "log", {"COORDINATOR_APP": "gateways.app:APP"})
    assert refused.wait(WITHIN_S)
    assert refused.exit_status == 2
    assert (
        "'nothing' is not one of 'users', 'items', 'payments', which COORDINATOR_APP (gateways.app:APP) names"
        in refused.log_tail()
    )


def test_forks_end_with_the_process_that_forked_them(tmp_path: Path) -> None:
    with Forks() as forks:
        waiting = forks.run([PROGRAM, "wait"], tmp_path / "log", {})
        said_by(waiting)
        assert forks._process is not None
        os.kill(forks._process.pid, signal.SIGKILL)
        assert waiting.wait(WITHIN_S)
        wait_until(lambda: _is_gone(waiting.pid), "the fork is gone")


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
