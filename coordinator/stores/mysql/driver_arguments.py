"""The drivers' arguments, made of the address of a MySQL or MariaDB: PyMySQL's, and the same for aiomysql."""

import ssl
from collections.abc import Sequence
from typing import Any, Final

from coordinator.runtime.addresses import Address, Host
from coordinator.runtime.client_tls import RefreshedContext
from coordinator.runtime.plain_files import is_readable_file
from coordinator.service.errors import ConfigurationError
from coordinator.stores.mysql.session import CHARSET, set_up

PORT: Final = 3306
_FLAGS: Final = ("ssl_verify_cert", "ssl_verify_identity", "ssl_disabled")
_FILES: Final = ("ssl_ca", "ssl_cert", "ssl_key")
SUPPORTED: Final = (*_FILES, "ssl_key_password", *_FLAGS, "unix_socket", "charset")
OURS: Final = frozenset({"autocommit", "init_command", "connect_timeout", "read_timeout", "write_timeout", "sql_mode"})


def connections_of(address: Address) -> Sequence[dict[str, Any]]:
    """PyMySQL's arguments for each host of an address, in its order. Raises ConfigurationError."""
    if len(address.hosts) > 1 and address.option("unix_socket") is not None:
        raise ConfigurationError("its option 'unix_socket' names one server, and it has several hosts")
    found = [connection_of(each) for each in address.by_host()]
    places = [(each["host"], each["port"]) for each in found]
    for number, (host, port) in enumerate(places):
        if (host, port) in places[:number]:
            raise ConfigurationError(f"it has the host {Host(host, port)} twice")
    return found


def connection_of(address: Address) -> dict[str, Any]:
    """PyMySQL's arguments for an address of one host. Raises ConfigurationError, which names an option that has none.

    With an option for TLS there is no connection without TLS. Without such an option TLS is used if the server offers
    it, and no certificate is checked.
    """
    address.check_options(SUPPORTED, OURS)
    host = address.one_host()
    if address.option("charset") not in (None, CHARSET):
        raise ConfigurationError(f"its option 'charset' must be {CHARSET}")
    found: dict[str, Any] = {
        "host": host.name if host else "127.0.0.1",
        "port": (host and host.port) or PORT,
        "user": address.user or "",
        # The drivers encode it as Latin-1: so what they send is UTF-8, as the server has it.
        "password": (address.plain_password or "").encode().decode("latin-1"),
        "database": address.database,
        "charset": CHARSET,
        "init_command": set_up(),
    }
    if (socket := address.option("unix_socket")) is not None:
        found["unix_socket"] = socket
    flags = {name: _flag(address, name) for name in _FLAGS}
    asks_for_tls = any(name.startswith("ssl_") and name != "ssl_disabled" for name in address.options)
    if flags["ssl_disabled"] and asks_for_tls:
        raise ConfigurationError("its option 'ssl_disabled' contradicts its other options for TLS")
    if flags["ssl_disabled"]:
        found["ssl_disabled"] = True
    elif asks_for_tls:
        files = tuple(filter(None, map(address.option, _FILES)))
        found["ssl"] = RefreshedContext(str(address), files, lambda: _context(address, flags))
    return found


def reading_connection_of(address: Address) -> dict[str, Any]:
    """aiomysql's arguments for the same."""
    found = connection_of(address)
    found["db"] = found.pop("database")
    if found.pop("ssl_disabled", False) or ("unix_socket" in found and "ssl" not in found):
        return found
    found["requires_tls"] = "ssl" in found
    found.setdefault("ssl", _unverified())
    return found


def _unverified() -> ssl.SSLContext:
    """TLS without a check of the server's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _flag(address: Address, name: str) -> bool | None:
    value = address.option(name)
    if value is None:
        return None
    if value.lower() not in ("true", "false", "1", "0"):
        raise ConfigurationError(f"its option {name!r} must be true or false")
    return value.lower() in ("true", "1")


def _context(address: Address, flags: dict[str, bool | None]) -> ssl.SSLContext:
    authority, certificate, key = (address.option(name) for name in _FILES)
    for name, path in zip(_FILES, (authority, certificate, key), strict=True):
        if path is not None and not is_readable_file(path):
            raise ConfigurationError(f"its option {name!r} names no plain file, or one that cannot be read")
    if certificate is None and (key is not None or address.option("ssl_key_password") is not None):
        raise ConfigurationError("its option 'ssl_key' needs 'ssl_cert'")
    is_verified = flags["ssl_verify_cert"] is not False
    if not is_verified and (authority is not None or flags["ssl_verify_identity"]):
        raise ConfigurationError("its option 'ssl_verify_cert' contradicts 'ssl_ca' or 'ssl_verify_identity'")
    if authority is None and flags["ssl_verify_cert"] is None and not flags["ssl_verify_identity"]:
        is_verified = False
    try:
        context = ssl.create_default_context(cafile=authority)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"its option 'ssl_ca' names no file of certificates ({type(error).__name__})"
        ) from None
    # Python 3.13 sets it, and certificates that a server makes for itself do not pass.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.check_hostname = bool(flags["ssl_verify_identity"])
    context.verify_mode = ssl.CERT_REQUIRED if is_verified else ssl.CERT_NONE
    if certificate is not None:
        # Otherwise OpenSSL would ask for it at a terminal.
        password = address.option("ssl_key_password") or ""
        try:
            context.load_cert_chain(certificate, key, password=password)
        except (OSError, ssl.SSLError, ValueError) as error:
            raise ConfigurationError(
                "its options 'ssl_cert', 'ssl_key' and 'ssl_key_password' name no certificate with its key "
                f"({type(error).__name__})"
            ) from None
    return context
