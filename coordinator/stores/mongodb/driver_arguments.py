"""The driver's arguments, made of a MongoDB's address: the same for lane, reads, operators and migrations."""

import ssl
import warnings
from collections.abc import Mapping
from typing import Any, Final, cast
from urllib.parse import quote

from pymongo import AsyncMongoClient, MongoClient, uri_parser
from pymongo.errors import PyMongoError

from coordinator.runtime.addresses import Address
from coordinator.runtime.client_tls import RefreshedContext
from coordinator.runtime.plain_files import is_readable_file
from coordinator.service.errors import ConfigurationError

_PORT: Final = 27017
_OURS: Final = frozenset(
    {
        *("appname", "wtimeoutms", "timeoutms", "readconcernlevel", "tz_aware", "uuidrepresentation", "maxpoolsize"),
        *("connecttimeoutms", "sockettimeoutms", "serverselectiontimeoutms", "waitqueuetimeoutms"),
    }
)
_AS_WE_DO: Final = {"w": "majority", "journal": "true", "j": "true"}
"""Options that many addresses have, and that may only repeat what the coordinator does in any case."""
_FILES: Final = ("tlscafile", "tlscertificatekeyfile", "tlscrlfile")
_CONTEXT: Final = "_PoolOptions__ssl_context"
_NOT_IN_NAMES: Final = frozenset('/\\. "$')
_NAME_BYTES: Final = 63


def connection_of(address: Address) -> dict[str, Any]:
    """pymongo's arguments. Raises ConfigurationError, which names an option that has none."""
    if not address.hosts:
        raise ConfigurationError("it must have a host")
    if not address.database or _NOT_IN_NAMES & set(address.database):
        raise ConfigurationError(r'it must name a database, without / \ . " $ or a space')
    if len(address.database.encode()) > _NAME_BYTES:
        raise ConfigurationError(f"the name of its database must have at most {_NAME_BYTES} bytes")
    if address.scheme.endswith("+srv"):
        if address.one_host() is None or address.hosts[0].port is not None:
            raise ConfigurationError("with +srv it must have one host and no port")
        hosts = address.hosts[0].name
    else:
        hosts = ",".join(str(each) if each.port else f"{each}:{_PORT}" for each in address.hosts)
    found: dict[str, Any] = {"host": f"{address.scheme}://{hosts}/?{_options(address)}"}
    if address.user is not None:
        # As arguments, since an error of pymongo's may show the address.
        found |= {"username": address.user, "password": address.plain_password}
        if "authsource" not in map(str.lower, address.options):
            found["authSource"] = address.database
    if not address.scheme.endswith("+srv"):  # which looks its hosts up at once
        _check_together(found)
    return found


def refresh_tls(client: MongoClient[Any] | AsyncMongoClient[Any], connection: Mapping[str, Any]) -> None:
    """Have a client, before it connects, read the files of its arguments again whenever they change."""
    given = client.options._options  # noqa: SLF001
    files = tuple(given[name] for name in _FILES if name in given)

    def context_of(other: MongoClient[Any] | AsyncMongoClient[Any]) -> object:
        return other.options.pool_options._ssl_context  # noqa: SLF001

    def made() -> ssl.SSLContext:
        with MongoClient(**{**connection, "connect": False}) as other:
            return cast(ssl.SSLContext, context_of(other))

    # Another kind is PyOpenSSL's, where that is installed: it stays as it was read at the start.
    if files and isinstance(context_of(client), ssl.SSLContext):
        server = str(connection["host"]).partition("?")[0]
        # The driver makes its context itself, and has no argument for one.
        setattr(client.options.pool_options, _CONTEXT, RefreshedContext(server, files, made))


def _options(address: Address) -> str:
    checked = []
    for name in address.options:
        value, known = address.option(name) or "", name.lower()
        if known in _OURS or (known in _AS_WE_DO and value != _AS_WE_DO[known]):
            raise ConfigurationError(f"its option {name!r} is one that the coordinator sets itself: leave it out")
        if known in _FILES and not is_readable_file(value):
            raise ConfigurationError(f"its option {name!r} names no plain file, or one that cannot be read")
        if known not in _AS_WE_DO:
            checked.append(f"{name}={quote(value, safe=':,')}")
            _check(name, checked[-1])
    return "&".join(checked)


def _check_together(found: dict[str, Any]) -> None:
    """Options that pymongo does not take with each other, and files that are not what they must be."""
    try:
        MongoClient(**found, connect=False).close()
    except (PyMongoError, OSError, ValueError, TypeError) as error:
        raise ConfigurationError(
            f"pymongo does not take this user with these options, or one with another ({type(error).__name__})"
        ) from None


def _check(name: str, option: str) -> None:
    try:
        with warnings.catch_warnings():
            # pymongo would ignore an option that it does not know.
            warnings.simplefilter("error")
            uri_parser.split_options(option, validate=True, warn=False)
    except (PyMongoError, Warning, ValueError, TypeError):
        raise ConfigurationError(f"its option {name!r} is not supported, or not with this value") from None
