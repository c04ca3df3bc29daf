"""How many of a gateway's connections for reads are used, and how many are idle, on each kind of database."""

import asyncio
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.client.database import close_database, open_database, reading
from coordinator.runtime.event_loop import new_event_loop
from coordinator.stores.kinds import PoolUse, pool_use
from tests.support.databases import FreshDatabases

POOL_MAX = 3


@pytest.fixture(
    params=["USERS_DATABASE_URL", "PAYMENTS_DATABASE_URL", "ITEMS_DATABASE_URL"],
    ids=["PostgreSQL", "MySQL", "MongoDB"],
)
def url(request: pytest.FixtureRequest, databases: FreshDatabases) -> str:
    return databases.new(request.param)


async def used_while_reading(database: Any) -> int:
    """How many are used while one read is under way."""
    if isinstance(database, AsyncEngine):
        async with database.connect():
            return pool_use(database).used
    reading_task = asyncio.ensure_future(database["anything"].find_one())
    most = 0
    while not reading_task.done():
        most = max(most, pool_use(database).used)
        await asyncio.sleep(0)
    await reading_task
    return most


def test_it_is_seen_what_is_used_and_what_is_idle(url: str) -> None:
    async def check() -> None:
        database = open_database(url, pool_max=POOL_MAX)
        try:
            assert pool_use(database) == PoolUse(0, 0)
            async with reading():
                assert await used_while_reading(database) == 1
            after = pool_use(database)
            assert after.used == 0
            assert 1 <= after.idle <= POOL_MAX
        finally:
            await close_database(database)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(check())


def test_a_database_in_memory_has_no_pool() -> None:
    async def check() -> None:
        database = open_database("sqlite:///:memory:", pool_max=POOL_MAX)
        try:
            assert pool_use(database) == PoolUse(0, 0)
        finally:
            await close_database(database)

    asyncio.run(check())
