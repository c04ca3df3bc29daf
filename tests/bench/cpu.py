"""CPU time of process groups, from /proc."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from coordinator.dev.servers.process import descendants

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_NS_PER_S = 1e9


def cpu_time_s(pids: Iterable[int]) -> float:
    """Of these processes, those below them, and those below them that have ended."""
    return sum(_of_process_s(pid) for root in pids for pid in (root, *descendants(root)))


def _of_process_s(pid: int) -> float:
    """The scheduler's own count, since that in `stat` goes by ticks and may miss a process that only ever runs shortly.

    `stat` knows of threads and children that have ended, so the larger of the two is taken, and the children from it.
    """
    process = Path(f"/proc/{pid}")
    try:
        # After the command's name, which is in parentheses: utime, stime, cutime, cstime are 12th to 15th.
        fields = (process / "stat").read_text(errors="replace").rpartition(")")[2].split()
        threads_s = sum(int((task / "schedstat").read_text().split()[0]) for task in (process / "task").iterdir())
    except (OSError, ValueError, IndexError):
        return 0.0
    own_ticks, children_ticks = (int(fields[at]) + int(fields[at + 1]) for at in (11, 13))
    return max(threads_s / _NS_PER_S, own_ticks / _TICKS_PER_S) + children_ticks / _TICKS_PER_S


class CpuMeter:
    """Counts the CPU seconds of groups from the moment it is made."""

    def __init__(self, groups: Mapping[str, Iterable[int]]) -> None:
        self._groups = {name: list(pids) for name, pids in groups.items()}
        self._start = self._now()

    def used_s(self) -> dict[str, float]:
        return {name: max(0.0, value - self._start[name]) for name, value in self._now().items()}

    def _now(self) -> dict[str, float]:
        return {name: cpu_time_s(pids) for name, pids in self._groups.items()}


def resident_peak_bytes(pid: int) -> int:
    """The most memory that a process has had in RAM."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
