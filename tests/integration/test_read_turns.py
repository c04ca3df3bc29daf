"""Many reads of one do not hold up the read of another, on each kind of database."""

import asyncio

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.client.acting import begin_acting
from coordinator.client.database import close_database, fetch, fetch_documents, open_database
from coordinator.client.repository import table_of
from coordinator.runtime.event_loop import new_event_loop
from coordinator.service.principal import Principal
from coordinator.stores.kinds import Database
from tests.support.databases import FreshDatabases, sql_engine
from tests.support.ledger import LEDGER, Account, metadata

GREEDY = 50


@pytest.fixture(
    params=["USERS_DATABASE_URL", "PAYMENTS_DATABASE_URL", "ITEMS_DATABASE_URL"],
    ids=["PostgreSQL", "MySQL", "MongoDB"],
)
def url(request: pytest.FixtureRequest, databases: FreshDatabases) -> str:
    return databases.new(request.param)


async def read(database: Database) -> None:
    if isinstance(database, AsyncEngine):
        await fetch(database, table_of(LEDGER, Account).select(), Account)
    else:
        await fetch_documents(database[Account.table].find(), Account)


def test_those_who_read_take_turns(url: str) -> None:
    ended: list[str] = []

    async def read_by(name: str, database: Database) -> None:
        begin_acting().actor = Principal(subject=name)
        await read(database)
        ended.append(name)

    async def check() -> None:
        database = open_database(url, pool_max=1)
        try:
            if isinstance(database, AsyncEngine):
                writer = sql_engine(url)
                metadata.create_all(writer)
                writer.dispose()
            greedy = [asyncio.create_task(read_by("ada", database)) for _ in range(GREEDY)]
            await asyncio.sleep(0)
            await asyncio.gather(*greedy, asyncio.create_task(read_by("bob", database)))
        finally:
            await close_database(database)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(check())
    assert len(ended) == GREEDY + 1
    assert ended.index("bob") <= 3
