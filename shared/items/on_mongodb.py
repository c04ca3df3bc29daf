"""Items in a MongoDB database."""

from pymongo import ReadPreference
from pymongo.read_concern import ReadConcern

from coordinator import Page
from coordinator.reading import READ_TIMEOUT_MS, Documents, fetch_documents, read_page, reading, row_of_document
from shared.items.model import Item
from shared.items.repository import ItemRepository


class DocumentItems(ItemRepository):
    """The items of a collection, as the latest majority-committed writes left them."""

    def __init__(self, documents: Documents) -> None:
        self._items = documents[Item.table]
        self._latest = self._items.with_options(
            read_concern=ReadConcern("linearizable"), read_preference=ReadPreference.PRIMARY
        )

    async def get(self, item_id: int) -> Item | None:
        async with reading(self._items):
            document = await self._items.find_one({"_id": item_id})
        return None if document is None else row_of_document(Item, document)

    async def latest(self, item_id: int) -> Item | None:
        """Even when a primary that was cut off still answers: this costs a round trip to the database's majority."""
        async with reading(self._latest):
            document = await self._latest.find_one({"_id": item_id}, max_time_ms=READ_TIMEOUT_MS)
        return None if document is None else row_of_document(Item, document)

    async def page(self, after: int, limit: int) -> Page[Item]:
        found = self._items.find({"_id": {"$gt": after}}).sort("_id", 1).limit(limit + 1)
        return await read_page(fetch_documents(found, Item), limit)
