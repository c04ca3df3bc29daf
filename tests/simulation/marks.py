"""How far a lane has come, as one process has it kept by the broker: what the transports' `KeptMark` do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.simulation.schedule import NEVER

if TYPE_CHECKING:
    from coordinator.lane.high_water import Mark
    from tests.simulation.process import Process

LOOKS_EVERY_S: Final = 10.0


class KeptMark:
    """Each mark with the last sequence that whoever kept it knew by the command's id."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._unkept: tuple[Mark, int] | None = None
        """That waits for the next connection."""
        self._kept: tuple[Mark, int] | None = None
        self._look_at = 0.0
        self.named_there = 0
        """Of whoever kept the mark that was found."""

    def keep(self, mark: Mark) -> None:
        """It asks the broker first, which does not answer on a connection that it has dropped."""
        this = mark, self._process.seen.named
        channel = self._process.channel
        if channel is not None and channel.is_open:
            self._put(this)
            self._unkept = None
        else:
            self._unkept = this

    def connects(self) -> None:
        unkept, self._unkept = self._unkept, None
        if unkept is not None and unkept[0].sequence > self._there.sequence:
            self._put(unkept)

    def find(self) -> Mark:
        """Its consumer has the lane now. The mark of whoever had it before."""
        found = self._there
        self.named_there = self._process.world.broker.named[self._process.lane_name]
        self._kept = found, self.named_there
        return found

    def is_lost(self) -> None:
        """Somebody has taken the mark away, which it sees when it looks for it."""
        self._look_at = self._process.world.now + LOOKS_EVERY_S * self._process.world.chance()

    def step(self) -> bool:
        """Look whether it is there, and keep it again if not; whether there was something to do."""
        if self._process.world.now < self.wake():
            return False
        assert self._kept is not None
        self._process.world.trace("%s keeps its mark again", self._process)
        self._put(self._kept)
        return True

    def wake(self) -> float:
        """When there is."""
        process, kept = self._process, self._kept
        has_lane = process.is_active and process.channel is not None and process.channel.is_open
        if not has_lane or kept is None or self._there.sequence >= kept[0].sequence:
            return NEVER
        return self._look_at

    @property
    def _there(self) -> Mark:
        return self._process.world.broker.marks[self._process.lane_name]

    def _put(self, this: tuple[Mark, int]) -> None:
        self._process.world.broker.keep(self._process.lane_name, *this)
        self._kept = this
