"""An operator's connection to the broker. Where nobody asks it, no library for it is needed."""

from collections.abc import Iterator
from contextlib import contextmanager

from coordinator.operate.queue_depth import BrokerView
from coordinator.runtime.settings import BrokerSettings

# ruff: noqa: PLC0415


@contextmanager
def broker(settings: BrokerSettings) -> Iterator[BrokerView]:
    """Connect. Raises BrokerUnavailable, ConfigurationError."""
    if settings.is_rabbitmq:
        from coordinator.operate.broker_connection import connected

        with connected(settings) as connection:
            yield connection
    else:
        from coordinator.operate.redis_broker import connected_to_redis

        with connected_to_redis(settings) as queues:
            yield queues
