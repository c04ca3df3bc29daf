"""The operations on items."""

from typing import Literal

from coordinator import PAGE_DEFAULT, NotFound, Page
from coordinator.client import DEFAULT_OPTIONS, WriteOptions, Writes, Written, execute
from coordinator.reading import needs_recency
from shared.items.cache import ItemCache
from shared.items.commands import CreateItem, ReleaseItem, ReserveItem, UpdateItem
from shared.items.model import Item, Reservation
from shared.items.repository import ItemRepository

CacheResult = Literal["hit", "stored", "miss", "bypass"]


class ItemService:
    """Items in stock and their reservations. Reads of one item go through the cache, if there is one.

    Every write raises InvalidCommand, CommandRejected, CommandFailed, CommandPending or Unavailable; every read
    DatabaseUnavailable.
    """

    def __init__(self, items: ItemRepository, writes: Writes, cache: ItemCache | None = None) -> None:
        self._items = items
        self._writes = writes
        self._cache = cache

    async def get_item(self, item_id: int) -> Item:
        """Raises NotFound."""
        return (await self.read_item(item_id))[0]

    async def read_item(self, item_id: int) -> tuple[Item, CacheResult]:
        """An item, and the part of the cache in it. Raises NotFound.

        `hit`: the cache had the item. `stored`: it has it now. `miss`: the item was changed meanwhile, or the cache may
        not keep anything now. `bypass`: there is no cache, it did not answer, or the read must be
        as recent as some place, which the cache cannot tell.
        """
        is_passed_by = self._cache is None or needs_recency("items")
        cached = None if self._cache is None or is_passed_by else await self._cache.get(item_id)
        if cached is not None and cached.row is not None:
            return cached.row, "hit"
        ticket = None if cached is None else cached.ticket
        item = await (self._items.get(item_id) if ticket is None else self._items.latest(item_id))
        if item is None:
            raise NotFound("item_not_found", f"there is no item {item_id}")
        if self._cache is None or cached is None:
            return item, "bypass"
        return item, "stored" if ticket is not None and await self._cache.fill(item, ticket) else "miss"

    async def list_items(self, after: int = 0, limit: int = PAGE_DEFAULT) -> Page[Item]:
        """Items in order of their ids."""
        return await self._items.page(after, limit)

    async def create_item(self, command: CreateItem, options: WriteOptions = DEFAULT_OPTIONS) -> Written[Item]:
        """Add an item."""
        return await execute(self._writes, command, Item, options)

    async def update_item(self, command: UpdateItem, options: WriteOptions = DEFAULT_OPTIONS) -> Written[Item]:
        """Change an item."""
        return await execute(self._writes, command, Item, options)

    async def reserve(self, command: ReserveItem, options: WriteOptions = DEFAULT_OPTIONS) -> Written[Reservation]:
        """Set a part of the stock aside; never more than there is."""
        return await execute(self._writes, command, Reservation, options)

    async def release(self, command: ReleaseItem, options: WriteOptions = DEFAULT_OPTIONS) -> Written[None]:
        """Give a reservation's stock back, once."""
        return await execute(self._writes, command, type(None), options)
