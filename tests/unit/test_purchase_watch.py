"""Waiting for purchases: however many wait, there is one read at a time."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
import pytest

from coordinator import DatabaseUnavailable
from shared.users.purchases.model import Purchase
from shared.users.purchases.watch import LOOK_AGAIN_S, READ_AT_ONCE_MAX, PurchaseWatch

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WAIT_S = 20.0


def begun(number: int) -> Purchase:
    return Purchase(id=number, user_id=7, item_id=5, quantity=1, payment_method="pm", created_at=NOW)


class Rows:
    """Purchases, and how they are read."""

    def __init__(self) -> None:
        self.rows: dict[int, Purchase] = {}
        self.reads: list[Sequence[int]] = []
        self.at_once = 0
        self.errors: list[Exception] = []

    async def read(self, ids: Sequence[int]) -> list[Purchase]:
        assert self.at_once == 0
        self.at_once += 1
        await asyncio.sleep(0)
        self.at_once -= 1
        self.reads.append(ids)
        if self.errors:
            raise self.errors.pop(0)
        return [self.rows[each] for each in ids if each in self.rows]

    def end(self, number: int) -> None:
        self.rows[number] = msgspec.structs.replace(begun(number), status="completed")

    async def seen(self, reads: int) -> None:
        """Return once there were so many more."""
        wanted = len(self.reads) + reads
        async with asyncio.timeout(WAIT_S):
            while len(self.reads) < wanted:  # noqa: ASYNC110  # counted by the reads themselves
                await asyncio.sleep(0)


@pytest.fixture
def rows() -> Rows:
    return Rows()


async def test_all_who_wait_are_told_by_the_same_reads(rows: Rows) -> None:
    watch = PurchaseWatch(rows.read)
    waiting = [asyncio.create_task(watch.wait(begun(1 + number % 3), WAIT_S)) for number in range(900)]
    await rows.seen(2)
    for number in (1, 2, 3):
        rows.end(number)
    assert {(await each).status for each in waiting} == {"completed"}
    assert {len(ids) for ids in rows.reads} == {3}
    assert len(rows.reads) < 10


async def test_so_many_are_read_at_once(rows: Rows) -> None:
    watch = PurchaseWatch(rows.read)
    waiting = [asyncio.create_task(watch.wait(begun(number), WAIT_S)) for number in range(2 * READ_AT_ONCE_MAX + 1)]
    for number in range(2 * READ_AT_ONCE_MAX + 1):
        rows.end(number)
    await asyncio.gather(*waiting)
    assert max(map(len, rows.reads)) == READ_AT_ONCE_MAX


async def test_who_waits_no_longer_is_shown_what_was_seen_and_nothing_more_is_read(rows: Rows) -> None:
    watch = PurchaseWatch(rows.read)
    rows.rows[1] = msgspec.structs.replace(begun(1), reason="not yet")
    assert (await watch.wait(begun(1), 4 * LOOK_AGAIN_S)).reason == "not yet"
    assert watch._task is not None
    await watch._task
    reads = len(rows.reads)
    rows.end(1)
    # The next one looks for himself.
    assert (await watch.wait(begun(1), WAIT_S)).status == "completed"
    assert len(rows.reads) == reads + 1


async def test_a_database_that_is_away_is_asked_again_and_what_nobody_understands_is_told(rows: Rows) -> None:
    watch = PurchaseWatch(rows.read)
    rows.end(1)
    rows.errors = [DatabaseUnavailable("away"), DatabaseUnavailable("away")]
    assert (await watch.wait(begun(1), WAIT_S)).status == "completed"
    rows.errors = [ZeroDivisionError()]
    both = await asyncio.gather(*(watch.wait(begun(1), WAIT_S) for _ in range(2)), return_exceptions=True)
    assert [type(each) for each in both] == [ZeroDivisionError] * 2
    assert (await watch.wait(begun(1), WAIT_S)).status == "completed"


async def test_one_that_is_not_there_yet_is_read_again(rows: Rows) -> None:
    watch = PurchaseWatch(rows.read)
    waiting = asyncio.create_task(watch.wait(begun(1), WAIT_S))
    await rows.seen(2)
    rows.end(1)
    assert (await waiting).status == "completed"


async def test_what_has_ended_is_not_read(rows: Rows) -> None:
    ended = msgspec.structs.replace(begun(1), status="completed")
    assert await PurchaseWatch(rows.read).wait(ended, WAIT_S) is ended
    assert rows.reads == []
