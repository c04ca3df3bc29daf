"""Items in stock and their reservations, on MongoDB or an SQL database, with a cache."""

from coordinator import Projection, Service
from shared.items.handlers import HANDLERS
from shared.items.model import Item, Reservation


def open_projection() -> Projection:
    """The cache's side in the lane; connects on first use. Raises ConfigurationError."""
    # Of all lanes only this one needs the cache's package.
    from shared.items.cache import open_cache_projection  # noqa: PLC0415

    return open_cache_projection()


SERVICE = Service(
    name="items",
    models=(Item, Reservation),
    handlers=HANDLERS,
    projection=open_projection,
)
