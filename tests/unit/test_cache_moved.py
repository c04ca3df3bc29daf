"""A reader fills the cache with rows of the database to which the lane writes, and of no other."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text

from coordinator.cache import CacheProjection, RowCache
from coordinator.cache.memory import AsyncMemoryScripts, CacheMemory, MemoryScripts
from coordinator.client.database import close_database, open_database
from coordinator.migrations.migrate import migrate
from coordinator.runtime.settings import DatabaseSettings
from coordinator.stores.kinds import Database
from coordinator.stores.moves import LaneMove, MoveStep, encode_move
from tests.support.databases import sql_engine
from tests.support.ledger import LEDGER, Account
from tests.support.store_contract import account
from tests.unit.test_cache_memory import Proof

LEASE = "ledger:lease"


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/ledger.db"
    migrate(LEDGER, DatabaseSettings(database_url=url))
    return url


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    opened = open_database(url)
    yield opened
    await close_database(opened)


async def fills(database: Database | None) -> bool:
    memory = CacheMemory(100)
    lane = CacheProjection(MemoryScripts(memory), Account, str, LEASE, lease_s=60.0, ttl_s=60)
    assert await asyncio.to_thread(lane.committed, Proof(), [account(1)], []) == 0
    cache = RowCache(AsyncMemoryScripts(memory), Account, str, LEASE, ttl_s=60, lane="ledger", database=database)
    missed = await cache.get(2)
    assert missed is not None
    assert missed.ticket is not None
    return await cache.fill(account(2), missed.ticket)


@pytest.mark.parametrize(
    ("step", "expected"), [(None, True), ("noting", True), ("halted", True), ("moved", False), ("receiving", False)]
)
async def test_only_rows_of_the_lanes_database_are_kept(
    url: str, database: Database, step: MoveStep | None, expected: bool
) -> None:
    move = None if step is None else encode_move(LaneMove(id="m", step=step, other="there"))
    writer = sql_engine(url)
    with writer.begin() as connection:
        connection.execute(text("UPDATE lane_lease SET move = :move"), {"move": move})
    writer.dispose()
    assert await fills(database) == expected


async def test_none_are_kept_of_a_database_that_does_not_say(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    away = open_database(f"sqlite:///{tmp_path}/empty.db")
    assert not await fills(away)
    await close_database(away)
    assert await fills(None), "nobody gave it one to ask"
