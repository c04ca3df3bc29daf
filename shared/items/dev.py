"""The servers that items need on a developer's machine: MongoDB, and Redis as the cache."""

from typing import Final

from coordinator.dev import DevService

DEV: Final = DevService(database="mongodb", cache="redis", gateway_port=8082, metrics_port=9102)
