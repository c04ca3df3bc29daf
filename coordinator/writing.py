"""What issues the commands of a program: through RabbitMQ or Redis, or to lanes in the program's own process.

Each loads what it needs when it is asked for: a monolith loads no client of a broker. Their log lines go to standard
error, where the program has not configured structlog.
"""

import importlib
import typing

from coordinator.runtime.extras import naming_the_extra as _naming_the_extra
from coordinator.runtime.unconfigured_log import log_to_standard_error as _log_to_standard_error

if typing.TYPE_CHECKING:
    from coordinator.stores.open import open_store
    from coordinator.transports.rabbitmq.writes import RabbitWrites
    from coordinator.transports.redis.writes import RedisWrites
    from coordinator.worker.inprocess import InProcessWrites

__all__ = (
    "InProcessWrites",
    "RabbitWrites",
    "RedisWrites",
    "open_store",
)

_MODULES = {
    "RabbitWrites": "coordinator.transports.rabbitmq.writes",
    "RedisWrites": "coordinator.transports.redis.writes",
    "InProcessWrites": "coordinator.worker.inprocess",
    "open_store": "coordinator.stores.open",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _log_to_standard_error()
    with _naming_the_extra():
        return getattr(importlib.import_module(_MODULES[name]), name)
