"""Retention: the active process of a lane removes log entries, dead letters and operators' acts that are too old.

It does what an operator's commands would, beside the lane and on a connection of its own: a small transaction at a
time, with a rest after each that is several times as long. Each proves the lane's lease, as the lane's own do, so
nothing is removed while the lane is paused, or from a copy that has lost commits. The positions of publisher sessions
stay: without its position nobody knows which numbers of a session are settled, and only an operator knows that it is
over.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import closing
from datetime import datetime, timedelta
from functools import partial
from time import monotonic
from typing import Final

import structlog
from prometheus_client import Counter

from coordinator.runtime.clock import utc_now
from coordinator.runtime.own_threads import asked
from coordinator.runtime.repeated_line import RepeatedLine
from coordinator.runtime.settings import LaneSettings
from coordinator.service.errors import ConfigurationError, Unavailable
from coordinator.stores.admin import Holding, LaneAdmin
from coordinator.stores.clocks import clocks_apart
from coordinator.stores.open import open_admin
from coordinator.stores.port import Fenced

REMOVED = Counter(
    "coordinator_lane_removed_total", "Rows removed that were older than their retention.", ["lane", "rows"]
)

LOG_ROWS: Final = 1000
LETTERS: Final = 100
"""How many one transaction removes. One for dead letters has the lease's lock meanwhile, and the lane renews its lease
after it."""
EVERY_S: Final = 24 * 3600.0
RETRY_S: Final = 60.0
REST: Final = 4
"""How many times as long as a transaction took, it rests: it takes a fifth of one connection's time."""
REST_S_MIN: Final = 0.1

Sleep = Callable[[float], Awaitable[None]]

log = structlog.get_logger("retention")


class Retention:
    """Looks at everything once a day, for as long as this process has the lane."""

    def __init__(
        self,
        lane: str,
        open_admin: Callable[[], LaneAdmin],
        holding: Holding,
        settings: LaneSettings,
        clock: Callable[[], datetime] = utc_now,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._lane = lane
        self._open_admin = open_admin
        self._holding = holding
        self._log_days = settings.log_retention_days
        self._letter_days = settings.dead_letter_retention_days
        self._act_days = settings.acts_retention_days
        self._clock = clock
        self._sleep = sleep
        self._line = RepeatedLine(EVERY_S)

    @property
    def is_wanted(self) -> bool:
        """Whether a setting asks for it."""
        return any(days is not None for days in (self._log_days, self._letter_days, self._act_days))

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._sleep(RETRY_S)
            if self.is_wanted and self._holding() is not None and await self._is_done():
                await self._sleep(EVERY_S)

    async def _is_done(self) -> bool:
        """Remove what is too old now. False: the lane is not active under our lease, or its database is away."""
        try:
            with closing(self._open_admin()) as admin:
                # One clock that is wrong must not decide what is old enough: what is forgotten may be applied again.
                there = await asked(admin.clock, "retention")
                now = self._clock()
                if (problem := clocks_apart(self._lane, now, there)) is not None:
                    return self._postponed(problem, kind="clocks apart")
                # Letters first, since the log entries of failed commands stay for as long as their letters do.
                steps = (
                    ("dead_letters", self._letters(admin, now)),
                    ("command_log", self._log(admin, now)),
                    ("operator_acts", self._acts(admin, now)),
                )
                for what, removing in steps:
                    if not await self._removed(what, removing):
                        return False
                return True
        except (Unavailable, ConfigurationError, Fenced) as error:
            return self._postponed(str(error), kind=str(error))

    def _postponed(self, reason: str, kind: str) -> bool:
        """Say so once a day, and not at each try."""
        if self._line.is_due(kind, monotonic()):
            log.warning("retention_postponed", lane=self._lane, reason=reason, retry_s=RETRY_S)
        return False

    async def _removed(self, what: str, steps: Iterator[int]) -> bool:
        removed = 0
        try:
            while self._holding() is not None:
                began_s = monotonic()
                rows = await asked(partial(next, steps, None), "retention")
                if rows is None:
                    return True
                removed += rows
                REMOVED.labels(self._lane, what).inc(rows)
                await self._sleep(max(REST_S_MIN, REST * (monotonic() - began_s)))
            return False
        finally:
            if removed:
                log.info("old_rows_removed", lane=self._lane, table=what, rows=removed)

    def _letters(self, admin: LaneAdmin, now: datetime) -> Iterator[int]:
        if self._letter_days is not None:
            yield from admin.forget_letters(now - timedelta(days=self._letter_days), now, LETTERS, self._holding)

    def _log(self, admin: LaneAdmin, now: datetime) -> Iterator[int]:
        if self._log_days is not None:
            yield from admin.prune(now - timedelta(days=self._log_days), LOG_ROWS, self._holding)

    def _acts(self, admin: LaneAdmin, now: datetime) -> Iterator[int]:
        if self._act_days is not None:
            yield from admin.forget_acts(now - timedelta(days=self._act_days), LOG_ROWS, self._holding)


def retentions_of(
    lanes: Mapping[str, Holding],
    addresses: Mapping[str, str],
    settings: LaneSettings,
    clock: Callable[[], datetime],
) -> list[Retention]:
    """Those of the lanes of one process, which says of each under which lease it has it; none where none is asked for.

    Raises ConfigurationError for a lane whose database's address is not given.
    """
    retentions = []
    for lane, holding in lanes.items():
        retention = Retention(lane, partial(open_admin, addresses.get(lane, ""), lane), holding, settings, clock)
        if retention.is_wanted and lane not in addresses:
            raise ConfigurationError(
                "LANE_LOG_RETENTION_DAYS or another of LANE_…_RETENTION_DAYS is set, and there is no address of the "
                f"database of lane {lane!r}: pass addresses={{{lane!r}: …}} to InProcessWrites"
            )
        retentions.append(retention)
    return [each for each in retentions if each.is_wanted]
