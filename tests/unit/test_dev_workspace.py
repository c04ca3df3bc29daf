"""The directory of a run: one run at a time, and a file of addresses that a shell can read."""

import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from coordinator.dev import cleaning
from coordinator.dev.workspace import Workspace
from coordinator.service.errors import ConfigurationError

AWKWARD = [
    "plain",
    "",
    "two words",
    "it's",
    "''",
    '$HOME `id` \\ " ! & ; # *',
    "a\nb",
    "postgresql://a:b@c/d?e=f&g=h",
]


def test_a_shell_that_sources_the_file_gets_every_value_as_it_was_and_exports_it(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    values = {f"VALUE_{number}": value for number, value in enumerate(AWKWARD)}
    workspace.write_environment(values)
    script = f". {workspace.environment_file}; exec env -0"
    printed = subprocess.run(["/bin/sh", "-c", script], env={}, capture_output=True, text=True, check=True).stdout
    seen = dict(entry.split("=", 1) for entry in printed.split("\0") if entry)
    assert {name: seen.get(name) for name in values} == values


def test_the_file_is_readable_by_its_owner_alone_and_replaced_as_a_whole(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.write_environment({"A": "1"})
    workspace.write_environment({"B": "2"})
    assert stat.S_IMODE(workspace.environment_file.stat().st_mode) == 0o600
    assert workspace.environment_file.read_text() == "export B='2'\n"
    assert [path.name for path in tmp_path.iterdir()] == ["env"]


def test_the_owner_of_the_databases_has_a_password_that_its_owner_alone_may_read(tmp_path: Path) -> None:
    directory, other = Workspace(tmp_path / "one"), Workspace(tmp_path / "other")
    password = directory.owner_password()
    (file,) = directory.servers.iterdir()
    assert (stat.S_IMODE(file.stat().st_mode), file.read_text()) == (0o600, password)
    assert Workspace(tmp_path / "one").owner_password() == password != other.owner_password()
    assert re.fullmatch(r"[A-Za-z0-9_-]{32}", password)  # it is part of an address, and of a statement


@pytest.mark.parametrize("under", ["", "x", "x/y"])
def test_a_directory_that_cannot_be_had_is_named(tmp_path: Path, under: str) -> None:
    (tmp_path / "file").write_text("")
    directory = tmp_path / "file" / under
    with (
        pytest.raises(ConfigurationError, match=r"file.* cannot be the directory of a run .*: Not a directory"),
        Workspace(directory).locked(),
    ):
        pass


def test_a_second_run_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    with Workspace(tmp_path).locked():
        with (
            pytest.raises(ConfigurationError, match=r"process \d+ runs on .* already"),
            Workspace(tmp_path).locked(),
        ):
            pass
        with pytest.raises(ConfigurationError, match="already"):
            cleaning.clean(tmp_path)
    with Workspace(tmp_path).locked():
        pass


def test_what_a_killed_run_has_forked_does_not_lock_it(tmp_path: Path) -> None:
    """A worker of a pool outlives it."""
    imports = "import os, signal, sys; from pathlib import Path; from coordinator.dev.workspace import Workspace"
    wait, end = "(os.close(1), signal.pause())", "print(child, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    lock = "locked = Workspace(Path(sys.argv[1])).locked(); locked.__enter__()"
    program = f"{imports}; {lock}; child = os.fork(); child or {wait}; {end}"
    ran = subprocess.run([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, check=False)
    try:
        with Workspace(tmp_path).locked():
            pass
    finally:
        os.kill(int(ran.stdout), signal.SIGKILL)


def test_clean_removes_everything(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    workspace = Workspace(directory)
    with workspace.locked():
        (workspace.servers / "postgresql" / "data").mkdir(parents=True)
        workspace.write_environment({"A": "1"})
    cleaning.clean(directory)
    assert not directory.exists()
    cleaning.clean(directory)


def test_clean_removes_what_the_application_keeps(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    with Workspace(directory).locked():
        (directory / "sandbox").mkdir()
        (directory / "stripe-metadata-key").touch()
    cleaning.clean(directory)
    assert not directory.exists()


def test_a_directory_that_is_not_of_a_run_is_neither_filled_nor_removed(tmp_path: Path) -> None:
    directory = tmp_path / "home"
    (directory / "logs").mkdir(parents=True)
    (directory / "thesis.txt").touch()
    (directory / ".DS_Store").touch()
    acts: list[Callable[[], object]] = [
        lambda: cleaning.clean(directory),
        lambda: Workspace(directory).locked().__enter__(),
    ]
    for act in acts:
        with pytest.raises(ConfigurationError, match=r"home has 'thesis\.txt', which no run of"):
            act()
    assert {path.name for path in directory.iterdir()} == {".DS_Store", "logs", "thesis.txt"}
