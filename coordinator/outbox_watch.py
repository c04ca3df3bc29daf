"""Finds emitted commands that nobody publishes, and wakes their lane.

What a dead process left in the outbox is published by its successor; but on an idle lane nobody learns that he is the
successor, since the broker tells a consumer that it is the active one only by delivering to it. So every process of a
lane, standbys too, looks into the outbox now and then, and publishes a marker into the lane if the same entry is
there twice: whoever gets it takes the lane over, and publishes what it finds.
"""

import asyncio
from collections.abc import Callable
from uuid import UUID, uuid5

import structlog

from coordinator.lane.control import Marker
from coordinator.stores.port import Store, StoreError
from shared.lane_tables import OutboxEntry
from shared.messaging.wire import CommandMessage

log = structlog.get_logger("outbox")


class OutboxWatch:
    """Looks every so often, on a connection of its own."""

    def __init__(self, lane: str, store: Store, wake: Callable[[str], None], interval_s: float) -> None:
        self._lane = lane
        self._store = store
        self._wake = wake
        self._interval_s = interval_s

    async def run(self) -> None:
        """Until cancelled."""
        seen: str | None = None
        try:
            while True:
                await asyncio.sleep(self._interval_s)
                oldest = await asyncio.to_thread(oldest_left, self._store)
                if oldest is not None and oldest == seen:
                    log.warning("outbox_left", lane=self._lane, command_id=oldest)
                    self._wake(marker_id(oldest))
                seen = oldest
        finally:
            self._store.close()


def oldest_left(store: Store) -> str | None:
    """The id of the oldest command in the outbox; None too where the database is away."""
    try:
        transaction = store.begin()
        try:
            rows = transaction.scan(OutboxEntry, 1)
        finally:
            transaction.rollback()
    except StoreError:
        return None
    return rows[0].command_id if rows else None


def marker_of(command_id: str) -> CommandMessage:
    """The marker that wakes a lane in whose outbox this command was left."""
    return CommandMessage(command_id=marker_id(command_id), type=Marker.type, arguments=b"{}")


def marker_id(command_id: str) -> str:
    """The same for every process that finds this command left, and however often: the log takes one row for it."""
    return str(uuid5(UUID(command_id), "left in the outbox"))
