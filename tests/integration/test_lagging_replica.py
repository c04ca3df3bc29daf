"""A PostgreSQL standby whose replay lags: a read with a place is never stale, and one without it sometimes is.

READS_AFTER_WRITES (120) is how many are tried; it is set to 100000 for a long run.
"""

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from coordinator.client.command_log import open_command_log
from coordinator.client.database import close_database, open_database
from coordinator.client.recency import NeededRecency, ReadDatabase, need_recency
from coordinator.client.repository import open_repository
from coordinator.dev.servers.postgresql import PostgreSQL
from coordinator.service.errors import NotRecent
from coordinator.stores.open import open_store
from tests.support.ledger import LEDGER, Account
from tests.support.postgresql_standby import replicated
from tests.support.store_contract import NOW, account, changes, commit, entry

READS = int(os.environ.get("READS_AFTER_WRITES", "120"))
WAIT_S = 0.01
PAUSED_EVERY = 40
"""Of each so many writes, replay stands still during the second half."""


@pytest.fixture
def servers() -> Iterator[tuple[PostgreSQL, PostgreSQL]]:
    with replicated() as servers:
        yield servers


async def test_reads_after_own_writes_on_a_lagging_standby_are_never_stale(
    servers: tuple[PostgreSQL, PostgreSQL],
) -> None:
    primary, standby = servers
    replica, main = open_database(standby.url, 4), open_database(primary.url, 4)
    rows, log = open_repository(replica, LEDGER, Account), open_command_log(replica)
    source = ReadDatabase(lane="ledger", database=replica, primary=main)
    served: dict[str, int] = {}

    async def read_after(sequence: int) -> tuple[bool, bool, bool]:
        needed = NeededRecency({"ledger": sequence}, [source], WAIT_S)
        need_recency(needed)
        row = await rows.get(sequence)
        page = await rows.page(sequence - 1, 1)
        logged = await log.find(entry(sequence).command_id)
        for each in needed.served:
            served[each] = served.get(each, 0) + 1
        return row is not None, [each.id for each in page.items] == [sequence], logged is not None

    stale = 0
    with (
        closing(open_store(primary.url, LEDGER)) as store,
        psycopg.connect(standby.url, autocommit=True) as control,
    ):
        lease = store.take_over("holder", NOW)
        for number in range(1, READS + 1):
            if number % PAUSED_EVERY in (0, PAUSED_EVERY // 2):
                control.execute(
                    "SELECT pg_wal_replay_pause()" if number % PAUSED_EVERY else "SELECT pg_wal_replay_resume()"
                )
            lease = await asyncio.to_thread(
                commit, store, lease, changes(inserts=[account(number), entry(number, lease.epoch)])
            )
            stale += await rows.get(number) is None
            # A task of its own has a context of its own, as a request has.
            assert await asyncio.create_task(read_after(lease.sequence)) == (True, True, True), number
        print(f"{READS} writes: {stale} reads without their places were stale, those with them served by {served}")
        assert stale > 0, "the standby did not lag: the test shows nothing"
        assert set(served) == {"replica", "primary"}
        # A place that nobody has given out.
        began_s = time.monotonic()
        with pytest.raises(NotRecent, match="lane ledger stands at"):
            await asyncio.create_task(read_after(10**15 - 1))
        assert time.monotonic() - began_s < WAIT_S + 1
    await close_database(replica)
    await close_database(main)
