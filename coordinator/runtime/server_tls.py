"""TLS at a port of ours. Its files are read again when they change: connections that are open go on as they are."""

import asyncio
import ssl
import time
from typing import Any, Final, Literal

import structlog
from prometheus_client import Gauge

from coordinator.runtime.file_stamps import Stamp, stamp_of
from coordinator.runtime.server_files import ServerFiles, identity_of
from coordinator.service.errors import ConfigurationError

LOOK_EVERY_S: Final = 2.0
"""How often the files are looked at. One that has just changed is read at the next look: it may be half written."""

EXPIRES: Final = Gauge(
    "coordinator_certificate_expires_timestamp_seconds",
    "When the certificate that this port shows expires, in Unix time.",
    ("port",),
)

log = structlog.get_logger("tls")


class LatestContext(ssl.SSLContext):
    """The context of a port: each connection is one of `latest`, and of nothing that was before.

    A context keeps the sessions of its clients, and the keys of their tickets. Another one shown to a connection when
    it begins (`sni_callback`) would change the certificate and not these: a client whose authority is none any more
    would come in with a session of before.
    """

    latest: ssl.SSLContext

    def wrap_bio(self, *ends: Any, **options: Any) -> ssl.SSLObject:
        """As event loops do it."""
        return self.latest.wrap_bio(*ends, **options)

    def wrap_socket(self, *ends: Any, **options: Any) -> ssl.SSLSocket:
        """As threads do it."""
        return self.latest.wrap_socket(*ends, **options)


class ServerTls:
    """What one port shows to whoever connects. `context` is the port's, for as long as it listens."""

    def __init__(self, port: Literal["gateway", "metrics"], files: ServerFiles) -> None:
        """Read the files. Raises ConfigurationError, which names the setting and the file."""
        self._port = port
        self._files = files
        self._seen = self._read = self._stamp()
        self._identity = identity_of(files)
        self.context = LatestContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.latest = self._identity.context
        self.problem: str | None = None
        """Why the files of now are not in use, or that the certificate has expired; None: all is well."""
        EXPIRES.labels(port).set(self._identity.expires_s)

    async def watch(self) -> None:
        """Look at the files again and again. Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            # Files may be on a disk that does not answer.
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Read the files if they have changed; keep what was read before if they are of no use. Log what is new."""
        stamp, before = self._stamp(), self.problem
        if stamp != self._seen:
            self._seen = stamp
        elif stamp != self._read:
            self._read = stamp
            self._load()
        if self.problem is None and self._identity.expires_s <= time.time():
            self.problem = f"{self._files.prefix}CERTIFICATE: {self._files.certificate!r}: certificate has expired"
        if self.problem is not None and self.problem != before:
            log.error("certificate_refused", port=self._port, reason=self.problem)

    def _load(self) -> None:
        try:
            self._identity = identity_of(self._files)
        except (ConfigurationError, OSError, ValueError) as error:
            # The latter: a file that was taken away meanwhile.
            self.problem = str(error)
        else:
            self.problem = None
            self.context.latest = self._identity.context
            EXPIRES.labels(self._port).set(self._identity.expires_s)
            log.info("certificate_loaded", port=self._port, expires_s=int(self._identity.expires_s))

    def _stamp(self) -> Stamp:
        return stamp_of(self._files.paths)
