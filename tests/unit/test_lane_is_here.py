"""Readers of a lane's databases: what must be the same in all of them is believed only where the lane is."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text

from coordinator.cache import CacheProjection, RowCache
from coordinator.cache.memory import AsyncMemoryScripts, CacheMemory, MemoryScripts
from coordinator.client.api_keys import read_api_keys
from coordinator.client.database import LaneElsewhere, close_database, open_database
from coordinator.client.idempotency_secrets import read_idempotency_secrets
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


async def test_keys_and_secrets_are_those_of_the_database_where_the_lane_has_run(url: str, database: Database) -> None:
    """Each migration makes a secret. A move replaces that of the other database, and may be over between two looks."""
    assert await read_api_keys(database) == []
    assert not (await read_idempotency_secrets(database)).has_run
    writer = sql_engine(url)

    def set_lease(**values: object) -> None:
        with writer.begin() as connection:
            connection.execute(
                text(f"UPDATE lane_lease SET {', '.join(f'{name} = :{name}' for name in values)}"), values
            )

    for step in ("receiving", "moved", "halted"):
        set_lease(epoch=1, move=encode_move(LaneMove(id="m", step=step, other="there")))
        for read in (read_api_keys, read_idempotency_secrets):
            if step == "halted":
                await read(database)
                assert (await read_idempotency_secrets(database)).has_run
            else:
                with pytest.raises(LaneElsewhere, match="yet to come"):
                    await read(database)
    writer.dispose()


async def test_none_are_kept_of_a_database_that_does_not_say(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    away = open_database(f"sqlite:///{tmp_path}/empty.db")
    assert not await fills(away)
    await close_database(away)
    assert await fills(None), "nobody gave it one to ask"
