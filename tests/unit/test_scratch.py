"""The tests' own files are in memory only where there is room, and are gone when the run ends."""

import os
import tempfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from tests.support import scratch


class Ends:
    """As much of pytest's configuration as is needed."""

    def __init__(self) -> None:
        self.cleanups: list[Callable[[], None]] = []
        self.option = Namespace(basetemp=None)

    def add_cleanup(self, cleanup: Callable[[], None]) -> None:
        self.cleanups.append(cleanup)


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Ends:
    """A run that begins."""
    monkeypatch.delenv(scratch.SETTING, raising=False)
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(scratch, "FREE_BYTES_MIN", 1)
    return Ends()


def use(ends: Ends, memory: Path) -> None:
    scratch.use_scratch(cast("pytest.Config", ends), memory)


def test_files_are_in_memory_until_the_run_ends(ends: Ends, tmp_path: Path) -> None:
    use(ends, tmp_path)
    made = Path(tempfile.mkdtemp())
    assert made.parent.parent == tmp_path
    assert os.environ["TMPDIR"] == str(made.parent)
    assert made.parent.stat().st_mode & 0o7777 == 0o1777
    assert Path(ends.option.basetemp) == made.parent / "t"
    for end in ends.cleanups:
        end()
    assert [*tmp_path.iterdir()] == []
    assert "TMPDIR" not in os.environ


@pytest.mark.parametrize("name", ["TMPDIR", scratch.SETTING])
def test_whoever_starts_the_tests_says_where(
    ends: Ends, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "disk")
    use(ends, tmp_path)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("memory", ["full", "away"])
def test_without_room_they_are_on_the_disk(
    ends: Ends, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: str
) -> None:
    monkeypatch.setattr(scratch, "FREE_BYTES_MIN", 1 << 60)
    use(ends, tmp_path if memory == "full" else tmp_path / "away")
    assert tempfile.tempdir is None
    assert (ends.cleanups, [*tmp_path.iterdir()]) == ([], [])


def test_a_run_that_was_killed_leaves_nothing_to_the_next_but_one_that_goes_on_does(ends: Ends, tmp_path: Path) -> None:
    """One that goes on may be in a chroot, in which the number of its process is another's here."""
    dead, alive, others = (tmp_path / name for name in ("wct-dead", "wct-1", "else"))
    for directory in (dead, alive, others):
        directory.mkdir()
        (directory / "file").touch()
    held = scratch._locked(alive)
    assert held is not None
    use(ends, tmp_path)
    assert [each.exists() for each in (dead, alive, others)] == [False, True, True]
    os.close(held)
    # Its own is locked, too.
    another = Ends()
    own = tmp_path / Path(tempfile.gettempdir()).name
    del os.environ["TMPDIR"]
    use(another, tmp_path)
    assert own.exists()
    assert not alive.exists()
    for end in (*another.cleanups, *ends.cleanups):
        end()
