"""Which cache there is, by its address: a Redis, or the memory of this process."""

from coordinator.cache.scripts import AsyncScripts, Scripts
from coordinator.runtime.cache_settings import IN_MEMORY, CacheSettings
from coordinator.runtime.extras import naming_the_extra

# ruff: noqa: PLC0415  # a process loads what its cache needs, and no more


def lane_scripts(settings: CacheSettings) -> Scripts:
    """The lane's side of the cache that REDIS_URL names. Connects on first use. Raises ConfigurationError."""
    if settings.url == IN_MEMORY:
        from coordinator.cache.memory import MemoryScripts, own_memory

        return MemoryScripts(own_memory(settings.memory_entries_max))
    with naming_the_extra():
        from coordinator.cache.connections import RedisScripts
    return RedisScripts(settings)


def reader_scripts(settings: CacheSettings) -> AsyncScripts:
    """The readers' side of it. Connects on first use. Raises ConfigurationError."""
    if settings.url == IN_MEMORY:
        from coordinator.cache.memory import AsyncMemoryScripts, own_memory

        return AsyncMemoryScripts(own_memory(settings.memory_entries_max))
    with naming_the_extra():
        from coordinator.cache.connections import AsyncRedisScripts
    return AsyncRedisScripts(settings)
