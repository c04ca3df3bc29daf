"""Whether a server and an address disagree about TLS, which no wait changes. Drivers do not tell it from an outage.

A server that was sent the beginning of TLS and has none may wait for more; one that was sent something else and has
TLS ends the connection. So the server is asked in both ways. Nothing that is secret is sent.
"""

import socket
import ssl
from collections.abc import Callable, Iterable

from msgspec import Struct

from coordinator.runtime.addresses import Host

TIMEOUT_S = 1.0
"""How long each of the two questions may take, for each server."""

_ENDED = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST")
"""OpenSSL's words for an answer that is none of TLS."""


class Greeting(Struct, frozen=True):
    """What a server without TLS answers to whoever is not logged in, and how its answer is known."""

    asks: bytes
    is_answer: Callable[[bytes], bool]
    protocol: str | None = None
    """That of ALPN, where a server with TLS takes no connection without one."""


def tls_problem(servers: Iterable[Host], greeting: Greeting, *, is_tls: bool) -> str | None:
    """Why no connection can be made, in words; None: some server may be of use, or is away. May take a while.

    `is_tls`: the address asks for TLS.
    """
    asked = list(servers)
    if not asked or not all(_disagrees(each, greeting, is_tls=is_tls) for each in asked):
        return None
    where = ", ".join(map(str, asked))
    if is_tls:
        return f"the address asks for TLS, and {where} has none at this port"
    return f"{where} has TLS at this port, and the address does not ask for it"


def refusal_in(error: BaseException) -> ssl.SSLError | None:
    """The error of TLS that is behind a driver's, and that another attempt would meet again; None: there is none.

    Certificates, versions, and what is no TLS; a connection that ended, or took too long, is not of them.
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        if isinstance(cause, ssl.SSLError):
            return None if isinstance(cause, _ENDED) else cause
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    return None


def _disagrees(server: Host, greeting: Greeting, *, is_tls: bool) -> bool:
    answers = _answers(server, greeting)
    return answers is is_tls and _has_tls(server, greeting.protocol) is not is_tls


def _answers(server: Host, greeting: Greeting) -> bool:
    """Whether it answers without TLS."""
    try:
        with socket.create_connection((server.name, server.port or 0), TIMEOUT_S) as connection:
            connection.sendall(greeting.asks)
            return greeting.is_answer(connection.recv(4096))
    except (OSError, UnicodeError):
        return False


def _has_tls(server: Host, protocol: str | None) -> bool:
    """Whether it answers as one that has TLS, whatever it thinks of us."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if protocol is not None:
        context.set_alpn_protocols([protocol])
    try:
        with (
            socket.create_connection((server.name, server.port or 0), TIMEOUT_S) as connection,
            context.wrap_socket(connection),
        ):
            return True
    except ssl.SSLError as error:
        return not isinstance(error, _ENDED) and error.reason not in _NO_TLS
    except (OSError, UnicodeError):
        return False
