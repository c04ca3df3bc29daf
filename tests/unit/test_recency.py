"""Reads that wait for a place: one of them looks for all. `tests/integration` has a real replica, and documents."""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import closing
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.client.database import close_database, fetch, open_database
from coordinator.client.reached_place import PAUSE_S, ReachedPlace, now_s
from coordinator.client.recency import NeededRecency, ReadDatabase, need_recency
from coordinator.client.repository import table_of
from coordinator.http.principal_limits import PrincipalLimits
from coordinator.http.waiting_requests import WaitingRequests
from coordinator.runtime.settings import GatewaySettings
from coordinator.service.errors import NotRecent
from coordinator.service.principal import Principal
from tests.support.databases import sql_engine
from tests.support.ledger import LEDGER, Account, metadata

WAIT_S = 0.2
FAR = 10**15 - 1
"""A place that nobody has given out."""


class LaggingLane:
    """Of two files, as if one were a replica of the other; `looks` counts the statements that look for the place."""

    def __init__(self, directory: Path) -> None:
        self._urls = {name: f"sqlite:///{directory}/{name}.sqlite" for name in ("replica", "primary")}
        self.looks: Counter[str] = Counter()
        engines = {name: self._made(name, url) for name, url in self._urls.items()}
        self.replica, self.primary = engines["replica"], engines["primary"]
        self.source = ReadDatabase(lane="ledger", database=self.replica, primary=self.primary)

    def _made(self, name: str, url: str) -> AsyncEngine:
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as file:
            # As a lane's: who writes does not wait for those who read, and who are in the same thread.
            file.execute("PRAGMA journal_mode=WAL")
        writer = sql_engine(url)
        metadata.create_all(writer)
        with writer.begin() as connection:
            connection.execute(text("CREATE TABLE lane_lease (lane TEXT, sequence INTEGER)"))
            connection.execute(text("INSERT INTO lane_lease VALUES ('ledger', 1)"))
        writer.dispose()
        engine = open_database(url, 4)
        assert isinstance(engine, AsyncEngine)

        @event.listens_for(engine.sync_engine, "before_cursor_execute")
        def count(*arguments: Any) -> None:
            self.looks[name] += "lane_lease" in arguments[2]

        return engine

    def reach(self, name: str, place: int) -> None:
        writer = sql_engine(self._urls[name])
        with writer.begin() as connection:
            connection.execute(text("UPDATE lane_lease SET sequence = :place"), {"place": place})
        writer.dispose()

    async def read(self, place: int, wait_s: float = WAIT_S, **options: Any) -> list[str]:
        """By whom it was served, in a task of its own, as a request has one."""

        async def reading() -> list[str]:
            needed = NeededRecency({"ledger": place}, [self.source], wait_s, **options)
            need_recency(needed)
            await fetch(self.replica, table_of(LEDGER, Account).select(), Account)
            return list(needed.served)

        return await asyncio.create_task(reading())


@pytest.fixture
async def lane(tmp_path: Path) -> AsyncIterator[LaggingLane]:
    made = LaggingLane(tmp_path)
    yield made
    await close_database(made.replica)
    await close_database(made.primary)


async def test_two_hundred_reads_that_wait_look_about_as_often_as_one(lane: LaggingLane) -> None:
    with pytest.raises(NotRecent, match=r"lane ledger stands at 1 .* needs 9"):
        await lane.read(FAR)
    alone, lane.looks = lane.looks, Counter()
    began_s = now_s()
    refused = await asyncio.gather(*(lane.read(FAR + 1 - each) for each in range(1, 201)), return_exceptions=True)
    assert {type(each) for each in refused} == {NotRecent}
    # It is 10 to 30, as many come late, and 100 on a busy machine: alone each would look ten times, 2,000 in all.
    assert lane.looks["replica"] < 500
    assert alone["primary"] == 1 <= lane.looks["primary"] <= 1 + (now_s() - began_s) / WAIT_S


async def test_reads_that_wait_leave_connections_to_others_and_one_client_leaves_some_to_the_next(
    lane: LaggingLane,
) -> None:
    waiting, limits = WaitingRequests(8, 8), PrincipalLimits(GatewaySettings(connections_max=8))
    shares = (limits.share_of(Principal(subject="ada")), limits.nobody)
    ada, strangers = ({"room": partial(waiting.for_recent_read, share)} for share in shares)
    long_s = 60.0
    reads: list[asyncio.Task[list[str]]] = []
    for options, number in ((ada, 2), (strangers, 4)):
        reads += [asyncio.create_task(lane.read(FAR, long_s, **options)) for _ in range(number - len(reads))]
        while waiting.number < number:  # noqa: ASYNC110  # it says so to nobody
            await asyncio.sleep(0)
        async with asyncio.timeout(long_s / 2):
            with pytest.raises(NotRecent):
                await lane.read(FAR, long_s, **options)
    with waiting.for_outcome(10.0), waiting.for_outcome(10.0):
        """Writes have more of them than reads, which may ask the primary."""
    for each in reads:
        each.cancel()
    await asyncio.gather(*reads, return_exceptions=True)
    assert waiting.number == 0


