"""The end of a command of the command line whose output cannot be written: its status tells no lie."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from coordinator.cli import cli
from coordinator.ending import _LOOKING
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


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("word", ["list", "status", "--help"])
def test_a_word_that_is_a_value_makes_no_command_one_that_only_looks(environment: dict[str, str], word: str) -> None:
    for to in (FULL, None):
        ran = run(environment, "pause", "users", "--reason", word, to=to)
        assert ran.returncode == 3
        assert "may be done" in ran.stderr


def test_every_command_that_looks_is_there() -> None:
    for path in _LOOKING:
        command: click.Command | None = cli
        for name in path.split():
            assert isinstance(command, click.Group), path
            command = command.get_command(click.Context(command), name)
        assert command is not None, path
        assert not isinstance(command, click.Group), path


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(LOOKING, 0), (ACTING, 0), (("release", "users", "nothing"), 1), (("pause", "users", "--reason", ""), 2)],
)
@pytest.mark.parametrize("closed", ["2>&-", "2>/dev/full"])
def test_errors_that_nobody_is_told_change_no_status(
    environment: dict[str, str], arguments: tuple[str, ...], status: int, closed: str
) -> None:
    assert run_with(environment, closed, *arguments).returncode == status


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (LOOKING, 1),
        (("--version",), 1),
        (ACTING, 3),
        (("keys", "create", "users", "--subject", "ada"), 3),
        (("keys", "secret", "users", "--new"), 3),
        (("release", "users", "nothing"), 1),
        (("pause", "users", "--reason", ""), 2),
    ],
)
@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&-"])
def test_an_output_that_was_closed_before_the_start_is_as_a_full_disk(
    environment: dict[str, str], arguments: tuple[str, ...], status: int, closed: str
) -> None:
    ran = run_with(environment, closed, *arguments)
    assert (ran.returncode, "Traceback" in ran.stderr) == (status, False), ran.stderr
    if status == 3 and "2>" not in closed:
        assert ran.stderr.count("standard output cannot be written: it is closed. What the command was to do") == 1


def run_with(environment: dict[str, str], closed: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "coordinator", *arguments]
    return subprocess.run(program, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_a_wrong_setting_has_its_status_where_nobody_can_be_told(environment: dict[str, str]) -> None:
    program = ["sh", "-c", 'exec "$@" 2>/dev/full', "sh", sys.executable, "-m", "coordinator", *ACTING]
    wrong = {**environment, "USERS_DATABASE_URL": "nothing"}
    assert subprocess.run(program, env=wrong, capture_output=True, timeout=60, check=False).returncode == 2
