"""The projection of committed rows to a cache, and reads from it: Redis, or the memory of one process."""

from coordinator.runtime.extras import naming_the_extra as _naming_the_extra

with _naming_the_extra():
    from coordinator.cache.command_log import CacheConsistentLog
    from coordinator.cache.open import lane_scripts, reader_scripts
    from coordinator.cache.projection import CacheProjection
    from coordinator.cache.reader import RowCache

__all__ = (
    # For the lane
    "CacheProjection",
    "lane_scripts",
    # For readers
    "RowCache",
    "reader_scripts",
    "CacheConsistentLog",
)
