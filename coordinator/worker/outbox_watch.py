"""Watches the outbox: measures the entries that wait, and wakes the lane if no process publishes them.

A successor publishes the entries that a dead process left in the outbox. But on an idle lane no process learns that it
is the successor, since the broker tells a consumer that it is active only by delivering to it. So every process of a
lane, standbys too, looks into the outbox now and then, and publishes a marker into the lane if the same entry is there
twice: the consumer that gets it takes the lane over, and publishes the entries that it finds.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from time import monotonic

import structlog
from msgspec import Struct
from prometheus_client import Gauge

from coordinator.lane.control import Marker
from coordinator.protocol.wire import CommandMessage
from coordinator.service.ids import system_command_id
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.stores.port import Backlog, Store, StoreError

ROWS = Gauge("coordinator_lane_outbox_rows", "Emitted commands that the broker has not confirmed.", ["lane", "target"])
AGE = Gauge("coordinator_lane_outbox_age_seconds", "How long the oldest of them has waited.", ["lane", "target"])
WARNED_EVERY_S = 60.0

log = structlog.get_logger("outbox")


class Left(Struct, frozen=True):
    """The entries of an outbox, by target, and the id of the oldest command; None if there is none."""

    backlog: list[Backlog]
    oldest_id: str | None


class OutboxWatch:
    """Looks every so often, on a connection of its own."""

    def __init__(self, lane: str, store: Store, wake: Callable[[str], None], interval_s: float) -> None:
        self._lane = lane
        self._store = store
        self._wake = wake
        self._interval_s = interval_s
        self._warned_at_s: float | None = None
        self._targets: set[str] = set()

    async def run(self) -> None:
        """Until cancelled."""
        seen: str | None = None
        try:
            while True:
                await asyncio.sleep(self._interval_s)
                left = await asyncio.to_thread(left_in_outbox, self._store)
                if left is None:
                    continue
                self._measure(left.backlog)
                if left.oldest_id is not None and left.oldest_id == seen:
                    self._warn(left.oldest_id)
                    self._wake(marker_id(left.oldest_id))
                seen = left.oldest_id
        finally:
            self._store.close()

    def _measure(self, backlog: list[Backlog]) -> None:
        now = datetime.now(UTC)
        for gone in self._targets - {each.target for each in backlog}:
            ROWS.labels(self._lane, gone).set(0)
            AGE.labels(self._lane, gone).set(0)
        for each in backlog:
            self._targets.add(each.target)
            ROWS.labels(self._lane, each.target).set(each.rows)
            AGE.labels(self._lane, each.target).set(max(0.0, (now - each.oldest_at).total_seconds()))

    def _warn(self, oldest_id: str) -> None:
        now_s = monotonic()
        if self._warned_at_s is None or now_s - self._warned_at_s >= WARNED_EVERY_S:
            self._warned_at_s = now_s
            log.warning("outbox_left", lane=self._lane, command_id=oldest_id)


def left_in_outbox(store: Store) -> Left | None:
    """The entries in the outbox; None if the database is away."""
    try:
        transaction = store.begin()
        try:
            rows = transaction.scan(OutboxEntry, 1)
            backlog = transaction.backlog() if rows else []
        finally:
            transaction.rollback()
    except StoreError:
        return None
    return Left(backlog, rows[0].command_id if rows else None)


def marker_of(command_id: str) -> CommandMessage:
    """The marker that wakes a lane in whose outbox this command was left."""
    return CommandMessage(command_id=marker_id(command_id), type=Marker.type, arguments=b"{}", origin="system")


def marker_id(command_id: str) -> str:
    """The id of the marker, the same from every process that finds this command: the log takes one row for it."""
    return system_command_id(command_id, "left in the outbox")
