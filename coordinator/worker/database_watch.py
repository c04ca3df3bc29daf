"""Asks a lane's database now and then what no process knows by itself: how many dead letters it has, since operators
remove some, and what its clock says.

Deadlines, timers and the times of the log are by the clock of the lane's process. Where that is wrong they are, too,
and nothing else tells of it.
"""

import asyncio
import math
from collections.abc import Callable
from datetime import datetime
from functools import partial
from time import monotonic
from typing import Final, TypeVar

import structlog
from prometheus_client import Gauge

from coordinator.runtime.clock import utc_now
from coordinator.runtime.own_threads import asked
from coordinator.runtime.repeated_line import RepeatedLine
from coordinator.service.errors import ConfigurationError, Unavailable
from coordinator.stores.admin import LaneAdmin
from coordinator.stores.clocks import SAID_AHEAD_S, ahead_words

LETTERS: Final = Gauge(
    "coordinator_lane_dead_letter_rows", "Dead letters in the lane's database; NaN: it does not answer.", ["lane"]
)
CLOCK_AHEAD: Final = Gauge(
    "coordinator_lane_clock_ahead_seconds",
    "How far this process's clock is ahead of that of the lane's database; NaN: it does not answer.",
    ["lane"],
)
LOOK_EVERY_S: Final = 15.0
LINE_EVERY_S: Final = 3600.0
ANSWER_S: Final = 10.0
"""How long the last answers count while the next one does not come."""

T = TypeVar("T")

log = structlog.get_logger("lane")


class DatabaseWatch:
    """Looks on a connection of its own, as every process of the lane does, standbys too."""

    def __init__(
        self,
        lane: str,
        open_admin: Callable[[], LaneAdmin],
        *,
        counts: bool,
        clock: Callable[[], datetime] = utc_now,
        every_s: float = LOOK_EVERY_S,
    ) -> None:
        """`counts`: the dead letters, too, for somebody who reads the metrics."""
        self._lane = lane
        self._open_admin = open_admin
        self._clock = clock
        self._every_s = every_s
        self._letters = LETTERS.labels(lane) if counts else None
        self._ahead = CLOCK_AHEAD.labels(lane)
        self._ahead_s = math.nan
        self._line = RepeatedLine(LINE_EVERY_S)
        self._forget()

    @property
    def said(self) -> str | None:
        """What is wrong with this process's clock, in words; None: nothing, or nobody knows. For any thread."""
        return ahead_words(self._ahead_s)

    async def run(self) -> None:
        """Until cancelled."""
        admin: LaneAdmin | None = None
        try:
            while True:
                try:
                    admin = admin or self._open_admin()
                    self._note(await self._answer(partial(self._look, admin)))
                    if self._letters is not None:
                        self._letters.set(await self._answer(admin.dead_letters))
                except (Unavailable, ConfigurationError):
                    # The lane says what is wrong with its database.
                    self._forget()
                await asyncio.sleep(self._every_s)
        finally:
            if admin is not None:
                admin.close()

    async def _answer(self, question: Callable[[], T]) -> T:
        answer = asked(question, "database watch")
        if not (await asyncio.wait({answer}, timeout=ANSWER_S))[0]:
            self._forget()
        return await answer

    def _look(self, admin: LaneAdmin) -> float:
        """How far this process's clock is ahead, as far as that is certain: the answer was made at some moment between
        question and answer."""
        began, began_s = self._clock(), monotonic()
        there = admin.clock()
        took_s = monotonic() - began_s
        if there is None:
            return 0.0
        least_s = (began - there).total_seconds()
        return max(0.0, least_s) + min(0.0, least_s + took_s)

    def _note(self, ahead_s: float) -> None:
        self._ahead_s = ahead_s
        self._ahead.set(ahead_s)
        if abs(ahead_s) > SAID_AHEAD_S and self._line.is_due("ahead" if ahead_s > 0 else "behind", monotonic()):
            log.warning("clock_wrong", lane=self._lane, ahead_s=round(ahead_s, 1), reason=ahead_words(ahead_s))

    def _forget(self) -> None:
        self._ahead_s = math.nan
        self._ahead.set(math.nan)
        if self._letters is not None:
            self._letters.set(math.nan)
