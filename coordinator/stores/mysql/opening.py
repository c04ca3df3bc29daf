"""Opening a connection within a time as a whole: the driver's limit is for each part of what a server says."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import pymysql
from pymysql.constants import CR

_WHOLE: Final = 3
"""So many times the driver's limit: for the connection, the login and what is asked first."""


class Opening:
    """The connection that is being opened, and until when it may take."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s * _WHOLE
        self._timer: threading.Timer | None = None

    def connect(self, connection: Any) -> Any:
        """Connect it, which was made to connect later. Raises the driver's errors."""
        self.end()
        is_over = threading.Event()
        self._timer = threading.Timer(self._limit_s, _shut, [connection, is_over])
        self._timer.daemon = True
        self._timer.start()
        try:
            connection.connect()
        except pymysql.OperationalError as error:
            if not is_over.is_set():
                raise
            text = f"it does not let anybody in within {self._limit_s:g} s"
            raise pymysql.OperationalError(CR.CR_SERVER_LOST, text) from error
        return connection

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


@contextmanager
def opening(limit_s: float) -> Iterator[Opening]:
    """For one connection after the other, each of which is shut down unless it is open in time."""
    opened = Opening(limit_s)
    try:
        yield opened
    finally:
        opened.end()


def _shut(connection: Any, is_over: threading.Event) -> None:
    is_over.set()
    with suppress(OSError, AttributeError):
        # Whoever reads from it, in another thread, gets the end.
        connection._sock.shutdown(socket.SHUT_RDWR)  # noqa: SLF001  # there is no other way
