"""Reads of documents with a place: they wait for it, and are refused, as those of an SQL database are.

The stand-in for MongoDB is one server. Only members of a real replica set could show that the lease gives a primary
away which was cut off and has not noticed.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import closing
from typing import Any

import pytest
from msgspec import Struct
from pymongo import AsyncMongoClient, ReadPreference
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.client.command_log import open_command_log
from coordinator.client.database import check_lane_is_here, close_database, fetch, lane_is_here, open_database
from coordinator.client.recency import NeededRecency, ReadDatabase, need_recency
from coordinator.client.repository import open_repository, table_of
from coordinator.migrations.migrate import migrate
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.errors import NotRecent
from coordinator.stores.mongodb.documents import Documents
from coordinator.stores.open import open_store
from coordinator.stores.port import Lease, Store
from shared.items import SERVICE
from shared.items.model import Item
from shared.items.on_mongodb import DocumentItems
from tests.support.databases import FreshDatabases, sql_engine
from tests.support.ledger import LEDGER, Account, metadata
from tests.support.store_contract import NOW, changes, commit, entry

WAIT_S = 0.05
FAR = 10**15 - 1
"""A place that nobody has given out."""

Read = Callable[[], Awaitable[object]]


class LaneOfItems(Struct):
    """The database of a lane that has come to its first place, and a lane of another kind beside it."""

    store: Store
    lease: Lease
    documents: Documents
    beside: AsyncEngine

    def reads(self, documents: Documents | None = None) -> Sequence[Read]:
        """Of documents, each way."""
        database: Any = self.documents if documents is None else documents
        own, made, log = DocumentItems(database), open_repository(database, SERVICE, Item), open_command_log(database)
        return (
            *(lambda: own.get(1), lambda: own.latest(1), lambda: own.page(0, 1)),
            *(lambda: made.get(1), lambda: made.page(None, 1)),
            *(lambda: log.find(entry(1).command_id), lambda: log.find_all([entry(1).command_id])),
        )

    async def read(
        self, read: Read, *, documents: Documents | None = None, wait_s: float = WAIT_S, **places: int
    ) -> Any:
        """What is read, and by whom it was served; in a task of its own, as a request has one."""
        sources = [
            ReadDatabase(lane="items", database=self.documents if documents is None else documents),
            ReadDatabase(lane="ledger", database=self.beside),
        ]

        async def reading() -> Any:
            needed = NeededRecency(places, sources, wait_s)
            need_recency(needed)
            return await read(), list(needed.served)

        return await asyncio.create_task(reading())


@pytest.fixture
async def items(databases: FreshDatabases, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LaneOfItems]:
    url, beside = databases.new("ITEMS_DATABASE_URL"), f"sqlite:///{tmp_path_factory.mktemp('ledger')}/it.sqlite"
    migrate(SERVICE, DatabaseSettings(database_url=url))
    engine = sql_engine(beside)
    metadata.create_all(engine)
    engine.dispose()
    migrate(LEDGER, DatabaseSettings(database_url=beside))
    documents, other = open_database(url), open_database(beside)
    assert isinstance(other, AsyncEngine)
    assert not isinstance(documents, AsyncEngine)
    with closing(open_store(url, SERVICE)) as store:
        lease = commit(store, store.take_over("holder", NOW), changes(inserts=[item(1), entry(1)]))
        yield LaneOfItems(store, lease, documents, other)
    await close_database(documents)
    await close_database(other)


def item(number: int) -> Item:
    return Item(id=number, name="Lamp", price=1, currency="EUR", stock=1, created_at=NOW)


async def test_each_read_of_documents_looks_at_the_place(items: LaneOfItems) -> None:
    for read in items.reads():
        found, served = await items.read(read, items=1)
        assert (bool(found), served) == (True, ["primary"])
        with pytest.raises(NotRecent, match=f"lane items stands at 1 .* needs {FAR}"):
            await items.read(read, items=FAR)


async def test_a_read_of_documents_waits_for_its_place(items: LaneOfItems) -> None:
    documents = DocumentItems(items.documents)
    waiting = asyncio.create_task(items.read(lambda: documents.get(2), items=2, wait_s=60))
    with pytest.raises(NotRecent):
        await items.read(lambda: documents.get(2), items=2)
    await asyncio.to_thread(commit, items.store, items.lease, changes(inserts=[item(2), entry(2)]))
    assert await waiting == (item(2), ["primary"])


async def test_of_other_members_nobody_can_say_how_recent_they_are(items: LaneOfItems) -> None:
    documents = items.documents.with_options(read_preference=ReadPreference.SECONDARY_PREFERRED)
    # That of the latest state asks the primary in any case.
    get, latest, *_ = items.reads(documents)
    with pytest.raises(NotRecent, match="other members than MongoDB's primary"):
        await items.read(get, documents=documents, items=1)
    assert (await items.read(latest, documents=documents, items=1))[1] == ["primary"]


async def test_a_read_of_another_lane_is_not_held_up_by_documents(items: LaneOfItems) -> None:
    documents = items.documents.with_options(read_preference=ReadPreference.SECONDARY_PREFERRED)

    async def accounts() -> list[Account]:
        return await fetch(items.beside, table_of(LEDGER, Account).select(), Account)

    assert await items.read(accounts, documents=documents, items=FAR, ledger=0) == ([], ["reader"])


class LinearizableReads(CommandListener):
    """The filters of what is read so that no primary has a later one, and how many reads there are in all."""

    def __init__(self) -> None:
        self.filters: list[Any] = []
        self.reads = 0

    def started(self, event: CommandStartedEvent) -> None:
        self.reads += event.command_name == "find"
        if event.command.get("readConcern", {}).get("level") == "linearizable":
            self.filters.append(event.command["filter"])

    def succeeded(self, event: CommandSucceededEvent) -> None:
        pass

    def failed(self, event: CommandFailedEvent) -> None:
        pass


async def test_where_a_lane_is_is_read_by_its_key(databases: FreshDatabases) -> None:
    """MongoDB's linearizable reads prove nothing of documents that no key names."""
    url, reads = databases.new("ITEMS_DATABASE_URL"), LinearizableReads()
    client = AsyncMongoClient[Any](url, event_listeners=[reads])
    documents = client.get_default_database()
    assert not await check_lane_is_here(documents)
    assert reads.filters == [{"_id": ""}], "which shows that the primary has none"
    migrate(SERVICE, DatabaseSettings(database_url=url))
    reads.filters.clear()
    assert not await check_lane_is_here(documents)
    assert reads.filters == [{"_id": "items"}]
    reads.reads = 0
    assert await lane_is_here(documents, "items")
    assert reads.reads == 1, "the cache asks for each row that it does not have"
    await client.close()
