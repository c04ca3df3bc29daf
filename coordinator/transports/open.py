"""Finds the transport for an address. A transport imports its client, so it is imported only when it is used."""

from coordinator.runtime.addresses import scheme_of
from coordinator.runtime.extras import naming_the_extra
from coordinator.runtime.settings import BrokerSettings
from coordinator.service.errors import ConfigurationError
from coordinator.transports.port import Transport

# ruff: noqa: PLC0415


def open_transport(broker: BrokerSettings) -> Transport:
    """The transport for a broker's address; connects when it is started. Raises ConfigurationError."""
    scheme = scheme_of(broker.url)
    if scheme in ("amqp", "amqps"):
        with naming_the_extra():
            import pika  # noqa: F401  # the transport's parts import it when they are asked for

            from coordinator.transports.rabbitmq.transport import RabbitTransport

        return RabbitTransport(broker)
    if scheme in ("redis", "rediss"):
        with naming_the_extra():
            import redis  # noqa: F401

            from coordinator.transports.redis.transport import RedisTransport

        return RedisTransport(broker)
    raise ConfigurationError("no transport for its scheme: use amqp, amqps, redis, rediss or redis+sentinel")
