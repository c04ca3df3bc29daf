"""Items in Redis. An entry is replaced only by one of a higher version, whoever writes it and in whatever order.

The lane refreshes the entries of the items it changed after their commit and before it tells anybody; gateways fill
them on a miss.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import redis
import redis.asyncio
import structlog
from msgspec import Struct

from shared.items.model import Item
from shared.rows import Ref, Row
from shared.settings import CacheSettings, load

# Compare-and-set on the version, in one step: a slow filler cannot put an old version over a new one.
_PUT: Final = """
local held = redis.call('HGET', KEYS[1], 'version')
if held and tonumber(held) >= tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'item', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
"""

log = structlog.get_logger("cache")


def cache_key(item_id: int) -> str:
    """Where an item is kept."""
    return f"item:{item_id}"


class Lookup(Struct, frozen=True):
    """What the cache answered: the item, or None if it has none."""

    item: Item | None


class ItemCache:
    """The gateways' side. Never raises: a cache that is away costs a read of the database."""

    def __init__(self, client: redis.asyncio.Redis, ttl_s: int) -> None:
        self._client = client
        self._ttl_s = ttl_s
        self._put = client.register_script(_PUT)

    async def get(self, item_id: int) -> Lookup | None:
        """None: the cache did not answer."""
        try:
            text = await self._client.hget(cache_key(item_id), "item")
            return Lookup(None if text is None else msgspec.json.decode(text, type=Item))
        except (redis.RedisError, OSError, msgspec.MsgspecError) as error:
            log.warning("cache_read_failed", item_id=item_id, error=str(error))
            return None

    async def ping(self) -> bool:
        """Whether the cache answers."""
        try:
            await self._client.ping()
        except (redis.RedisError, OSError):
            return False
        return True

    async def fill(self, item: Item) -> bool:
        """Keep an item that was just read, unless a newer version is there; whether it is kept."""
        try:
            stored = await self._put(
                keys=[cache_key(item.id)],
                args=[item.version, msgspec.json.encode(item).decode(), self._ttl_s],
            )
        except (redis.RedisError, OSError) as error:
            log.warning("cache_fill_failed", item_id=item.id, error=str(error))
            return False
        return bool(stored)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def open_cache() -> ItemCache:
    """The gateways' cache, from the settings. Connects on first use."""
    settings = load(CacheSettings)
    client = redis.asyncio.Redis.from_url(
        settings.url, socket_timeout=settings.timeout_s, socket_connect_timeout=settings.timeout_s
    )
    return ItemCache(client, settings.ttl_s)


class CacheProjection:
    """The lane's side: keeps the entries of changed items new."""

    def __init__(self, client: redis.Redis, ttl_s: int) -> None:
        self._client = client
        self._ttl_s = ttl_s
        self._put = client.register_script(_PUT)

    def committed(self, saved: Sequence[Row], removed: Sequence[Ref[Row]]) -> None:
        """Refresh what changed, in one round trip."""
        items = [row for row in saved if isinstance(row, Item)]
        gone = [int(ref.value) for ref in removed if ref.model is Item]
        if not items and not gone:
            return
        try:
            with self._client.pipeline(transaction=False) as pipeline:
                for item in items:
                    self._put(
                        keys=[cache_key(item.id)],
                        args=[item.version, msgspec.json.encode(item).decode(), self._ttl_s],
                        client=pipeline,
                    )
                for item_id in gone:
                    pipeline.delete(cache_key(item_id))
                pipeline.execute()
        except (redis.RedisError, OSError) as error:
            log.warning("cache_refresh_failed", items=len(items) + len(gone), error=str(error))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def open_cache_projection() -> CacheProjection:
    """The lane's side, from the settings. Connects on first use."""
    settings = load(CacheSettings)
    client = redis.Redis.from_url(
        settings.url, socket_timeout=settings.timeout_s, socket_connect_timeout=settings.timeout_s
    )
    return CacheProjection(client, settings.ttl_s)
