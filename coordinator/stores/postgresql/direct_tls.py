"""Whether a server takes TLS at once, as `sslnegotiation=direct` has it begin: PostgreSQL does from 17 on, with TLS.

Others end the connection, which libpq tells as it tells an outage. So the server is asked in both ways.
"""

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any, Final

import psycopg

from coordinator.runtime.addresses import Host
from coordinator.runtime.tls_look import Greeting, tls_problem

REFUSED: Final = "no TLS that begins at once"
"""Stands in the text of the error, and means that the next attempt will be refused, too."""
_PORT: Final = 5432
# The request for TLS of the protocol, which each server answers: with N, if it has none.
_GREETING: Final = Greeting(
    b"\x00\x00\x00\x08\x04\xd2\x16\x2f", lambda answer: answer[:1] in (b"S", b"N"), protocol="postgresql"
)


def explained(error: psycopg.OperationalError, arguments: Mapping[str, Any]) -> psycopg.OperationalError:
    """The error of an attempt with these arguments, which says so if that is why. May take a while."""
    if arguments.get("sslnegotiation") != "direct" or error.sqlstate is not None:
        return error
    servers = list(_servers(arguments))
    if not servers or tls_problem(servers, _GREETING, is_tls=True) is None:
        return error
    where = ", ".join(map(str, servers))
    return psycopg.OperationalError(
        f"{REFUSED} at {where}, as sslnegotiation=direct asks for: it is no PostgreSQL 17 or newer, or has no TLS; "
        f"leave the option out, or turn TLS on there ({' '.join(str(error).split())})"
    )


def _servers(arguments: Mapping[str, Any]) -> list[Host]:
    """Those that are reached by TCP, if all are."""
    names = str(arguments.get("host") or "").split(",")
    ports = str(arguments.get("port") or "").split(",")
    if any(not name or name.startswith(("/", "@")) for name in names):
        return []
    each = ports * len(names) if len(ports) == 1 else ports
    return [Host(name, int(port or _PORT)) for name, port in zip_longest(names, each[: len(names)], fillvalue="")]
