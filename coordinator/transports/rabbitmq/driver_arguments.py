"""The driver's arguments, made of the broker's address, and that address as errors and logs show it."""

import ssl
from collections.abc import Iterable
from typing import Final

import pika

from coordinator.runtime.addresses import Address, Host, address_of, parse_address
from coordinator.runtime.plain_files import is_readable_file
from coordinator.runtime.settings import BrokerSettings, broker_setting
from coordinator.service.errors import ConfigurationError

_TLS: Final = ("cacertfile", "certfile", "keyfile", "password", "verify", "server_name_indication")
"""As RabbitMQ's own clients name them: https://www.rabbitmq.com/docs/uri-query-parameters."""
_OURS: Final = frozenset({"heartbeat", "connection_timeout", "connection_attempts", "socket_timeout", "stack_timeout"})
_VERIFY: Final = ("verify_peer", "verify_none")


def broker_parameters(settings: BrokerSettings, name: str) -> tuple[pika.ConnectionParameters, ...]:
    """How to connect to each node of the broker, as the address has them; `name` shows in RabbitMQ's management.

    Raises ConfigurationError, which shows no password.
    """
    with address_of(broker_setting()):
        address = parse_address(settings.url)
        is_tls = address.scheme == "amqps"
        address.check_options(_TLS if is_tls else (), _OURS)
        credentials = {}
        if address.user is not None:
            credentials["credentials"] = pika.PlainCredentials(address.user, address.plain_password or "")
        return tuple(
            pika.ConnectionParameters(
                host=host.name,
                port=host.port or (5671 if is_tls else 5672),
                virtual_host=address.database or "/",
                ssl_options=_tls(address, host.name) if is_tls else None,
                heartbeat=settings.heartbeat_s,
                # Our own limit covers the whole attempt: pika's timers would go on after it was given up.
                socket_timeout=None,
                stack_timeout=None,
                connection_attempts=1,
                client_properties={"connection_name": name},
                **credentials,
            )
            for host in address.hosts or (Host("127.0.0.1"),)
        )


def user_of(settings: BrokerSettings) -> str:
    """The name by which the broker knows whoever connects so. Raises ConfigurationError."""
    with address_of(broker_setting()):
        return parse_address(settings.url).user or pika.ConnectionParameters.DEFAULT_USERNAME


def broker_address(parameters: pika.ConnectionParameters) -> str:
    """Host and port, for errors and logs."""
    host = str(parameters.host)
    return f"[{host}]:{parameters.port}" if ":" in host else f"{host}:{parameters.port}"


def broker_addresses(nodes: Iterable[pika.ConnectionParameters]) -> str:
    """The same of all nodes."""
    return ", ".join(map(broker_address, nodes))


def _tls(address: Address, host: str) -> pika.SSLOptions:
    verify = address.option("verify") or "verify_peer"
    if verify not in _VERIFY:
        raise ConfigurationError(f"its option 'verify' must be one of {', '.join(_VERIFY)}")
    certificate, key = address.option("certfile"), address.option("keyfile")
    if key is not None and certificate is None:
        raise ConfigurationError("its option 'keyfile' needs 'certfile'")
    for name in ("cacertfile", "certfile", "keyfile"):
        path = address.option(name)
        if path is not None and not is_readable_file(path):
            raise ConfigurationError(f"its option {name!r} names no plain file, or one that cannot be read")
    try:
        context = ssl.create_default_context(cafile=address.option("cacertfile"))
        if certificate is not None:
            # Never asked for at a terminal.
            context.load_cert_chain(certificate, key, password=address.option("password") or "")
    except (OSError, ssl.SSLError, ValueError) as error:
        raise ConfigurationError(
            "its options 'cacertfile', 'certfile', 'keyfile' and 'password' name no certificates, or not the key to "
            f"one ({type(error).__name__})"
        ) from None
    if verify == "verify_none":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return pika.SSLOptions(context, address.option("server_name_indication") or host)
