"""Servers of which only the beginning matters: one ends TLS's handshake, the other has no TLS. They answer nothing."""

import contextlib
import socket
import ssl
import struct
import threading
from pathlib import Path
from typing import Final, Literal

_PATIENCE_S: Final = 10.0

Begins = Literal["at once", "postgresql", "mysql"]
"""How TLS begins: with a connection, or after a few words without it."""

_SSL: Final = 1 << 11
# Of a server that has what drivers need (protocol 4.1, secure connections, plugins).
_CAPABILITIES: Final = 1 | 1 << 3 | 1 << 9 | 1 << 15 | 1 << 19
SSL_REQUEST_BYTES: Final = 36


def _greeting(capabilities: int) -> bytes:
    """MySQL's first packet."""
    low, high = struct.pack("<H", capabilities & 0xFFFF), struct.pack("<H", capabilities >> 16)
    said = b"\x0a8.0.30\0" + struct.pack("<I", 1) + b"12345678\0" + low + b"\x21\x02\0" + high + b"\x15" + bytes(10)
    said += b"123456789012\0mysql_native_password\0"
    return struct.pack("<I", len(said))[:3] + b"\0" + said


GREETING_WITH_TLS: Final = _greeting(_CAPABILITIES | _SSL)
"""The first packet of a MySQL that offers TLS."""


class _StandIn:
    """Listens until it is closed."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.connections = 0
        """How many there have been."""
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Listen no longer."""
        # An accept that waits is not told of a close.
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join(_PATIENCE_S)
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            with connection, contextlib.suppress(OSError):
                connection.settimeout(_PATIENCE_S)
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        raise NotImplementedError


class TlsStandIn(_StandIn):
    """Shows a certificate. `heard` is the first byte that was sent once it was taken.

    With `client_ca` it takes those clients only that show one of this authority.
    """

    def __init__(
        self, certificate: Path, key: Path, *, begins: Begins = "at once", client_ca: Path | None = None
    ) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        if client_ca is not None:
            self._context.load_verify_locations(client_ca)
            self._context.verify_mode = ssl.CERT_REQUIRED
        self._begins = begins
        self.heard = bytearray()
        super().__init__()

    def _answer(self, connection: socket.socket) -> None:
        if self._begins == "postgresql":
            connection.recv(8)
            connection.sendall(b"S")
        elif self._begins == "mysql":
            connection.sendall(GREETING_WITH_TLS)
            connection.recv(SSL_REQUEST_BYTES, socket.MSG_WAITALL)
        with self._context.wrap_socket(connection, server_side=True) as secured:
            self.heard += secured.recv(1)


class PlainStandIn(_StandIn):
    """Has no TLS. `heard` is all that was sent to it."""

    def __init__(self, begins: Begins = "at once") -> None:
        self._begins = begins
        self.heard = bytearray()
        super().__init__()

    def _answer(self, connection: socket.socket) -> None:
        if self._begins == "mysql":
            connection.sendall(_greeting(_CAPABILITIES))
        else:
            self.heard += connection.recv(4096)
            connection.sendall(b"N" if self._begins == "postgresql" else b"-ERR this is no TLS\r\n")
        connection.settimeout(1.0)
        while received := connection.recv(4096):
            self.heard += received
