"""One process whose address leads to another database of such a lane, while the other process has the right one.

It can apply nothing, and must not keep the lane from the other one: nobody sets its address right before the run is at
rest, unless it is started again. So whatever is sent is settled by the process that has the lane's database.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from coordinator.lane.delivery import Decision, Suspension
from coordinator.stores.port import Lease

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.world import World

ANOTHER: Final = "another"
LANE: Final = "ledger"
"""The one that has several processes."""
SHARE: Final = 0.08
"""Of the seeds."""
MENDED: Final = 0.2
"""How often somebody sets the address right who sees that the process is blocked."""

KEPT_MAX: Final = 2
"""How often such a process may try the same deliveries on one channel: by then it has waited for the longest pause."""


def rate(seed: int) -> float:
    """By a chance of its own: a seed without such a process is as it was before there was any."""
    return 1.0 if random.Random(f"astray {seed}").random() < SHARE else 0.0


def lead(world: World) -> None:
    """Another address for one of the lane's processes, also for its successors."""
    database = world.databases[LANE]
    processes = [each for each in world.processes.values() if each.lane_name == LANE]
    if database.lineage is None or database.astray:
        return
    process = processes[int(world.chance() * len(processes))]
    database.wait_for_commit()
    database.astray[process.place] = Lease(
        database.epoch, max(1, database.sequence + int((world.chance() - 0.5) * 14)), holder=ANOTHER, lineage=ANOTHER
    )
    world.trace("the address of %s leads to another database", process.place)


def mend(process: Process) -> bool:
    """Whether the operator has acted: he may leave it as it is, since another process has the right database."""
    world = process.world
    if world.is_calm or world.chance() >= MENDED:
        return False
    world.trace("the operator sets the address of %s right, and restarts it", process)
    find(process)
    process.crash()
    return True


def find(process: Process) -> None:
    """The address is set right."""
    process.store.database.astray.pop(process.place, None)


def check_kept(process: Process, channel_number: int, decision: Decision) -> None:
    """It has answered deliveries: another process must get them soon, whose database may be the right one."""
    if not process.is_astray or not isinstance(decision, Suspension) or decision.cause != "commits_lost":
        return
    channel, times = process.kept_astray
    process.kept_astray = channel_number, times + 1 if channel == channel_number else 1
    if process.kept_astray[1] > KEPT_MAX:
        process.world.violation(f"{process} keeps the lane from those that may have the right database")
