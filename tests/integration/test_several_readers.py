"""READER_URL names several replicas: reads go to all of them, past one that is away, and to that again.

Two proxies stand for them, before one server.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.client.database import READ_TIMEOUT_MS, close_database, fetch, open_database
from coordinator.client.recency import NeededRecency, ReadDatabase, need_recency
from coordinator.client.repository import table_of
from coordinator.http.database_part import ReplicasPart
from coordinator.migrations.migrate import migrate
from coordinator.runtime.addresses import parse_address
from coordinator.runtime.settings import DatabaseSettings
from coordinator.stores.sql.hosts_in_turns import hosts_in_turns
from tests.faults.proxy import TcpProxy
from tests.support.databases import FreshDatabases, sql_engine
from tests.support.ledger import LEDGER, Account, metadata

READS = 6
OPTIONS = {"USERS_DATABASE_URL": "?load_balance_hosts=random", "PAYMENTS_DATABASE_URL": ""}


class TwoReplicas(Struct):
    first: TcpProxy
    second: TcpProxy
    engine: AsyncEngine

    async def served(self) -> set[str]:
        """By whom several reads at once are served."""
        source = ReadDatabase(lane="ledger", database=self.engine)

        async def read() -> Any:
            needed = NeededRecency({"ledger": 0}, [source], 0)
            need_recency(needed)
            await fetch(self.engine, table_of(LEDGER, Account).select(), Account)
            return next(iter(needed.served))

        return set(await asyncio.gather(*(asyncio.create_task(read()) for _ in range(READS))))

    async def problem(self) -> str | None:
        """What readiness shows of them."""
        turns = hosts_in_turns(self.engine)
        assert turns is not None
        return await ReplicasPart(turns).problem()


@pytest.fixture(params=list(OPTIONS), ids=["PostgreSQL", "MySQL"])
async def replicas(request: pytest.FixtureRequest, databases: FreshDatabases) -> AsyncIterator[TwoReplicas]:
    url = databases.new(request.param)
    made = sql_engine(url)
    metadata.create_all(made)
    made.dispose()
    address = parse_address(url)
    (host,) = address.hosts
    async with TcpProxy(host.port or 0) as first, TcpProxy(host.port or 0) as second:
        hosts = ",".join(f"{host.name}:{each.port}" for each in (first, second))
        reader = f"{address.scheme}://several_reader:reads@{hosts}/{address.database}{OPTIONS[request.param]}"
        await asyncio.to_thread(migrate, LEDGER, DatabaseSettings(database_url=url, reader_url=reader))
        engine = open_database(reader, READS)
        assert isinstance(engine, AsyncEngine)
        yield TwoReplicas(first, second, engine)
        await close_database(engine)


async def test_reads_go_to_all_past_one_that_says_nothing_and_to_that_again(
    replicas: TwoReplicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await replicas.served() == {"reader-1", "reader-2"}
    assert await replicas.problem() is None
    replicas.first.stall()
    began_s = time.monotonic()
    assert await replicas.served() == {"reader-2"}
    assert time.monotonic() - began_s < READ_TIMEOUT_MS / 1000
    assert await replicas.problem() == "1 of 2 databases to read from do not answer"
    began_s = time.monotonic()
    for _ in range(3):
        assert await replicas.served() == {"reader-2"}
    # Nobody waits for the first one meanwhile.
    assert time.monotonic() - began_s < 1
    replicas.first.resume()
    # As if the times were over.
    monkeypatch.setattr("coordinator.stores.sql.hosts_in_turns.AWAY_S", -1.0)
    turns = hosts_in_turns(replicas.engine)
    assert turns is not None
    turns.is_away(0)
    await replicas.engine.dispose()
    assert await replicas.served() == {"reader-1", "reader-2"}
    assert await replicas.problem() is None


async def test_one_that_refuses_is_passed_over_at_once(replicas: TwoReplicas) -> None:
    await replicas.first.__aexit__()
    assert await replicas.served() == {"reader-2"}
    assert await replicas.problem() == "1 of 2 databases to read from do not answer"
