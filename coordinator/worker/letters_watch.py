"""Counts a lane's dead letters now and then, for its metrics. Operators remove some: no process knows by itself."""

import asyncio
import math
from collections.abc import Callable
from typing import Final

from prometheus_client import Gauge

from coordinator.service.errors import ConfigurationError, Unavailable
from coordinator.stores.admin import LaneAdmin

LETTERS: Final = Gauge(
    "coordinator_lane_dead_letter_rows", "Dead letters in the lane's database; NaN: it does not answer.", ["lane"]
)
COUNT_EVERY_S: Final = 15.0


class LettersWatch:
    """Counts on a connection of its own, as every process of the lane does, standbys too."""

    def __init__(self, lane: str, open_admin: Callable[[], LaneAdmin], every_s: float = COUNT_EVERY_S) -> None:
        self._open_admin = open_admin
        self._every_s = every_s
        self._letters = LETTERS.labels(lane)
        self._letters.set(math.nan)

    async def run(self) -> None:
        """Until cancelled."""
        admin: LaneAdmin | None = None
        try:
            while True:
                try:
                    admin = admin or self._open_admin()
                    self._letters.set(await asyncio.to_thread(admin.dead_letters))
                except (Unavailable, ConfigurationError):
                    # The lane says what is wrong with its database.
                    self._letters.set(math.nan)
                await asyncio.sleep(self._every_s)
        finally:
            if admin is not None:
                admin.close()
