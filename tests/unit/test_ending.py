"""The end of a command of the command line whose output cannot be written: its status tells no lie."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.migrations.migrate import migrate
from coordinator.registry import registry
from coordinator.runtime.settings import DatabaseSettings

FULL = Path("/dev/full")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    url = f"sqlite:///{tmp_path}/users.db"
    migrate(registry().service("users"), DatabaseSettings(database_url=url))
    return {**os.environ, "USERS_DATABASE_URL": url, "COORDINATOR_APP": "gateways.app:APP"}


def run(environment: dict[str, str], *arguments: str, to: Path | None) -> subprocess.CompletedProcess[str]:
    """Into a device, or a pipe whose reader is gone."""
    program = [sys.executable, "-m", "coordinator", *arguments]
    if to is not None:
        with to.open("w") as output:
            return subprocess.run(
                program, env=environment, stdout=output, stderr=subprocess.PIPE, text=True, timeout=60, check=False
            )
    read, write = os.pipe()
    os.close(read)
    try:
        return subprocess.run(
            program, env=environment, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    finally:
        os.close(write)


ACTING = ("pause", "users", "--reason", "a disk")
LOOKING = ("timers", "list", "users")


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_one_line_and_no_refusal(environment: dict[str, str]) -> None:
    ran = run(environment, *ACTING, to=FULL)
    assert ran.returncode == 3
    assert ran.stderr.count("\n") == 1
    assert (
        "standard output cannot be written: No space left on device. What the command was to do may be done"
        in ran.stderr
    )
    # It was done.
    assert "it was paused: a disk" in run_to_end(environment, "resume", "users")
    ran = run(environment, *LOOKING, to=FULL)
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1)
    assert "may be done" not in ran.stderr


def run_to_end(environment: dict[str, str], *arguments: str) -> str:
    program = [sys.executable, "-m", "coordinator", *arguments]
    return subprocess.run(program, env=environment, capture_output=True, text=True, timeout=60, check=False).stdout


def test_a_reader_who_has_gone_is_no_refusal(environment: dict[str, str]) -> None:
    ran = run(environment, *ACTING, to=None)
    assert ran.returncode == 3
    assert "may be done" in ran.stderr
    # As `head` ends the commands before it.
    ran = run(environment, *LOOKING, to=None)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_statuses_are_as_ever(environment: dict[str, str]) -> None:
    program = [sys.executable, "-m", "coordinator"]
    for arguments, status in (
        ((), 2),
        (("--version",), 0),
        (("nothing",), 2),
        (("pause", "nobody", "--reason", "x"), 2),
        (("pause", "users", "--reason", ""), 2),
        (("resume", "users"), 0),
        (("release", "users", "nothing"), 1),
    ):
        ran = subprocess.run(
            [*program, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert ran.returncode == status, (arguments, ran)
        assert "Traceback" not in ran.stderr
