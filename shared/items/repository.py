"""Reading items."""

from shared.database import Documents, reading, row_of_document
from shared.items.model import Item
from shared.paging import Page, page_of


class ItemRepository:
    """The items of a MongoDB database, as the latest majority-committed writes left them."""

    def __init__(self, documents: Documents) -> None:
        self._items = documents[Item.table]

    async def get(self, item_id: int) -> Item | None:
        """Raises DatabaseUnavailable."""
        async with reading():
            document = await self._items.find_one({"_id": item_id})
        return None if document is None else row_of_document(Item, document)

    async def page(self, after: int, limit: int) -> Page[Item]:
        """Items with ids above `after`. Raises DatabaseUnavailable."""
        async with reading():
            found = self._items.find({"_id": {"$gt": after}}).sort("_id", 1).limit(limit + 1)
            rows = [row_of_document(Item, document) async for document in found]
        return page_of(rows, limit)
