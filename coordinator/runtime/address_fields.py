"""The addresses that settings have, as the types of their fields: each is checked when it is read."""

from typing import Annotated, Final

from pydantic import AfterValidator

from coordinator.runtime.addresses import FOLDERS, WITHOUT_SERVER, parse_address
from coordinator.runtime.schemes import OWN_WORDS, begins_wrongly
from coordinator.service.errors import ConfigurationError

_SHORT_STRING_BYTES: Final = 255
"""AMQP has no names that are longer."""


def _checked(url: str) -> str:
    try:
        parse_address(url)
    except ConfigurationError as error:
        raise ValueError(str(error)) from None
    return url


def _names_a_database(url: str) -> str:
    try:
        address = parse_address(url)
        # Raises where there is no such kind.
        _ = address.folder
    except ConfigurationError as error:
        raise ValueError(str(error)) from None
    if not address.database:
        raise ValueError("it must name a database, behind the host and a /")
    return url


def _names_a_server(url: str) -> str:
    scheme = url.partition("://")[0]
    if OWN_WORDS.get(scheme, scheme) in WITHOUT_SERVER:
        raise ValueError(begins_wrongly(tuple(f"{each}://" for each in FOLDERS if each not in WITHOUT_SERVER), url))
    return _names_a_database(url)


def _broker(url: str) -> str:
    address = parse_address(_checked(url))
    has_sentinels = address.scheme == "redis+sentinel"
    has_nodes = address.scheme in ("amqp", "amqps")
    if not address.hosts or (len(address.hosts) > 1 and not (has_sentinels or has_nodes)):
        raise ValueError("it must have one host and, if any, one port")
    # Redis may have a password without a user.
    is_redis = has_sentinels or address.scheme in ("redis", "rediss")
    if (address.user is None) != (address.password is None) and not (is_redis and address.user is None):
        raise ValueError("it must have a user and a password, or neither")
    if has_nodes and any(len((text or "").encode()) > _SHORT_STRING_BYTES for text in (address.database, address.user)):
        raise ValueError(f"its user and its vhost must each have at most {_SHORT_STRING_BYTES} bytes")
    return url


Url = Annotated[str, AfterValidator(_checked)]
"""An address, which may hold a password: a field of this type is left out of its group's repr."""
DatabaseUrl = Annotated[str, AfterValidator(_names_a_database)]
ServerUrl = Annotated[str, AfterValidator(_names_a_server)]
"""Of a database that is no file."""
BrokerUrl = Annotated[str, AfterValidator(_broker)]