async def test_those_who_wait_are_served_as_soon_as_their_place_is_there(lane: LaggingLane) -> None:
    lane.reach("primary", 3)
    # Long enough for a machine that is busy with others: those for 3 wait all of it.
    waiting = [asyncio.create_task(lane.read(place, wait_s=1.0)) for place in (2, 3, 2, 3)]
    while not lane.source.reached.is_awaited(2, inf):  # noqa: ASYNC110  # it says so to nobody
        await asyncio.sleep(0)
    lane.reach("replica", 2)
    assert sorted([(await each)[0] for each in waiting]) == ["primary", "primary", "replica", "replica"]


async def test_a_place_that_the_primary_is_known_to_have_is_looked_for_in_the_snapshot_alone(lane: LaggingLane) -> None:
    lane.reach("primary", 3)
    assert await lane.read(3) == ["primary"]
    before = lane.looks["primary"]
    assert await asyncio.gather(*(lane.read(3) for _ in range(5))) == [["primary"]] * 5
    assert lane.looks["primary"] == before + 5
    # It was restored from a backup: what it was known to have is not believed.
    lane.reach("primary", 1)
    with pytest.raises(NotRecent, match="stands at 1"):
        await lane.read(3)


class CountedLooks:
    """A database that is asked, and answers as told."""

    def __init__(self) -> None:
        self.place = 1
        self.times: list[float] = []
        self.error: Exception | None = None
        self._looked = asyncio.Event()
        self.reached = ReachedPlace(self._look)

    async def _look(self) -> int:
        self.times.append(now_s())
        self._looked.set()
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return self.place

    async def asked(self, times: int) -> None:
        until = len(self.times) + times
        while len(self.times) < until:
            self._looked.clear()
            await self._looked.wait()


async def test_whoever_looks_is_followed_by_another_who_waits() -> None:
    looked = CountedLooks()
    until_s = now_s() + 60
    waiting = [asyncio.create_task(looked.reached.wait(each, until_s)) for each in (2, 3, 3)]
    await looked.asked(2)
    waiting[0].cancel()
    await looked.asked(2)
    looked.error = OSError("gone")
    with pytest.raises(OSError, match="gone"):
        await waiting[1]
    looked.error, looked.place = None, 3
    assert await waiting[2]
    looks = len(looked.times)
    assert not await looked.reached.wait(4, now_s() + 2 * PAUSE_S)
    assert looks < len(looked.times) <= looks + 3


async def test_nobody_waits_longer_than_he_said_for_a_look_of_another() -> None:
    never = asyncio.Event()

    async def look() -> int:
        await never.wait()
        return 0

    reached = ReachedPlace(look)
    looking = asyncio.create_task(reached.wait(2, now_s() + 60))
    await asyncio.sleep(0)
    assert not await reached.wait(2, now_s() + 0.01)
    looking.cancel()


async def test_whoever_comes_makes_the_next_look_come_sooner() -> None:
    looked = CountedLooks()
    waiting = asyncio.create_task(looked.reached.wait(99, now_s() + 60))
    # By now there are 50 ms between two of them.
    await looked.asked(12)
    began_s = now_s()
    for looked.place in range(2, 22):
        assert await looked.reached.wait(looked.place, now_s() + 60)
    assert now_s() - began_s < 0.5
    looked.place = 99
    assert await waiting


async def test_those_who_ask_during_a_look_share_the_next_one() -> None:
    looked = CountedLooks()
    asking = asyncio.create_task(looked.reached.since(now_s()))
    await looked.asked(1)
    looked.place = 2
    assert await asyncio.gather(*(looked.reached.since(now_s()) for _ in range(20))) == [2] * 20
    assert (await asking, len(looked.times)) in [(1, 2), (2, 2)]


async def test_a_look_that_began_earlier_and_ended_later_says_nothing_new() -> None:
    async def look() -> int:
        raise AssertionError("nobody waits")

    reached = ReachedPlace(look)
    reached.saw(7, 2.0)
    reached.saw(5, 1.0)
    assert reached.place == 7
    assert not reached.is_awaited(8, 2.5)
    assert reached.is_awaited(8, 2.0)
