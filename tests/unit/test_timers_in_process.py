"""Timers of running lanes: they fire by themselves, whatever became of the process that set them."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest

from coordinator.client.writes import WriteOptions, execute
from coordinator.service.rows import R
from coordinator.stores.lane_tables import LogEntry, OutboxEntry, Timer
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from coordinator.worker.inprocess import InProcessWrites
from coordinator.worker.outbox_watch import OVERDUE, TIMERS, OutboxWatch, left_in_outbox, marker_id
from tests.support.system import wait_until
from tests.support.timers import SEATS, Hold, Pay, Seat

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def rows(database: MemoryDatabase, model: type[R]) -> list[R]:
    transaction = MemoryStore(database).begin()
    found = transaction.scan(model, 1000)
    transaction.rollback()
    return found


def seats(database: MemoryDatabase) -> dict[int, str | None]:
    return {seat.id: seat.holder for seat in rows(database, Seat)}


async def until_released(database: MemoryDatabase, *numbers: int) -> None:
    def are_released() -> bool:
        return all(seats(database)[number] is None for number in numbers) and not rows(database, OutboxEntry)

    await asyncio.to_thread(wait_until, are_released, "the seats are released")


async def test_an_idle_lane_fires_its_timers() -> None:
    database = MemoryDatabase()
    async with InProcessWrites({"seats": MemoryStore(database)}, [SEATS]) as writes:
        began_at_s = time.monotonic()
        await execute(writes, Hold(id=1, after_ms=300), Seat, WriteOptions())
        await execute(writes, Hold(id=2, after_ms=3_600_000), Seat, WriteOptions())
        await until_released(database, 1)
        assert time.monotonic() - began_at_s >= 0.3
        assert seats(database)[2] == "ada"
        assert await execute(writes, Pay(id=2), Seat, WriteOptions())
    assert rows(database, Timer) == []


async def test_a_busy_lane_fires_its_timers() -> None:
    """A lane that always has something to apply."""
    database = MemoryDatabase()
    async with InProcessWrites({"seats": MemoryStore(database)}, [SEATS]) as writes:
        is_over = asyncio.Event()

        async def keep_busy(number: int) -> None:
            while not is_over.is_set():
                await execute(writes, Hold(id=number, after_ms=3_600_000), Seat, WriteOptions())

        busy = [asyncio.create_task(keep_busy(number)) for number in range(10, 14)]
        await execute(writes, Hold(id=1, after_ms=100), Seat, WriteOptions())
        await asyncio.to_thread(wait_until, lambda: seats(database)[1] is None, "the seat is released")
        is_over.set()
        await asyncio.gather(*busy)


async def test_a_timer_that_was_due_while_nobody_ran_fires_at_the_start() -> None:
    database = MemoryDatabase()
    async with InProcessWrites({"seats": MemoryStore(database)}, [SEATS], clock=lambda: NOW) as writes:
        await execute(writes, Hold(id=1, after_ms=1000), Seat, WriteOptions())
    assert len(rows(database, Timer)) == 1
    later = NOW + timedelta(seconds=1)
    async with InProcessWrites({"seats": MemoryStore(database)}, [SEATS], clock=lambda: later):
        await until_released(database, 1)
    assert [entry.type for entry in rows(database, LogEntry) if entry.type == "seats.release"] == ["seats.release"]


async def test_an_idle_successor_knows_when_the_timers_are_due() -> None:
    database = MemoryDatabase()
    async with InProcessWrites({"seats": MemoryStore(database)}, [SEATS]) as writes:
        await execute(writes, Hold(id=1, after_ms=500), Seat, WriteOptions())
    async with InProcessWrites({"seats": MemoryStore(database)}, [SEATS]):
        await until_released(database, 1)


class Watching:
    """A watch over a database, and the markers by which it wakes the lane."""

    def __init__(self, database: MemoryDatabase) -> None:
        self.markers: list[str] = []
        self._store = MemoryStore(database)
        self._watch = OutboxWatch("seats", self._store, self.markers.append, 1.0)

    def look(self, now: datetime, now_s: float) -> None:
        left = left_in_outbox(self._store)
        assert left is not None
        self._watch._look_at_timers(left, now, now_s)


@pytest.fixture
async def database() -> MemoryDatabase:
    """With two timers, of which the first is due in a second; its process is gone."""
    database = MemoryDatabase()
    async with InProcessWrites({"seats": MemoryStore(database)}, [SEATS], clock=lambda: NOW) as writes:
        await execute(writes, Hold(id=1, after_ms=1000), Seat, WriteOptions())
        await execute(writes, Hold(id=2, after_ms=9000), Seat, WriteOptions())
    return database


def test_the_watch_wakes_a_lane_whose_timer_stays_overdue(database: MemoryDatabase) -> None:
    watching = Watching(database)
    first = rows(database, Timer)[0]
    watching.look(NOW + timedelta(seconds=0.5), 0.5)
    assert TIMERS.labels("seats")._value.get() == 2
    assert OVERDUE.labels("seats")._value.get() == 0
    # The lane may be about to fire it.
    watching.look(NOW + timedelta(seconds=2), 2.0)
    assert watching.markers == []
    watching.look(NOW + timedelta(seconds=3), 3.0)
    assert OVERDUE.labels("seats")._value.get() == 2
    assert watching.markers == [marker_id(first.id)]


def test_the_watch_does_not_fill_the_queue_of_a_blocked_lane(database: MemoryDatabase) -> None:
    watching = Watching(database)
    for second in range(2, 600):
        watching.look(NOW + timedelta(seconds=second), float(second))
    assert len(watching.markers) == 12, "at 3, 13, 33, 73 s, and each minute"


def test_the_watch_lets_a_paused_lane_be(database: MemoryDatabase) -> None:
    watching = Watching(database)
    database.paused = "an inventory"
    for second in range(2, 120):
        watching.look(NOW + timedelta(seconds=second), float(second))
    assert watching.markers == []
