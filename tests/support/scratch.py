"""Where the tests keep their files and their servers' data: in memory where there is room, on the disk otherwise.

A test's servers are as durable as those of a user, so that every commit and every confirmed message waits for a sync,
and every new table for several. Memory has all that a process which is killed has written, as the disk's cache has it;
a power failure is no test's. `make faults`, and whoever wants to look at the files afterwards, says TESTS_ON=disk.
"""

import fcntl
import os
import secrets
import tempfile
from pathlib import Path
from shutil import rmtree
from typing import Final

import pytest

SETTING: Final = "TESTS_ON"
MEMORY: Final = Path("/dev/shm")  # what Linux always has
FREE_BYTES_MIN: Final = 6 << 30
"""Of the file system, and of the machine's memory. The servers of three processes take 2 GB."""
_PREFIX: Final = "wct-"  # short, for the paths of sockets are
_MAKING: Final = ".wct-"
"""Until it is locked."""


def use_scratch(config: pytest.Config, memory: Path = MEMORY) -> None:
    """Make new temporary files of this process, and of those that it starts, files in memory until the run ends."""
    if os.environ.get(SETTING) == "disk" or "TMPDIR" in os.environ or not _has_room(memory):
        return
    _remove_left(memory)
    directory, held = _made(memory)
    before = tempfile.tempdir

    def end() -> None:
        os.environ.pop("TMPDIR", None)
        tempfile.tempdir = before
        rmtree(directory, ignore_errors=True)
        os.close(held)

    os.environ["TMPDIR"] = tempfile.tempdir = str(directory)
    # Instead of two more folders: the path of a socket has 107 bytes at most.
    config.option.basetemp = config.option.basetemp or str(directory / "t")
    config.add_cleanup(end)


def _has_room(memory: Path) -> bool:
    """Whether programs can be run from there, and what the tests write leaves enough memory for everybody."""
    try:
        status = os.statvfs(memory)
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return False
    available_bytes = next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), 0)
    free_bytes = min(status.f_bavail * status.f_frsize, available_bytes)
    return not status.f_flag & os.ST_NOEXEC and free_bytes >= FREE_BYTES_MIN


def _made(memory: Path) -> tuple[Path, int]:
    """A folder of this run, and its lock, which goes with the process.

    The number of a process would not do: a run in a chroot may have processes of its own, and the same memory.
    """
    while True:
        name = secrets.token_hex(2)
        directory, made = memory / f"{_PREFIX}{name}", memory / f"{_MAKING}{name}"
        try:
            made.mkdir()
        except FileExistsError:
            continue
        held = _locked(made)
        if held is not None:
            break
    # Servers have users of their own.
    made.chmod(0o1777)
    return made.rename(directory), held


def _remove_left(memory: Path) -> None:
    """What is of runs that were killed."""
    for directory in memory.glob(f"{_PREFIX}*"):
        held = _locked(directory)
        if held is not None:
            rmtree(directory, ignore_errors=True)
            os.close(held)


def _locked(directory: Path) -> int | None:
    """The descriptor that locks it; None: another process has it, or it is gone."""
    try:
        held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        return None
    return held
