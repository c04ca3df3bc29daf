"""Free ports of each process that runs tests: no other such process of this machine, and nothing that a test starts,
chooses the same.
"""

import fcntl
import os
from pathlib import Path
from typing import IO, Final

from coordinator.dev.servers import ports
from tests.support.scratch import MEMORY

FIRST: Final = 10_000
EACH: Final = 500
"""So many for each process. All are below those that the product chooses from."""
BLOCKS: Final = 20
FOLDER: Final = (MEMORY if MEMORY.is_dir() else Path("/tmp")) / f"write-coordinator-test-ports-{os.getuid()}"
"""Of their locks: the same for all runs, also in a chroot, whatever folder for temporary files each run has."""

_held: list[IO[str]] = []
"""The lock of this process's block. It goes with the process, however that ends."""


def ports_of(block: int) -> range:
    """The ports of the block of this number."""
    return range(FIRST + block * EACH, FIRST + (block + 1) * EACH)


def free_block(folder: Path) -> tuple[int, IO[str]]:
    """The first block that no process of this machine holds, and the file that holds it until it is closed.

    Processes of one run and of several runs, from whichever checkout, meet in the folder.
    """
    folder.mkdir(mode=0o777, exist_ok=True)
    for block in range(BLOCKS):
        path = folder / f"{ports_of(block).start}.lock"
        held = os.fdopen(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666), "r+")
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held.close()
        else:
            return block, held
    raise RuntimeError(f"{BLOCKS} processes run tests on this machine already: there are no ports for another one")


def use_own_ports() -> None:
    """Between the choice of a port and its use another process might take it, and a test failed now and then."""
    block, held = free_block(FOLDER)
    _held.append(held)
    ports._FREE_PORTS = ports_of(block)
