"""Reading items: a port, which each kind of database implements in a module of its own."""

from typing import Protocol

from coordinator import Page
from shared.items.model import Item


class ItemRepository(Protocol):
    """The items of one database. Everything raises DatabaseUnavailable and UnreadableRow."""

    async def get(self, item_id: int) -> Item | None:
        """The item, as the latest durable writes left it."""

    async def latest(self, item_id: int) -> Item | None:
        """The item with every commit that was acknowledged before this call, as a cache needs it."""

    async def page(self, after: int, limit: int) -> Page[Item]:
        """Items with ids above `after`, at most `limit`, in order of their ids."""
