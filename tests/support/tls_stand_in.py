"""A server of which only the certificate matters: it ends TLS's handshake, and answers nothing."""

import contextlib
import socket
import ssl
import threading
from pathlib import Path

_PATIENCE_S = 10.0


class TlsStandIn:
    """Listens until it is closed. With `begins_plainly` a client asks for TLS first, as PostgreSQL's do."""

    def __init__(self, certificate: Path, key: Path, *, begins_plainly: bool = False) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._begins_plainly = begins_plainly
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
                plain, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            with plain, contextlib.suppress(OSError):
                plain.settimeout(_PATIENCE_S)
                if self._begins_plainly:
                    plain.recv(8)
                    plain.sendall(b"S")
                with self._context.wrap_socket(plain, server_side=True) as connection:
                    connection.recv(1)
