"""COMMIT is recognised in the bytes of each database's protocol, and what is done to it happens."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from urllib.parse import urlsplit

import pytest

from coordinator.migrations.migrate import migrate
from coordinator.registry import registry
from coordinator.runtime.settings import DatabaseSettings
from coordinator.stores.lane_tables import Series
from coordinator.stores.open import open_store
from coordinator.stores.port import Lease, Read, StoreUnavailable
from tests.faults.plan import LANES
from tests.faults.proxies import Proxies
from tests.faults.proxy import AtCommit, CommitSpotter, TcpProxy, in_clear
from tests.support.databases import FreshDatabases
from tests.support.store_contract import NOW, changes, commit

PARSE = b"P\x00\x00\x00\x16_pg3_4\x00COMMIT\x00\x00\x00"
PARSE_FENCE = b"P\x00\x00\x00\x99lane_4\x00\n    WITH current_lease AS (\n    )\x00\x00\x00"
BIND_FENCE = b"B\x00\x00\x00\x14\x00lane_4\x00\x00\x00\x00\x00\x00\x01\x00\x00"
BIND = b"B\x00\x00\x00\x14\x00_pg3_4\x00\x00\x00\x00\x00\x00\x01\x00\x00"
BIND_OTHER = b"B\x00\x00\x00\x14\x00_pg3_5\x00\x00\x00\x00\x00\x00\x01\x00\x00"
SYNC = b"S\x00\x00\x00\x04"
STRIKE_TIMEOUT_S = 10.0


@pytest.mark.parametrize(
    "chunk",
    [
        b"Q\x00\x00\x00\x0bCOMMIT\x00",
        b"\x07\x00\x00\x00\x03COMMIT",
        b"\x00\x00\x00\x00\x10commitTransaction\x00\x01\x00\x00\x00",
        PARSE + BIND + SYNC,
        PARSE_FENCE + BIND_FENCE + BIND_OTHER + SYNC,
    ],
)
def test_a_commit_is_recognised(chunk: bytes) -> None:
    assert CommitSpotter().sees(chunk)


def test_one_prepared_before_another_is_recognised() -> None:
    spotter = CommitSpotter()
    assert spotter.sees(PARSE + BIND + SYNC)
    assert spotter.sees(PARSE_FENCE + BIND_FENCE + SYNC)
    assert spotter.sees(BIND + SYNC)
    assert spotter.sees(BIND_FENCE + SYNC)


@pytest.mark.parametrize(("parse", "bind"), [(PARSE, BIND), (PARSE_FENCE, BIND_FENCE)])
def test_a_prepared_one_is_recognised_by_its_name_at_the_end_of_its_pipeline(parse: bytes, bind: bytes) -> None:
    spotter = CommitSpotter()
    assert not spotter.sees(b"Q\x00\x00\x00\x0aBEGIN\x00")
    assert not spotter.sees(bind + SYNC)
    assert spotter.sees(parse + bind + SYNC)
    assert not spotter.sees(bind + BIND_OTHER)
    assert spotter.sees(BIND_OTHER + SYNC)
    assert not spotter.sees(BIND_OTHER + SYNC)


def _greeting(capabilities: bytes) -> bytes:
    said = b"\x0a11.8.3-MariaDB\x00" + 4 * b"\x07" + 8 * b"n" + b"\x00" + capabilities + 20 * b"\xff"
    return len(said).to_bytes(3, "little") + b"\x00" + said


def test_the_offer_of_tls_is_left_out_and_nothing_else() -> None:
    assert in_clear(_greeting(b"\xfe\xff")) == _greeting(b"\xfe\xf7")
    assert in_clear(_greeting(b"\xfe\xf7")) == _greeting(b"\xfe\xf7")


@pytest.mark.parametrize(
    "said",
    [
        b"\x01\x00\x00\x00\x00\x01\xfa\x00\x0a\x00\x0a\x00\x09",  # RabbitMQ's connection.start
        b"R\x00\x00\x00\x17\x00\x00\x00\x0aSCRAM-SHA-256\x00\x00",  # PostgreSQL's
        b"\x28\x00\x00\x00\x0a1\x00\x00" + 32 * b"\xff",  # MongoDB's, whose length counts itself
        b"",
    ],
)
def test_what_other_servers_say_first_stays_as_it_is(said: bytes) -> None:
    assert in_clear(said) == said


def _port(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


class Struck:
    """A store that goes through a proxy, and its successor that does not."""

    def __init__(self, lane: str, url: str) -> None:
        self.retries = lane == "items"
        """MongoDB's driver asks for a lost commit a second time by itself."""
        self._port = _port(url)
        self._url = url
        self._service = registry().service(lane)
        self.successor = open_store(url, self._service)

    @asynccontextmanager
    async def commit(self, what: AtCommit, late_s: float = 0.0) -> AsyncIterator["asyncio.Task[Lease]"]:
        """Strike at the commit of a counter. At the end nothing of it is on its way."""
        async with TcpProxy(self._port) as proxy:
            store = open_store(Proxies([(self._port, proxy)]).through(self._url), self._service)
            try:
                lease = await asyncio.to_thread(store.take_over, "holder", NOW)
                strike = asyncio.create_task(proxy.strike_at_commit(what, STRIKE_TIMEOUT_S, late_s=late_s))
                await asyncio.sleep(0)
                change = changes(inserts=[Series(name="n", value=1)])
                committing = asyncio.create_task(asyncio.to_thread(commit, store, lease, change))
                assert await strike, "no commit was seen"
                yield committing
                await asyncio.wait({committing})
            finally:
                await asyncio.to_thread(store.close)

    def fails(self) -> AbstractContextManager[object]:
        """What is within tells that the store is unavailable, unless the driver mends it."""
        return nullcontext() if self.retries else pytest.raises(StoreUnavailable)

    def counters(self) -> int:
        transaction = self.successor.begin()
        try:
            (rows,) = transaction.load([Read(Series, "name", ["n"])])
        finally:
            transaction.rollback()
        return len(rows)


@pytest.fixture(params=LANES)
def struck(request: pytest.FixtureRequest, databases: FreshDatabases) -> Iterator[Struck]:
    url = databases.new(f"{request.param.upper()}_DATABASE_URL")
    migrate(registry().service(request.param), DatabaseSettings(database_url=url))
    struck = Struck(request.param, url)
    yield struck
    struck.successor.close()


async def test_a_store_loses_its_commit(struck: Struck) -> None:
    async with struck.commit(AtCommit.LOSE_REQUEST) as committing:
        with struck.fails():
            await committing
    is_committed = struck.retries
    assert struck.successor.take_over("successor", NOW).sequence == is_committed
    assert struck.counters() == is_committed


async def test_a_store_loses_the_answer_to_its_commit(struck: Struck) -> None:
    async with struck.commit(AtCommit.LOSE_ANSWER) as committing:
        with struck.fails():
            await committing
    assert struck.successor.take_over("successor", NOW).sequence == 1
    assert struck.counters() == 1


async def test_a_store_commits_late(struck: Struck) -> None:
    """Whatever a successor finds stays: the late commit is in it, or never is."""
    async with struck.commit(AtCommit.DELIVER_LATE, late_s=0.2) as committing:
        found = await asyncio.to_thread(struck.successor.take_over, "successor", NOW)
        with suppress(StoreUnavailable):
            await committing
    assert struck.counters() == found.sequence
