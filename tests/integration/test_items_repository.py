"""Items are read alike from each kind of database."""

from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coordinator.client.database import close_database, open_database
from coordinator.migrations.migrate import migrate
from coordinator.runtime.settings import DatabaseSettings
from coordinator.stores.open import open_store
from shared.items import SERVICE
from shared.items.kinds import open_items
from shared.items.model import Item
from shared.items.repository import ItemRepository
from tests.support.databases import FreshDatabases
from tests.support.store_contract import NOW, changes, commit

CREATED_AT = datetime(2026, 11, 28, 1, 2, 3, 456_000, tzinfo=UTC)
ITEMS = [
    Item(id=number, name=f"Lamp {number}", price=2**53 - 1, currency="EUR", stock=number, created_at=CREATED_AT)
    for number in range(1, 6)
]


@pytest.fixture(
    params=["USERS_DATABASE_URL", "PAYMENTS_DATABASE_URL", "ITEMS_DATABASE_URL", ""],
    ids=["PostgreSQL", "MySQL", "MongoDB", "SQLite"],
)
async def items(
    request: pytest.FixtureRequest, databases: FreshDatabases, tmp_path: Path
) -> AsyncIterator[ItemRepository]:
    url = databases.new(request.param) if request.param else f"sqlite:///{tmp_path}/items.sqlite"
    migrate(SERVICE, DatabaseSettings(database_url=url))
    with closing(open_store(url, SERVICE)) as store:
        commit(store, store.take_over("holder", NOW), changes(inserts=ITEMS))
    database = open_database(url)
    yield open_items(database)
    await close_database(database)


async def test_an_item_is_found_and_so_is_its_latest_state(items: ItemRepository) -> None:
    for read in (items.get, items.latest):
        assert [await read(each.id) for each in ITEMS] == ITEMS
        assert await read(6) is None


async def test_pages_have_every_item_once_in_the_order_of_their_ids(items: ItemRepository) -> None:
    first = await items.page(0, 2)
    assert (first.items, first.next) == (ITEMS[:2], 2)
    rest = await items.page(2, 3)
    assert (rest.items, rest.next) == (ITEMS[2:], None)
