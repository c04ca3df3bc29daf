"""Items in an SQL database: an SQLite file, PostgreSQL or MySQL."""

from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator import Page
from coordinator.reading import fetch, read_page, table_of
from shared.items import SERVICE
from shared.items.model import Item
from shared.items.repository import ItemRepository

_ITEMS: Final = table_of(SERVICE, Item)


class SqlItems(ItemRepository):
    """The items of a table, as the latest commits left them.

    That is so where the server that is read is the one that the lane writes: ITEMS_READER_URL must not name a replica.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def get(self, item_id: int) -> Item | None:
        rows = await fetch(self._engine, select(_ITEMS).where(_ITEMS.c.id == item_id), Item)
        return rows[0] if rows else None

    async def latest(self, item_id: int) -> Item | None:
        """As `get`: a commit is there for everybody before it is acknowledged."""
        return await self.get(item_id)

    async def page(self, after: int, limit: int) -> Page[Item]:
        query = select(_ITEMS).where(_ITEMS.c.id > after).order_by(_ITEMS.c.id).limit(limit + 1)
        return await read_page(fetch(self._engine, query, Item), limit)
