"""The driver's arguments, made of the broker's address, and that address as errors and logs show it."""

import os
from typing import Any, Final

from msgspec import Struct

from coordinator.runtime.addresses import Address, Host, address_of, parse_address
from coordinator.runtime.settings import BrokerSettings, broker_setting
from coordinator.service.errors import ConfigurationError

SENTINEL: Final = "redis+sentinel"
_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379
_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_CHOICES: Final = {"ssl_cert_reqs": ("required", "optional", "none"), "ssl_check_hostname": ("true", "false")}
_YES: Final = ("true", "false")
ALLOWS_UNSYNCED: Final = "allow_unsynced"
_OURS: Final = frozenset({"socket_timeout", "socket_connect_timeout", "decode_responses", "db", "client_name"})


class RedisAddress(Struct, frozen=True):
    """Where Redis is. `hosts` are Sentinels if there is a `master`, and else one server.

    `arguments` are the driver's, without host and port; `sentinel_arguments` are those for Sentinels.
    `allows_unsynced`: a confirm need not mean that Redis has synced.
    """

    hosts: tuple[Host, ...]
    master: str | None
    arguments: dict[str, Any]
    sentinel_arguments: dict[str, Any]
    allows_unsynced: bool

    def __str__(self) -> str:
        where = ",".join(map(str, self.hosts))
        return where if self.master is None else f"{where} ({self.master})"


def redis_address(settings: BrokerSettings) -> RedisAddress:
    """Raises ConfigurationError, which names an option that is not known, and shows no password."""
    return redis_address_of(broker_setting("BROKER_URL"), settings.url)


def redis_address_of(setting: str, url: str) -> RedisAddress:
    """The same of the value of another setting."""
    with address_of(setting):
        address = parse_address(url)
        is_sentinel, is_tls = address.scheme == SENTINEL, address.scheme == "rediss"
        of_tls = (*_FILES, *_CHOICES, "ssl_password") if is_tls else ()
        of_sentinels = ("sentinel_username", "sentinel_password") if is_sentinel else ()
        address.check_options((ALLOWS_UNSYNCED, *of_tls, *of_sentinels), _OURS)
        default = _SENTINEL_PORT if is_sentinel else _PORT
        hosts = tuple(Host(each.name, each.port or default) for each in address.hosts or (Host("127.0.0.1"),))
        if is_sentinel and not address.database:
            raise ConfigurationError(
                "behind the Sentinels' hosts it must have the name of the master, such as /mymaster"
            )
        arguments: dict[str, Any] = {"username": address.user, "password": address.plain_password}
        if not is_sentinel:
            arguments["db"] = address.number
        for name in of_tls:
            if (value := address.option(name)) is not None:
                arguments[name] = _checked(name, value)
        return RedisAddress(
            hosts,
            address.database if is_sentinel else None,
            {**arguments, "ssl": is_tls} if is_tls else arguments,
            {
                "username": address.option("sentinel_username"),
                "password": address.option("sentinel_password"),
            },
            _is_yes(address),
        )


def _is_yes(address: Address) -> bool:
    value = address.option(ALLOWS_UNSYNCED) or "false"
    if value not in _YES:
        raise ConfigurationError(f"its option {ALLOWS_UNSYNCED!r} must be one of {', '.join(_YES)}")
    return value == "true"


def _checked(name: str, value: str) -> str | bool:
    if name in _FILES and not os.access(value, os.R_OK):
        raise ConfigurationError(f"its option {name!r} names a file that cannot be read")
    choices = _CHOICES.get(name, (value,))
    if value not in choices:
        raise ConfigurationError(f"its option {name!r} must be one of {', '.join(choices)}")
    return value == "true" if name == "ssl_check_hostname" else value
