"""The projection of committed rows to Redis, and reads from it."""

from coordinator.runtime.extras import naming_the_extra as _naming_the_extra

with _naming_the_extra():
    from coordinator.cache.command_log import CacheConsistentLog
    from coordinator.cache.connections import AsyncRedisScripts, RedisScripts
    from coordinator.cache.projection import CacheProjection
    from coordinator.cache.reader import RowCache

__all__ = (
    # For the lane
    "CacheProjection",
    "RedisScripts",
    # For readers
    "RowCache",
    "AsyncRedisScripts",
    "CacheConsistentLog",
)
