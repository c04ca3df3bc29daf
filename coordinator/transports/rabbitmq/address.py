"""Where the broker is: AMQP_URL as pika's parameters, and as errors and logs show it."""

import pika
from pika.exceptions import AMQPError

from coordinator.runtime.settings import BrokerSettings
from coordinator.service.errors import ConfigurationError


def broker_parameters(settings: BrokerSettings, name: str) -> pika.URLParameters:
    """How to connect; `name` shows in RabbitMQ's management. Raises ConfigurationError, which shows no password."""
    try:
        parameters = pika.URLParameters(settings.url)
    except (ValueError, TypeError, AttributeError, LookupError, SyntaxError, OSError, AMQPError) as error:
        # Its text may hold a part of the password.
        raise ConfigurationError(
            f"AMQP_URL: pika cannot make sense of this address or of its options ({type(error).__name__})"
        ) from None
    parameters.heartbeat = settings.heartbeat_s
    # One limit for all of it, which is ours: pika's own timers would go on after an attempt was given up.
    parameters.socket_timeout = parameters.stack_timeout = None
    parameters.connection_attempts = 1
    parameters.client_properties = {"connection_name": name}
    return parameters


def broker_address(parameters: pika.URLParameters) -> str:
    """Host and port, for errors and logs."""
    host = str(parameters.host)
    return f"[{host}]:{parameters.port}" if ":" in host else f"{host}:{parameters.port}"
