"""Free ports of each process of a test run: no other of the run, and nothing that a test starts, chooses the same."""

import os
from typing import Final

from coordinator.dev.servers import ports

FIRST: Final = 10_000
EACH: Final = 1_000
"""So many for each process. All are below those that the product chooses from."""


def ports_of(worker: str) -> range:
    """The ports of the process that pytest-xdist names so: gw0, gw1 and so on; another name is the only process."""
    number = int(worker.removeprefix("gw")) % 10 if worker.startswith("gw") else 0
    return range(FIRST + number * EACH, FIRST + (number + 1) * EACH)


def use_own_ports() -> None:
    """Between the choice of a port and its use another process might take it, and a test failed now and then."""
    ports._FREE_PORTS = ports_of(os.environ.get("PYTEST_XDIST_WORKER", ""))
