"""Whose read has the next connection of a gateway to its database. `tests/integration` has each kind of database."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.client.acting import begin_acting
from coordinator.client.database import close_database, fetch, open_database
from coordinator.client.read_turns import ReadTurns, turn_of
from coordinator.client.repository import table_of
from coordinator.service.principal import Principal
from tests.support.databases import sql_engine
from tests.support.ledger import LEDGER, Account, metadata

ADA, BOB = Principal(subject="ada"), Principal(subject="bob")
GREEDY = 50


class Reads:
    """`began` and `ended` have who read, in that order."""

    def __init__(self, connections: int) -> None:
        self.turns = ReadTurns(connections)
        self.began: list[str] = []
        self.ended: list[str] = []
        self.go_on = asyncio.Event()

    def by(self, who: Principal | None, name: str) -> "asyncio.Task[None]":
        async def read() -> None:
            begin_acting().actor = who
            async with self.turns.one():
                self.began.append(name)
                await self.go_on.wait()
                await asyncio.sleep(0)
            self.ended.append(name)

        return asyncio.create_task(read())


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_whoever_is_alone_has_all_connections() -> None:
    reads = Reads(3)
    tasks = [reads.by(ADA, "ada") for _ in range(GREEDY)]
    await settle()
    assert reads.began == ["ada"] * 3
    reads.go_on.set()
    await asyncio.gather(*tasks)
    assert len(reads.ended) == GREEDY


async def test_each_client_of_one_server_has_its_own_connections() -> None:
    """A gateway has one more for what it needs itself. For PyMongo both are equal."""
    url = "mongodb://127.0.0.1:1/items"
    readers, own = open_database(url, pool_max=2), open_database(url, pool_max=1)
    async with asyncio.timeout(5), turn_of(readers), turn_of(readers), turn_of(own):
        pass
    await close_database(readers)
    await close_database(own)


async def test_those_who_ask_take_turns_each_with_his_oldest_first() -> None:
    reads = Reads(2)
    tasks = [reads.by(ADA, f"ada {number}") for number in range(GREEDY)]
    await settle()
    tasks += [reads.by(BOB, "bob 1"), reads.by(None, "nobody"), reads.by(BOB, "bob 2")]
    await settle()
    assert reads.began == ["ada 0", "ada 1"]
    reads.go_on.set()
    await asyncio.gather(*tasks)
    # In the order of those who wait: Ada did so first.
    assert reads.began[2:9] == ["ada 2", "bob 1", "nobody", "ada 3", "bob 2", "ada 4", "ada 5"]


async def test_who_has_waited_for_too_long_leaves_no_gap() -> None:
    reads = Reads(1)
    first, second, third = reads.by(ADA, "first"), reads.by(ADA, "second"), reads.by(BOB, "third")
    await settle()
    second.cancel()
    await settle()
    reads.go_on.set()
    await asyncio.gather(first, third)
    assert (second.cancelled(), reads.began) == (True, ["first", "third"])
    await reads.by(ADA, "fourth")
    assert reads.ended == ["first", "third", "fourth"]


async def test_a_turn_that_comes_at_the_end_of_the_wait_goes_to_the_next() -> None:
    turns, began = ReadTurns(1), []

    async def read(name: str) -> None:
        async with turns.one():
            began.append(name)

    async with turns.one():
        second, third = asyncio.create_task(read("second")), asyncio.create_task(read("third"))
        await settle()
    # The second has the turn by now, and has not gone on yet.
    second.cancel()
    await asyncio.gather(second, third, return_exceptions=True)
    assert (second.cancelled(), began) == (True, ["third"])
    await asyncio.wait_for(read("fourth"), 1)


async def test_a_read_that_fails_leaves_its_turn() -> None:
    turns = ReadTurns(1)
    for _ in range(2):
        with pytest.raises(ValueError, match="as it is"):
            async with turns.one():
                raise ValueError("as it is")


async def test_many_reads_of_one_do_not_hold_up_the_read_of_another(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.sqlite"
    writer = sql_engine(url)
    metadata.create_all(writer)
    writer.dispose()
    database = open_database(url, 1)
    assert isinstance(database, AsyncEngine)
    ended: list[str] = []

    async def read(who: Principal) -> None:
        begin_acting().actor = who
        await fetch(database, table_of(LEDGER, Account).select(), Account)
        ended.append(who.subject)

    try:
        tasks = [asyncio.create_task(read(ADA)) for _ in range(GREEDY)]
        await asyncio.sleep(0)
        await asyncio.gather(*tasks, asyncio.create_task(read(BOB)))
        assert len(ended) == GREEDY + 1
        assert ended.index("bob") <= 3
    finally:
        await close_database(database)
