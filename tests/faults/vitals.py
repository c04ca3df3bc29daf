"""What a running system takes: memory and open files of its processes, rows of its tables, messages in its queues."""

import asyncio
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from coordinator.dev.servers.process import descendants
from coordinator.lane.control import Marker
from tests.faults.fleet import Fleet
from tests.faults.growth import MIB, Measure, Sample
from tests.support.rabbitmqctl import queue_lengths

PASSING_TABLES = (
    "outbox",
    "parked",
    "cancellations",
    "dead_letters",
    "lane_timers",
    "publishers",
    "counters",
    "lane_lease",
)
"""Their rows come and go, or there is one for each of a few things."""
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


async def vitals_of(fleet: Fleet, commands: dict[str, int]) -> Sample:
    """All but the latencies. `commands`: how many of each lane have an outcome."""
    return await asyncio.to_thread(_vitals, fleet, commands)


def _vitals(fleet: Fleet, commands: dict[str, int]) -> Sample:
    members = {member.name: member.process.pid for member in fleet.members}
    # At once: commands go on meanwhile.
    unheard: dict[str, float] = {
        lane: unheard_of(tables.logged(), commands[lane]) for lane, tables in fleet.tables.items()
    }
    queued = queue_lengths(fleet.servers.rabbitmq)
    return {
        Measure.MEMORY: {name: resident_bytes([pid]) / MIB for name, pid in members.items()},
        Measure.DESCRIPTORS: {name: open_files(pid) for name, pid in members.items()},
        Measure.LOG: unheard,
        Measure.ROWS: {
            f"{lane} {table}": tables.count(table) for lane, tables in fleet.tables.items() for table in PASSING_TABLES
        },
        Measure.QUEUED: {"all queues": sum(queued.values())},
        Measure.QUEUES: {"all queues": len(queued)},
        Measure.SERVERS_MEMORY: {
            server.title: resident_bytes(pid for root in server.pids for pid in (root, *descendants(root))) / MIB
            for server in (fleet.servers.rabbitmq, *fleet.databases.values())
        },
        Measure.LOAD: {"machine": os.getloadavg()[0]},
    }


def unheard_of(logged: Mapping[str, int], heard: int) -> int:
    """How many commands of a log, counted by type, have no outcome yet with a client. No client issues markers."""
    return max(0, sum(count for type_, count in logged.items() if type_ != Marker.type) - heard)


def resident_bytes(pids: Iterable[int]) -> int:
    """Of these processes together; what they share counts for each, and one that is gone for nothing."""
    return sum(_resident_bytes(pid) for pid in pids)


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0


def open_files(pid: int) -> int:
    """Descriptors of a process that runs."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
