"""What a lane's process learns from its database now and then: how many dead letters it has, and its clock."""

import asyncio
import gc
import math
import threading
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from coordinator.runtime.ending import end_tasks
from coordinator.service.errors import DatabaseUnavailable
from coordinator.worker import database_watch
from coordinator.worker.database_watch import DatabaseWatch
from tests.support.silent_database import check_it_ends

WITHIN_S = 10.0
NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


class Database:
    """An admin of a database, which may be away, or be at every other count."""

    def __init__(self, *, comes_and_goes: bool = False, says: datetime | None = NOW) -> None:
        self.looks = 0
        self.comes_and_goes = comes_and_goes
        self.is_away = False
        self.is_closed = False
        self.says = says
        self.asked = threading.Semaphore(0)
        self.on_asked: Callable[[], object] = lambda: None

    def clock(self) -> datetime | None:
        self.on_asked()
        if self.is_away:
            self.asked.release()
            raise DatabaseUnavailable("it is away")
        return self.says

    def dead_letters(self) -> int:
        self.looks += 1
        self.asked.release()
        if self.looks % 2 == 0 and self.comes_and_goes:
            raise DatabaseUnavailable("it is away")
        return self.looks

    def close(self) -> None:
        self.is_closed = True


def shown(metric: str) -> float:
    value = REGISTRY.get_sample_value(metric, {"lane": "ledger"})
    return math.nan if value is None else value


async def test_they_are_counted_again_and_again_and_unknown_while_the_database_is_away() -> None:
    admin: Any = Database(comes_and_goes=True)
    seen: list[float] = []
    watching = asyncio.create_task(DatabaseWatch("ledger", lambda: admin, counts=True, every_s=0.01).run())
    async with asyncio.timeout(WITHIN_S):
        while not ({1.0, 3.0} <= set(seen) and any(map(math.isnan, seen[seen.index(1.0) :]))):
            await asyncio.sleep(0)
            seen.append(shown("coordinator_lane_dead_letter_rows"))
    await end_tasks(watching)
    assert admin.is_closed


async def looked(watch: DatabaseWatch, admin: Any) -> None:
    """Return once it has looked: at the second question it has noted the answer to the first."""
    admin.asked = threading.Semaphore(0)
    watching = asyncio.create_task(watch.run())
    for _ in range(2):
        assert await asyncio.to_thread(admin.asked.acquire, timeout=WITHIN_S)
    await end_tasks(watching)


@pytest.mark.parametrize(
    ("ahead_s", "said"),
    [
        (3600.0, "the clock of its machine is 3600 s ahead of that of its database: correct the one that is wrong"),
        (-40.0, "the clock of its machine is 40 s behind that of its database: correct the one that is wrong"),
        (4.0, None),
        (-4.0, None),
    ],
)
async def test_a_clock_that_is_wrong_is_shown_and_said_once(ahead_s: float, said: str | None) -> None:
    admin: Any = Database()
    watch = DatabaseWatch(
        "ledger", lambda: admin, counts=True, clock=lambda: NOW + timedelta(seconds=ahead_s), every_s=0.01
    )
    assert watch.said is None
    with capture_logs() as lines:
        await looked(watch, admin)
    assert shown("coordinator_lane_clock_ahead_seconds") == pytest.approx(ahead_s, abs=1.0)
    assert watch.said == said
    assert [(line["event"], line["reason"]) for line in lines] == ([] if said is None else [("clock_wrong", said)])


async def test_a_slow_answer_makes_no_clock_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was made at some moment meanwhile."""
    elapsed_s = 0.0
    monkeypatch.setattr(database_watch, "monotonic", lambda: elapsed_s)
    admin: Any = Database()
    watch = DatabaseWatch("ledger", lambda: admin, counts=True, clock=lambda: NOW, every_s=0.01)

    def takes_30_s() -> None:
        nonlocal elapsed_s
        elapsed_s += 30.0

    admin.on_asked = takes_30_s
    for after_s, ahead_s in [(0.0, 0.0), (20.0, 0.0), (30.0, 0.0), (37.0, -7.0), (-8.0, 8.0)]:
        admin.says = NOW + timedelta(seconds=after_s)
        await looked(watch, admin)
        assert shown("coordinator_lane_clock_ahead_seconds") == pytest.approx(ahead_s)


async def test_without_a_server_there_is_one_clock() -> None:
    admin: Any = Database(says=None)
    watch = DatabaseWatch("ledger", lambda: admin, counts=True, every_s=0.01)
    await looked(watch, admin)
    assert (shown("coordinator_lane_clock_ahead_seconds"), watch.said) == (0.0, None)


async def test_nobody_knows_while_the_database_is_away() -> None:
    admin: Any = Database()
    watch = DatabaseWatch("ledger", lambda: admin, counts=True, clock=lambda: NOW + timedelta(hours=1), every_s=0.01)
    await looked(watch, admin)
    assert shown("coordinator_lane_clock_ahead_seconds") > 0
    admin.is_away = True
    await looked(watch, admin)
    assert math.isnan(shown("coordinator_lane_clock_ahead_seconds"))
    assert watch.said is None


async def clock_is_known(*, is_known: bool) -> None:
    """Return once it is, or is not any more."""
    async with asyncio.timeout(WITHIN_S / 2):
        ahead_s = shown("coordinator_lane_clock_ahead_seconds")
        while math.isnan(ahead_s) == is_known:
            await asyncio.sleep(0)
            ahead_s = shown("coordinator_lane_clock_ahead_seconds")


async def test_nobody_knows_while_it_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection may be lost without a word: nothing would end the wait for hours."""
    monkeypatch.setattr(database_watch, "ANSWER_S", 0.01)
    admin: Any = Database()
    answers = threading.Event()
    watch = DatabaseWatch("ledger", lambda: admin, counts=True, clock=lambda: NOW + timedelta(hours=1), every_s=0.01)
    await looked(watch, admin)
    admin.on_asked = lambda: answers.wait(WITHIN_S)
    watching = asyncio.create_task(watch.run())
    await clock_is_known(is_known=False)
    assert watch.said is None
    answers.set()
    await clock_is_known(is_known=True)
    await end_tasks(watching)


async def test_an_answer_that_comes_as_the_watch_ends_is_no_error_of_the_process() -> None:
    """MongoDB's client refuses what it was asked before it was closed."""
    admin: Any = Database()
    has_begun, may_end = threading.Event(), threading.Event()
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))

    def refuse() -> None:
        has_begun.set()
        may_end.wait(WITHIN_S)
        raise DatabaseUnavailable("it is closed")

    admin.on_asked = refuse
    watching = asyncio.ensure_future(DatabaseWatch("ledger", lambda: admin, counts=True).run())
    assert await asyncio.to_thread(has_begun.wait, WITHIN_S)
    await end_tasks(watching)
    may_end.set()
    for thread in threading.enumerate():
        if thread.name == "database watch":
            await asyncio.to_thread(thread.join, WITHIN_S)
    await asyncio.sleep(0)
    del watching
    gc.collect()
    assert errors == []


def test_a_process_ends_though_its_database_never_answers() -> None:
    admin: Any = Database()

    def asking(stands_still: Callable[[], None]) -> Coroutine[Any, Any, None]:
        admin.on_asked = stands_still
        return DatabaseWatch("ledger", lambda: admin, counts=True).run()

    check_it_ends(asking)
    assert admin.is_closed
