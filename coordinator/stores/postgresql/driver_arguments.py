"""The driver's arguments, made of a PostgreSQL's address: the same for lane, reads, operators and migrations."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from coordinator.runtime.addresses import Address, port_of
from coordinator.runtime.plain_files import is_readable_file
from coordinator.service.errors import ConfigurationError
from coordinator.stores.postgresql.session import ENCODING, WRITING

_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslsni": ("0", "1"),
    "sslnegotiation": ("postgres", "direct"),
    "ssl_min_protocol_version": ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"),
    "ssl_max_protocol_version": ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"),
    "channel_binding": ("disable", "prefer", "require"),
    "gssencmode": ("disable", "prefer", "require"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
    "load_balance_hosts": ("disable", "random"),
}
_FILES: Final = ("sslrootcert", "sslcert", "sslkey", "sslcrl", "passfile")
_TEXTS: Final = ("sslpassword", "require_auth", "krbsrvname", "options", "host", "port")
APPLICATION: Final = "coordinator"
"""The name of a session that is no lane's, by which whoever looks knows it for one of this system."""
SUPPORTED: Final = (*_CHOICES, *_FILES, *_TEXTS)
OURS: Final = frozenset(
    {
        *("application_name", "fallback_application_name", "client_encoding", "connect_timeout", "replication"),
        *("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"),
    }
)
_SESSION_OURS: Final = frozenset(
    {
        *("idle_in_transaction_session_timeout", "lock_timeout", "statement_timeout", "synchronous_commit"),
        *("default_transaction_isolation", "application_name", "jit"),
        *("enable_seqscan", "enable_hashjoin", "enable_mergejoin"),
        *map(str.lower, WRITING),
    }
)
"""Parameters that one of our processes sets for its session."""
_SETTING: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]*)=(.*)", re.DOTALL)
_WORD: Final = re.compile(r"(?:\\.|[^\\\s])+", re.DOTALL)


def connection_of(address: Address) -> dict[str, Any]:
    """psycopg's arguments. Raises ConfigurationError, which names an option that has none."""
    address.check_options(SUPPORTED, OURS)
    found: dict[str, Any] = {"user": address.user, "password": address.plain_password, "dbname": address.database}
    found |= _hosts(address)
    for name, choices in _CHOICES.items():
        value = address.option(name)
        if value is not None and value not in choices:
            raise ConfigurationError(f"its option {name!r} must be one of {', '.join(choices)}")
        found[name] = value
    for name in _FILES:
        value = address.option(name)
        if value is not None and (name, value) != ("sslrootcert", "system") and not is_readable_file(value):
            raise ConfigurationError(f"its option {name!r} names no plain file, or one that cannot be read")
        found[name] = value
    for name in ("sslpassword", "require_auth", "krbsrvname"):
        found[name] = address.option(name)
    found["application_name"] = APPLICATION
    # Above PGCLIENTENCODING, and what the database or the role says.
    found["client_encoding"] = ENCODING
    found["options"] = joined(session_of(address).items()) or None
    return {name: value for name, value in found.items() if value is not None}


def schema_of(address: Address) -> str:
    """The schema in which an address's role finds and makes its tables: the first of its search_path, or `public`."""
    first = session_of(address).get("search_path", "").partition(",")[0].strip()
    if first.startswith('"') and first.endswith('"') and len(first) > 1:
        return first[1:-1].replace('""', '"')
    return first.lower() or "public"


def session_of(address: Address) -> dict[str, str]:
    """The parameters that the address's `options` set for a session. Raises ConfigurationError."""
    words = _WORD.findall(address.option("options") or "")
    found: dict[str, str] = {}
    while words:
        word = words.pop(0)
        if word == "-c" and words:
            word = words.pop(0)
        elif word.startswith(("-c", "--")):
            word = word[2:]
        else:
            raise ConfigurationError("its option 'options' may only set parameters: -c name=value, or --name=value")
        setting = _SETTING.fullmatch(re.sub(r"\\(.)", r"\1", word, flags=re.DOTALL))
        if setting is None:
            raise ConfigurationError("its option 'options' may only set parameters: -c name=value, or --name=value")
        name = setting[1].replace("-", "_").lower()
        if name in _SESSION_OURS:
            raise ConfigurationError(
                f"its option 'options' sets {name}, which the coordinator sets itself: leave it out"
            )
        found[name] = setting[2]
    return found


def joined(parameters: Iterable[tuple[str, str | int]]) -> str:
    """Parameters of a session as libpq's `options`."""
    return " ".join(f"-c {name}={_escaped(str(value))}" for name, value in parameters)


def with_session(connection: Mapping[str, Any], parameters: Mapping[str, str | int]) -> dict[str, Any]:
    """The same arguments, with more parameters of the session."""
    options = " ".join(filter(None, (connection.get("options"), joined(parameters.items()))))
    return {**connection, "options": options}


def _escaped(value: str) -> str:
    """A value within libpq's options, which are separated by spaces."""
    return re.sub(r"([\\\s])", r"\\\1", value)


def _hosts(address: Address) -> dict[str, str | None]:
    """Both forms of several hosts: before the name, and as options."""
    host, port = address.option("host"), address.option("port")
    if address.hosts:
        if host is not None or port is not None:
            raise ConfigurationError("its option 'host' or 'port' says again what stands before the database's name")
        ports = [str(each.port or "") for each in address.hosts]
        return {
            "host": ",".join(each.name for each in address.hosts),
            "port": ",".join(ports) if any(ports) else None,
        }
    count = len((host or "").split(","))
    if port is not None:
        ports = port.split(",")
        if len(ports) not in (1, count):
            raise ConfigurationError("its options 'host' and 'port' must have as many values as each other")
        for each in filter(None, ports):
            port_of(each)
    return {"host": host, "port": port}
