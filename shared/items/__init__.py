"""Items in stock and their reservations, on MongoDB with Redis as the cache."""

from shared.items.cache import open_cache_projection
from shared.items.handlers import HANDLERS
from shared.items.model import Item, Reservation
from shared.service import Service

SERVICE = Service(
    name="items",
    models=(Item, Reservation),
    handlers=HANDLERS,
    projection=open_cache_projection,
)
