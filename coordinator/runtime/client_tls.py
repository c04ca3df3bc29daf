"""TLS of connections that we open. Their files are read again when they change: an open connection goes on as it is."""

import ssl
import time
from collections.abc import Callable
from typing import Any, Self

import structlog

from coordinator.runtime.file_stamps import stamp_of
from coordinator.runtime.repeated_line import RepeatedLine
from coordinator.service.errors import ConfigurationError

log = structlog.get_logger("tls")


class RefreshedContext(ssl.SSLContext):
    """What a driver opens its connections with: each new one is made with the files as they are then.

    Files of no use, such as a certificate whose key is not written yet, change nothing: what was read before goes on,
    the log says why, and the next connection looks again.
    """

    def __new__(cls, *_: Any) -> Self:
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, server: str, files: tuple[str, ...], make: Callable[[], ssl.SSLContext]) -> None:
        """`server` is for the log; `make` reads the files. Raises what it raises."""
        self._server = server
        self._files = files
        self._make = make
        self._stamp = stamp_of(files)
        self._current = make()
        self._line = RepeatedLine()
        # Drivers ask for these.
        self.check_hostname = self._current.check_hostname
        self.verify_mode = self._current.verify_mode

    def wrap_socket(self, *arguments: Any, **named: Any) -> ssl.SSLSocket:
        return self._of_now().wrap_socket(*arguments, **named)

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        return self._of_now().wrap_bio(*arguments, **named)

    def _of_now(self) -> ssl.SSLContext:
        stamp = stamp_of(self._files)
        if stamp != self._stamp:
            try:
                self._current = self._make()
            except (ConfigurationError, OSError, ValueError) as error:
                if self._line.is_due(str(error), time.monotonic()):
                    log.error("tls_files_refused", server=self._server, reason=str(error))
            else:
                self._stamp = stamp
                log.info("tls_files_loaded", server=self._server)
        return self._current
