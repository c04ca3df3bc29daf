"""Items in the cache: their keys, and the two sides of their cache (coordinator/cache)."""

from typing import TYPE_CHECKING, Final, TypeAlias

from coordinator.cache import CacheProjection, RowCache, lane_scripts, reader_scripts
from coordinator.settings import CacheSettings, load
from shared.items.model import Item

if TYPE_CHECKING:
    from coordinator.reading import Database

LEASE_KEY: Final = "items:lease"

ItemCache: TypeAlias = RowCache[Item]


def cache_key(item_id: int | str) -> str:
    """The key of an item."""
    return f"item:{item_id}"


def open_cache(database: "Database | None" = None, lane: str | None = None) -> ItemCache:
    """The gateways' side, from the settings. Connects on first use. Items are read from the lane's database to fill it;
    without one it is only read."""
    settings = load(CacheSettings)
    scripts = reader_scripts(settings)
    return RowCache(scripts, Item, cache_key, LEASE_KEY, ttl_s=settings.ttl_s, lane=lane, database=database)


def open_cache_projection() -> CacheProjection:
    """The lane's side, from the settings. Connects on first use."""
    settings = load(CacheSettings)
    return CacheProjection(
        lane_scripts(settings), Item, cache_key, LEASE_KEY, lease_s=settings.lease_s, ttl_s=settings.ttl_s
    )
