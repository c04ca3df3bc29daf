"""The driver's arguments, made of the address of a Redis: the same for the lane and for readers."""

from typing import Any, Final

from coordinator.runtime.addresses import address_of, parse_address
from coordinator.runtime.cache_settings import CacheSettings
from coordinator.runtime.plain_files import is_readable_file
from coordinator.service.errors import ConfigurationError

_PORT: Final = 6379
_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_CHOICES: Final = {"ssl_cert_reqs": ("required", "optional", "none"), "ssl_check_hostname": ("true", "false")}
_OURS: Final = frozenset({"socket_timeout", "socket_connect_timeout", "decode_responses", "db"})


def connection_of(settings: CacheSettings) -> dict[str, Any]:
    """The client's arguments. Raises ConfigurationError, which names the setting and an option that has none."""
    with address_of("REDIS_URL"):
        address = parse_address(settings.url)
        is_tls = address.scheme == "rediss"
        address.check_options((*_FILES, *_CHOICES, "ssl_password") if is_tls else (), _OURS)
        host = address.one_host()
        found: dict[str, Any] = {
            "host": host.name if host else "127.0.0.1",
            "port": (host and host.port) or _PORT,
            "username": address.user,
            "password": address.plain_password,
            "db": address.number,
            "ssl": is_tls,
        }
        for name in address.options:
            found[name] = _checked(name, address.option(name) or "")
    return found


def _checked(name: str, value: str) -> str | bool:
    if name in _FILES and not is_readable_file(value):
        raise ConfigurationError(f"its option {name!r} names no plain file, or one that cannot be read")
    choices = _CHOICES.get(name, (value,))
    if value not in choices:
        raise ConfigurationError(f"its option {name!r} must be one of {', '.join(choices)}")
    return value == "true" if name == "ssl_check_hostname" else value
