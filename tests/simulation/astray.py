"""One process whose address leads to another database of such a lane, while the other process has the right one.

It can apply nothing, and must not keep the lane from the other one: nobody sets its address right before the run is at
rest, unless it is started again. So whatever is sent is settled by the process that has the lane's database.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import msgspec

from coordinator.lane.delivery import Decision, Suspension
from coordinator.stores.lane_tables import LogEntry
from coordinator.stores.lineages import superseding
from coordinator.stores.port import Lease

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.world import World

ANOTHER: Final = "another"
CLONES: Final = "of-the-clone"
"""The id of what a copy that has gone on by itself has at a sequence."""
LANE: Final = "ledger"
"""The one that has several processes."""
SHARE: Final = 0.08
"""Of the seeds; as many have a process whose address leads to a copy that has gone on by itself."""
MENDED: Final = 0.2
"""How often somebody sets the address right who sees that the process is blocked."""
ACCEPTED: Final = 0.5
"""Of the copies that have gone on by themselves: those in which a loss was accepted."""
KEPT_MAX: Final = 2
"""How often such a process may try the same deliveries on one channel: by then it has waited for the longest pause."""


def rate(seed: int) -> float:
    """By a chance of its own: a seed without such a process is as it was before there was any."""
    return 1.0 if _drawn(seed) < SHARE else 0.0


def clone_rate(seed: int) -> float:
    """Likewise; no seed has both."""
    return 1.0 if SHARE <= _drawn(seed) < 2 * SHARE else 0.0


def _drawn(seed: int) -> float:
    return random.Random(f"astray {seed}").random()


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


def lead_to_clone(world: World) -> None:
    """Likewise to a copy that has gone on by itself from before the last command that the mark knows by its id.

    It may know of more by their sequences only: a standby's that has seen them, and then got the lane. Or a loss was
    accepted in it, of less than the mark knows of.
    """
    database, mark = world.databases[LANE], world.broker.marks[LANE]
    processes = [each for each in world.processes.values() if each.lane_name == LANE]
    known = world.broker.named[LANE]
    kept = [entry.sequence for entry in database.table(LogEntry).values() if entry.sequence <= known]
    if mark.lineage is None or mark.lineage != database.lineage or database.astray or not kept:
        return
    process = processes[int(world.chance() * len(processes))]
    database.wait_for_commit()
    copied_at = max(0, max(kept) - 1 - int(world.chance() * 5))
    sequence = max(1, copied_at + int(world.chance() * 14))
    given_up = database.supersedes
    lease = Lease(database.epoch, sequence, holder=ANOTHER, lineage=database.lineage, supersedes=given_up)
    if world.chance() < ACCEPTED:
        # Nobody can tell it from the lane's own who does not know of more.
        copied_at = min(sequence, mark.sequence - 1)
        given_up = superseding(given_up, database.lineage, up_to=copied_at)
        lease = msgspec.structs.replace(lease, sequence=mark.sequence + 1, lineage=ANOTHER, supersedes=given_up)
    database.astray[process.place], database.copied_at[process.place] = lease, copied_at
    world.trace("the address of %s leads to a copy of %s that has gone on to %s", process.place, copied_at, sequence)


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
    database = process.store.database
    database.astray.pop(process.place, None)
    database.copied_at.pop(process.place, None)


def check_kept(process: Process, channel_number: int, decision: Decision) -> None:
    """It has answered deliveries: another process must get them soon, whose database may be the right one."""
    if not process.is_astray or not isinstance(decision, Suspension) or decision.cause != "commits_lost":
        return
    channel, times = process.kept_astray
    process.kept_astray = channel_number, times + 1 if channel == channel_number else 1
    if process.kept_astray[1] > KEPT_MAX:
        process.world.violation(f"{process} keeps the lane from those that may have the right database")
