"""The servers that items need on a developer's machine: MongoDB, and Redis as the cache."""

from typing import Final

from coordinator.dev import DevService
from shared.items.cache import LEASE_KEY, cache_key

DEV: Final = DevService(
    database="mongodb",
    cache="redis",
    cache_keys=(cache_key("*"), LEASE_KEY),
    gateway_port=8082,
    metrics_port=9102,
)
