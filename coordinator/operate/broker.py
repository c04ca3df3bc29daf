"""An operator's connection to RabbitMQ. Where nobody asks it, no library for it is needed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from coordinator.runtime.settings import BrokerSettings

if TYPE_CHECKING:
    from coordinator.operate.broker_connection import Broker


@contextmanager
def broker(settings: BrokerSettings) -> Iterator["Broker"]:
    """Connect. Raises BrokerUnavailable, ConfigurationError."""
    from coordinator.operate.broker_connection import connected  # noqa: PLC0415

    with connected(settings) as connection:
        yield connection
