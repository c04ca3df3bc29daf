"""Whatever the directory of a run is: it is used, or refused by its name, with status 2 and without a traceback."""

import errno
import os
import re
import resource
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from coordinator.cli import cli
from coordinator.dev import cleaning
from coordinator.dev.workspace import Workspace
from coordinator.registry import APP_SETTING
from coordinator.service.errors import ConfigurationError

SEATS = "tests.support.seats:seats"
NOBODY = 65534


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AMQP_URL", "DEV_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(APP_SETTING, SEATS)


def broken_link(path: Path) -> None:
    path.symlink_to(path.with_name("nothing"))


def link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def with_folder(name: str) -> Callable[[Path], None]:
    return lambda path: (path / name).mkdir(parents=True)


def with_file(name: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.mkdir()
        (path / name).touch()

    return make


def with_broken_link(name: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.mkdir()
        broken_link(path / name)

    return make


WRONG: dict[str, tuple[Callable[[Path], None], str]] = {
    "a broken link": (broken_link, "is a link to what is not there"),
    "a link to itself": (link_to_itself, "is a link to what is not there|is a link that leads to itself"),
    **{
        f"a folder at {name}": (with_folder(name), f"{name} must be a file, and is none")
        for name in ("env", "env.new", "lock")
    },
    **{
        f"a file at {name}": (with_file(name), f"{name} must be a folder, and is none")
        for name in ("data", "logs", "servers")
    },
    "a broken link at env": (with_broken_link("env"), "env must be a file"),
    "a broken link at data": (with_broken_link("data"), "data must be a folder"),
    "a file": (Path.touch, r"Not a directory|is a file"),
}


@pytest.mark.parametrize(("make", "why"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize(
    "words", [("dev", SEATS), ("dev", "--servers", "native"), ("dev", "--clean")], ids=lambda words: " ".join(words[:3])
)
@pytest.mark.parametrize("setting", [True, False], ids=["DEV_DIRECTORY", "--dir"])
def test_a_directory_that_cannot_be_used_is_refused_by_its_name(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path], None],
    why: str,
    words: tuple[str, ...],
    setting: bool,
) -> None:
    directory = tmp_path / "run"
    make(directory)
    before = sorted(tmp_path.rglob("*"))
    if setting:
        monkeypatch.setenv("DEV_DIRECTORY", str(directory))
    ended = CliRunner().invoke(cli, [*words, *([] if setting else ["--dir", str(directory)])])
    assert ended.exit_code == 2, (ended.output, ended.exception)
    assert str(directory) in ended.output
    assert re.search(why, ended.output), ended.output
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["a\udcff", "a\nb", "a\x1b[2J"], ids=ascii)
def test_a_name_that_no_line_can_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for words in (["dev", SEATS], ["dev", "--clean"], ["new", "shop"]):
        ended = CliRunner().invoke(cli, [*words, "--dir", f"{tmp_path}/{name}"])
        assert (ended.exit_code, "'--dir'" in ended.output) == (2, True), ended.output
        assert repr(name)[1:-1] in ended.output
    monkeypatch.setitem(os.environ, "DEV_DIRECTORY", f"{tmp_path}/{name}")
    ended = CliRunner().invoke(cli, ["dev", SEATS])
    assert (ended.exit_code, "DEV_DIRECTORY" in ended.output) == (2, True), ended.output
    assert list(tmp_path.iterdir()) == []


@contextmanager
def as_nobody() -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("mode", [0o000, 0o500, 0o400])
def test_without_rights_it_is_refused(tmp_path: Path, mode: int) -> None:
    parent = tmp_path / "parent"
    parent.mkdir()
    if os.geteuid() == 0:
        os.chown(parent, NOBODY, NOBODY)
        for each in (tmp_path, *list(tmp_path.parents)[:2]):
            each.chmod(each.stat().st_mode | 0o011)
    parent.chmod(mode)
    try:
        for directory in (parent / "run", parent):
            acts: list[Callable[[], object]] = [
                lambda at=directory: Workspace(at).locked().__enter__(),  # type: ignore[misc]
                *([] if directory != parent else [lambda at=directory: cleaning.clean(at)]),
            ]
            for act in acts:
                with pytest.raises(ConfigurationError, match=r"cannot be the directory of a run.*denied"), as_nobody():
                    act()
    finally:
        parent.chmod(0o700)


def test_on_a_full_disk_it_is_refused_before_anything_runs(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with pytest.raises(ConfigurationError, match=r"cannot be the directory of a run.*File too large"):
            Workspace(tmp_path / "run").locked().__enter__()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_what_fails_within_it_later_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace(tmp_path / "run")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with workspace.locked():
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(ConfigurationError, match=r"run cannot be the directory .*No space left"):
            workspace.write_environment({"A": "1"})
        monkeypatch.undo()
        workspace.write_environment({"A": "1"})
    log = workspace.logs / "migrate.log"
    log.mkdir()
    with pytest.raises(ConfigurationError, match=r"run cannot be the directory .*migrate\.log"), workspace.locked():
        log.open("ab")
    with pytest.raises(FileNotFoundError), workspace.locked():
        (tmp_path / "elsewhere").open("rb")
    with pytest.raises(ConnectionError), workspace.locked():
        raise ConnectionRefusedError


def test_clean_keeps_a_folder_that_is_a_link(tmp_path: Path) -> None:
    disk, link = tmp_path / "disk", tmp_path / "run"
    disk.mkdir()
    link.symlink_to(disk)
    workspace = Workspace(link)
    with workspace.locked():
        workspace.make_data()
        (workspace.data / "seats.sqlite").touch()
        workspace.write_environment({"A": "1"})
    cleaning.clean(link)
    assert link.is_symlink()
    assert list(disk.iterdir()) == []


def test_nobody_else_may_open_its_lock_which_he_could_keep(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    lock = tmp_path / "run" / "lock"
    lock.touch(0o644)
    for _ in range(2):
        with Workspace(tmp_path / "run").locked():
            assert stat.S_IMODE(lock.stat().st_mode) == 0o600
        lock.unlink()


def test_a_shell_takes_what_a_run_says_of_its_settings_in_any_directory(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "it's a b%20 $HOME")
    workspace.programs.mkdir(parents=True)
    for file in (workspace.environment_file, workspace.programs / "one"):
        file.write_text(f"echo {file.name}\n")
    told = f"{workspace.sourcing}; {workspace.sourcing_of('one')}"
    assert subprocess.run(["bash", "-c", told], capture_output=True, text=True, check=True).stdout == "env\none\n"
