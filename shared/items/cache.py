"""Items in Redis: where they are kept, and the two sides of their cache (shared/cache)."""

from typing import Final, TypeAlias

from shared.cache.connections import AsyncRedisScripts, RedisScripts
from shared.cache.projection import CacheProjection
from shared.cache.reader import RowCache
from shared.items.model import Item
from shared.settings import CacheSettings, load

LEASE_KEY: Final = "items:lease"

ItemCache: TypeAlias = RowCache[Item]


def cache_key(item_id: int | str) -> str:
    """Where an item is kept."""
    return f"item:{item_id}"


def open_cache() -> ItemCache:
    """The gateways' side, from the settings. Connects on first use."""
    settings = load(CacheSettings)
    return RowCache(AsyncRedisScripts(settings), Item, cache_key, LEASE_KEY, ttl_s=settings.ttl_s)


def open_cache_projection() -> CacheProjection:
    """The lane's side, from the settings. Connects on first use."""
    settings = load(CacheSettings)
    return CacheProjection(
        RedisScripts(settings), Item, cache_key, LEASE_KEY, lease_s=settings.lease_s, ttl_s=settings.ttl_s
    )
