"""Where the tests keep their files and their servers' data: in memory where there is room, on the disk otherwise.

A test's servers are as durable as those of a user, so that every commit and every confirmed message waits for a sync,
and every new table for several. Memory has all that a process which is killed has written, as the disk's cache has it;
a power failure is no test's. `make faults`, and whoever wants to look at the files afterwards, says TESTS_ON=disk.
"""

import os
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


def use_scratch(config: pytest.Config, memory: Path = MEMORY) -> None:
    """Make new temporary files of this process, and of those that it starts, files in memory until the run ends."""
    if os.environ.get(SETTING) == "disk" or "TMPDIR" in os.environ or not _has_room(memory):
        return
    _remove_left(memory)
    directory = memory / f"{_PREFIX}{os.getpid()}"
    directory.mkdir()
    # Servers have users of their own.
    directory.chmod(0o1777)
    before = tempfile.tempdir

    def end() -> None:
        os.environ.pop("TMPDIR", None)
        tempfile.tempdir = before
        rmtree(directory, ignore_errors=True)

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


def _remove_left(memory: Path) -> None:
    """What is of runs that were killed."""
    for directory in memory.glob(f"{_PREFIX}*"):
        pid = directory.name.removeprefix(_PREFIX)
        if pid.isdigit() and not Path("/proc", pid).exists():
            rmtree(directory, ignore_errors=True)
